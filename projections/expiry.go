package projections

import "math"

// Each queue that has or had items has one row in prefixQueueExpiry, ordered by
// minute: before that minute none of its items expires. Adding an item moves the
// row only when the item expires earlier; removing items never does. When the
// minute has come, a MessagesExpired event removes what expired and moves the
// row to where it belongs, or drops it. So a message costs no row of an index,
// and a queue at most one event per minute.

const minuteMS = 60 * 1000

// expiryMinute is the first minute that begins when an item has expired.
func expiryMinute(expiresMS uint64) uint32 {
	return uint32((expiresMS + minuteMS - 1) / minuteMS)
}

// markExpiry makes sure that the queue's row is not after an item's expiry.
func (b *Batch) markExpiry(device Key, q *QueueState, expiresMS uint64) error {
	minute := expiryMinute(expiresMS)
	if q.expiryMark != 0 && q.expiryMark-1 <= minute {
		return nil
	}
	return b.setExpiryMark(device, q, minute+1)
}

// setExpiryMark moves the queue's row; mark is its minute plus one, 0 for none.
func (b *Batch) setExpiryMark(device Key, q *QueueState, mark uint32) error {
	if mark == q.expiryMark {
		return nil
	}
	if q.expiryMark != 0 {
		if err := b.remove(queueExpiryKey(b.scratch(), q.expiryMark-1, device)); err != nil {
			return err
		}
	}
	if q.expiryMark = mark; mark == 0 {
		return nil
	}
	return b.put(queueExpiryKey(b.scratch(), mark-1, device), nil)
}

// moveExpiryMark puts the queue's row where its items say. It stops at the first
// item that has expired already: the row stays due then.
func (b *Batch) moveExpiryMark(device Key, q *QueueState, nowMS uint64) error {
	if q.Count == 0 {
		return b.setExpiryMark(device, q, 0)
	}
	first := uint32(math.MaxUint32)
	err := scanItems(b, device, q, q.Head, math.MaxUint64-1, func(it *QueueItem) (bool, error) {
		first = min(first, expiryMinute(it.ExpiresMS))
		return it.ExpiresMS > nowMS, nil
	})
	if err != nil {
		return err
	}
	return b.setExpiryMark(device, q, first+1)
}

// QueueExpiry is the body of a MessagesExpired event that is due.
type QueueExpiry struct {
	Device Key
	// Seqs may be empty: the event then only moves the queue's expiry row.
	Seqs []uint64
}

// ExpiredMessages lists queues whose items may have expired by nowMS: each
// result is to become one MessagesExpired event, also one without Seqs. limit
// bounds the items and the queues. Expired items are listed up to a minute late.
func ExpiredMessages(r Reader, nowMS uint64, limit int) ([]QueueExpiry, error) {
	var devices []Key
	end := keyOfU32(nil, prefixQueueExpiry, uint32(min(nowMS, maxTimeMS)/minuteMS)+1)
	err := scanRows(r, keyOf(nil, prefixQueueExpiry), end, func(key, _ []byte) (bool, error) {
		devices = append(devices, Key(key[1+4:]))
		return len(devices) < limit, nil
	})
	if err != nil {
		return nil, err
	}
	var due []QueueExpiry
	for _, device := range devices {
		if limit <= 0 {
			break
		}
		expiry := QueueExpiry{Device: device}
		q, _, err := Queue(r, device)
		if err != nil {
			return nil, err
		}
		err = scanItems(r, device, &q, q.Head, math.MaxUint64-1, func(it *QueueItem) (bool, error) {
			if it.ExpiresMS <= nowMS {
				expiry.Seqs = append(expiry.Seqs, it.Seq)
				limit--
			}
			return limit > 0, nil
		})
		if err != nil {
			return nil, err
		}
		due = append(due, expiry)
	}
	return due, nil
}
