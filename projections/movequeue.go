package projections

import "math"

// moveQueue gives a queue with everything in it and about it to another device,
// whose own is new and empty. Numbers, cursor and gap stay: whoever reads the queue
// goes on where the former device stopped. That one is left an empty queue.
//
// Payloads are stored under the account, so their references do not change.
func (b *Batch) moveQueue(from, to Key, q *QueueState) error {
	moved := *q
	if err := b.moveItems(from, to, q); err != nil {
		return err
	}
	if err := b.moveShares(from, to); err != nil {
		return err
	}
	if err := b.moveDrains(from, to, q); err != nil {
		return err
	}
	if mark := q.expiryMark; mark != 0 {
		if err := b.setExpiryMark(from, q, 0); err != nil {
			return err
		}
		moved.expiryMark = 0
		if err := b.setExpiryMark(to, &moved, mark); err != nil {
			return err
		}
	}
	if err := b.putQueue(to, &moved); err != nil {
		return err
	}
	return b.putQueue(from, &QueueState{Owner: q.Owner, NextSeq: 1, Head: 1})
}

func (b *Batch) moveItems(from, to Key, q *QueueState) error {
	return scanItems(b, from, q, q.Head, math.MaxUint64-1, func(it *QueueItem) (bool, error) {
		if err := b.putItem(to, it); err != nil {
			return false, err
		}
		return true, b.remove(itemKey(b.scratch(), from, it.Seq))
	})
}

func (b *Batch) moveShares(from, to Key) error {
	type senderShare struct {
		sender ID
		share  Share
	}
	var shares []senderShare
	err := scanView(b, keyOf32(nil, prefixShare, from), func(key, value []byte) (bool, error) {
		in := rowReader{rest: value}
		shares = append(shares, senderShare{ID(key[1+len(from):]), Share{Count: in.u64(), Bytes: in.u64()}})
		return true, in.end("sender shares")
	})
	if err != nil {
		return err
	}
	for _, s := range shares {
		if err := b.putShare(to, s.sender, s.share); err != nil {
			return err
		}
		if err := b.putShare(from, s.sender, Share{}); err != nil {
			return err
		}
	}
	return nil
}

// moveDrains moves the hours in which the former device drained: what it was handed
// out is released when it would have been.
func (b *Batch) moveDrains(from, to Key, q *QueueState) error {
	type drain struct {
		hour uint32
		row  []byte
	}
	var drains []drain
	err := scanView(b, keyOf32(nil, prefixDrain, from), func(key, value []byte) (bool, error) {
		hour, _, err := decodeDrain(key, value)
		drains = append(drains, drain{hour, append([]byte(nil), value...)})
		return true, err
	})
	if err != nil {
		return err
	}
	for _, d := range drains {
		if err := b.put(drainKey(b.scratch(), to, d.hour), d.row); err != nil {
			return err
		}
		if err := b.remove(drainKey(b.scratch(), from, d.hour)); err != nil {
			return err
		}
	}
	if q.drainMark == 0 {
		return nil
	}
	if err := b.remove(drainDueKey(b.scratch(), q.drainMark-1, from)); err != nil {
		return err
	}
	return b.put(drainDueKey(b.scratch(), q.drainMark-1, to), nil)
}
