package projections

import (
	"math"

	pb "quicprochat/proto/qpcv1"
)

// applyMessagesConfirmed removes everything up to a position that the device has
// processed, and ends a gap that it has been told of.
func applyMessagesConfirmed(b *Batch, ev *pb.MessagesConfirmed) error {
	device, q, err := b.queueOf(ev.GetDeviceKey())
	if err != nil {
		return err
	}
	if err := b.confirm(device, &q, ev.GetUpTo()); err != nil {
		return err
	}
	return b.settle(device, &q)
}

// applyMessagesAcked removes single items, which must be there, and a prefix.
func applyMessagesAcked(b *Batch, ev *pb.MessagesAcked) error {
	device, q, err := b.queueOf(ev.GetDeviceKey())
	if err != nil {
		return err
	}
	if err := b.removeListed(device, &q, ev.GetSeqs(), nil); err != nil {
		return err
	}
	if ev.GetUpTo() != 0 {
		if err := b.confirm(device, &q, ev.GetUpTo()); err != nil {
			return err
		}
	}
	return b.settle(device, &q)
}

// applyMessagesExpired removes items whose time to live ended; those that were
// not handed out become a gap.
func applyMessagesExpired(b *Batch, ev *pb.MessagesExpired, nowMS uint64) error {
	device, q, err := b.queueOf(ev.GetDeviceKey())
	if err != nil {
		return err
	}
	err = b.removeListed(device, &q, ev.GetSeqs(), func(it *QueueItem) error {
		if it.ExpiresMS > nowMS {
			return invalid("item %d has not expired", it.Seq)
		}
		if !it.Drained {
			q.GapCount++
			q.GapUpTo = max(q.GapUpTo, it.Seq)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := b.moveExpiryMark(device, &q, nowMS); err != nil {
		return err
	}
	return b.settle(device, &q)
}

// confirm removes the items up to a position.
func (b *Batch) confirm(device Key, q *QueueState, upTo uint64) error {
	if upTo > q.Tail() {
		return invalid("confirmation of %d, the tail is %d", upTo, q.Tail())
	}
	if err := b.removeUpTo(device, q, upTo); err != nil {
		return err
	}
	q.Cursor = max(q.Cursor, upTo)
	if q.GapUpTo <= upTo {
		q.GapCount, q.GapUpTo = 0, 0
	}
	return nil
}

// removeUpTo removes a prefix of the queue.
func (b *Batch) removeUpTo(device Key, q *QueueState, upTo uint64) error {
	if q.Count == 0 || q.Head > upTo {
		return nil
	}
	// One item is the common case and needs no iterator.
	it, found, err := itemAt(b, device, q, q.Head)
	if err != nil || !found {
		return orInvalid(err, "the queue's first item is missing")
	}
	if err := b.removeItem(device, q, &it); err != nil {
		return err
	}
	q.Head++
	if q.Count == 0 || q.Head > upTo {
		return nil
	}
	return scanItems(b, device, q, q.Head, upTo, func(it *QueueItem) (bool, error) {
		q.Head = it.Seq + 1
		return true, b.removeItem(device, q, it)
	})
}

// removeListed removes single items; check, if any, may refuse one.
func (b *Batch) removeListed(device Key, q *QueueState, seqs []uint64, check func(*QueueItem) error) error {
	for _, seq := range seqs {
		if seq < q.Head || seq > q.Tail() {
			return invalid("item %d is not in the queue", seq)
		}
		it, found, err := itemAt(b, device, q, seq)
		if err != nil || !found {
			return orInvalid(err, "a listed item is not in the queue")
		}
		if check != nil {
			if err := check(&it); err != nil {
				return err
			}
		}
		if err := b.removeItem(device, q, &it); err != nil {
			return err
		}
	}
	return b.findHead(device, q)
}

// removeItem removes one item and what counts it. Head stays: settle moves it.
func (b *Batch) removeItem(device Key, q *QueueState, it *QueueItem) error {
	q.Count--
	q.Bytes -= uint64(it.Size)
	if it.Drained {
		q.DrainedCount--
		q.DrainedBytes -= uint64(it.Size)
	}
	share, err := SenderShare(b, device, it.Sender)
	if err != nil {
		return err
	}
	share.Count--
	share.Bytes -= uint64(it.Size)
	if err := b.putShare(device, it.Sender, share); err != nil {
		return err
	}
	if err := b.dropReference(it); err != nil {
		return err
	}
	return b.remove(itemKey(b.scratch(), device, it.Seq))
}

// settle ends a removal: head, drain marks and the queue's row.
func (b *Batch) settle(device Key, q *QueueState) error {
	if err := b.findHead(device, q); err != nil {
		return err
	}
	if err := b.trimDrains(device, q); err != nil {
		return err
	}
	return b.putQueue(device, q)
}

// findHead moves Head to the first item that is there, so that a reader never
// walks over what was removed before.
func (b *Batch) findHead(device Key, q *QueueState) error {
	if q.Count == 0 {
		q.Head = q.NextSeq
		return nil
	}
	if _, found, err := itemAt(b, device, q, q.Head); err != nil || found {
		return err
	}
	found := false
	err := scanItems(b, device, q, q.Head+1, math.MaxUint64-1, func(it *QueueItem) (bool, error) {
		q.Head, found = it.Seq, true
		return false, nil
	})
	if err == nil && !found {
		return invalid("the queue counts %d items and has none", q.Count)
	}
	return err
}
