package projections

import (
	"encoding/binary"
	"math"
)

// QueueState is the summary of one device's queue.
//
//	1 … │ gone │ drained, in grace │ waiting │ not assigned yet
//	           Head            Cursor    Tail   NextSeq
//
// Items between Head and Tail may be gone too (acked one by one, expired); what
// is there has a row of its own.
type QueueState struct {
	// Owner is the account of the device.
	Owner ID
	// NextSeq is the number that the next item must have; the first is 1. A
	// message that is lost because the queue is full takes a number as well.
	NextSeq uint64
	// Cursor is the highest number that was drained or confirmed.
	Cursor uint64
	// Head is the number of the first item that is there; NextSeq when none is.
	Head uint64
	// Count and Bytes (of payload) are over all items that are there.
	Count uint64
	Bytes uint64
	// DrainedCount and DrainedBytes are over those of them that were drained.
	DrainedCount uint64
	DrainedBytes uint64
	// GapCount is the number of messages that were lost and not yet told.
	GapCount uint64
	// GapUpTo is the number of the last of them: confirming it ends the gap.
	GapUpTo uint64

	// expiryMark is the minute of the queue's row in prefixQueueExpiry plus one:
	// no item's time to live ends before; 0 without a row.
	expiryMark uint32
	// drainMark is the hour of the queue's row in prefixDrainDue plus one: that of
	// its first row in prefixDrain; 0 without.
	drainMark uint32
}

// Tail is the highest number assigned, 0 before the first.
func (q QueueState) Tail() uint64 { return q.NextSeq - 1 }

// Waiting is the number of items that were not drained yet.
func (q QueueState) Waiting() uint64 { return q.Count - q.DrainedCount }

// QueueItem is one message in one device's queue.
type QueueItem struct {
	Seq       uint64
	MessageID ID
	// Owner is what the payload is stored under: the account of the device, or the
	// channel of a post.
	Owner      ID
	Sender     ID
	Size       uint32
	EnqueuedMS uint64
	ExpiresMS  uint64
	// Drained tells that a plain Fetch has handed it out.
	Drained bool
	// Control tells that the payload is a ControlItem: the server sent it.
	Control bool
	// Channel is the channel that the message belongs to; zero: none.
	Channel ID
	// ChannelSeq is the place of a post in its channel's order, from 1. It is 0 for
	// a message to one account within a channel.
	ChannelSeq uint64
	// Welcome tells that it came with the post of that number, for some members.
	Welcome bool

	// shared tells that other queues refer to the same payload or did.
	shared bool
}

// Queue finds the queue of an active device.
func Queue(r Reader, device Key) (QueueState, bool, error) {
	return readRow(r, "queues", keyOf32(r.scratch(), prefixQueue, device), decodeQueue)
}

func decodeQueue(in *rowReader) QueueState {
	return QueueState{
		Owner: in.id(), NextSeq: in.u64(), Cursor: in.u64(), Head: in.u64(), Count: in.u64(), Bytes: in.u64(),
		DrainedCount: in.u64(), DrainedBytes: in.u64(), GapCount: in.u64(), GapUpTo: in.u64(),
		expiryMark: in.u32(), drainMark: in.u32(),
	}
}

func (b *Batch) putQueue(device Key, q *QueueState) error {
	row := append(b.row[:0], q.Owner[:]...)
	for _, v := range [...]uint64{
		q.NextSeq, q.Cursor, q.Head, q.Count, q.Bytes, q.DrainedCount, q.DrainedBytes, q.GapCount, q.GapUpTo,
	} {
		row = binary.BigEndian.AppendUint64(row, v)
	}
	row = binary.BigEndian.AppendUint32(row, q.expiryMark)
	b.row = binary.BigEndian.AppendUint32(row, q.drainMark)
	return b.put(keyOf32(b.scratch(), prefixQueue, device), b.row)
}

// queueOf finds the queue that an event is about.
func (b *Batch) queueOf(deviceKey []byte) (device Key, q QueueState, err error) {
	if device, err = field32(deviceKey, "device key"); err != nil {
		return device, q, err
	}
	q, found, err := Queue(b, device)
	if err != nil || !found {
		return device, q, orInvalid(err, "the device has no queue")
	}
	return device, q, nil
}

func (b *Batch) putItem(device Key, it *QueueItem) error {
	row := append(b.row[:0], it.MessageID[:]...)
	row = append(row, it.Owner[:]...)
	row = append(row, it.Sender[:]...)
	row = binary.BigEndian.AppendUint32(row, it.Size)
	row = binary.BigEndian.AppendUint64(row, it.EnqueuedMS)
	row = binary.BigEndian.AppendUint64(row, it.ExpiresMS)
	var flags byte
	if it.shared {
		flags |= itemShared
	}
	if it.Control {
		flags |= itemControl
	}
	if it.Welcome {
		flags |= itemWelcome
	}
	if it.Channel == (ID{}) {
		b.row = append(row, flags)
	} else {
		row = append(append(row, flags|itemChannel), it.Channel[:]...)
		b.row = binary.BigEndian.AppendUint64(row, it.ChannelSeq)
	}
	return b.put(itemKey(b.scratch(), device, it.Seq), b.row)
}

const (
	itemShared = 1 << iota
	itemControl
	itemChannel // channel and number follow
	itemWelcome
)

func decodeItem(in *rowReader) QueueItem {
	it := QueueItem{
		MessageID: in.id(), Owner: in.id(), Sender: in.id(), Size: in.u32(),
		EnqueuedMS: in.u64(), ExpiresMS: in.u64(),
	}
	flags := in.u8()
	it.shared, it.Control, it.Welcome = flags&itemShared != 0, flags&itemControl != 0, flags&itemWelcome != 0
	if flags&itemChannel != 0 {
		it.Channel, it.ChannelSeq = in.id(), in.u64()
	}
	return it
}

// scanItems calls each with the items of a queue numbered from … to that are
// there, in order, until it returns false or an error.
func scanItems(r Reader, device Key, q *QueueState, from, to uint64, each func(*QueueItem) (bool, error)) error {
	// Rows before Head are gone: not even their tombstones are looked at.
	from, to = max(from, q.Head), min(to, q.Tail())
	if from > to {
		return nil
	}
	var it QueueItem
	return scanRows(r, itemKey(nil, device, from), itemKey(nil, device, to+1), func(key, value []byte) (bool, error) {
		in := rowReader{rest: value}
		it = decodeItem(&in)
		if err := in.end("queue items"); err != nil {
			return false, err
		}
		it.Seq = binary.BigEndian.Uint64(key[len(key)-8:])
		it.Drained = it.Seq <= q.Cursor
		return each(&it)
	})
}

// QueueItems lists the items of a queue with a number of at least from, in
// order: at most maxItems, and at most maxBytes of payload but at least one
// item. more tells whether others follow. Items past their time to live are
// listed until an event removes them. A device without a queue has no items.
func QueueItems(r Reader, device Key, from uint64, maxItems int, maxBytes uint64) (items []QueueItem, more bool, err error) {
	q, found, err := Queue(r, device)
	if err != nil || !found {
		return nil, false, err
	}
	items = make([]QueueItem, 0, min(uint64(max(maxItems, 0)), q.Count))
	var size uint64
	err = scanItems(r, device, &q, from, math.MaxUint64-1, func(it *QueueItem) (bool, error) {
		size += uint64(it.Size)
		if len(items) >= maxItems || (len(items) > 0 && size > maxBytes) {
			more = true
			return false, nil
		}
		items = append(items, *it)
		return true, nil
	})
	return items, more, err
}

// QueueItemAt finds one item.
func QueueItemAt(r Reader, device Key, seq uint64) (QueueItem, bool, error) {
	q, found, err := Queue(r, device)
	if err != nil || !found || seq < q.Head || seq > q.Tail() {
		return QueueItem{}, false, err
	}
	return itemAt(r, device, &q, seq)
}

func itemAt(r Reader, device Key, q *QueueState, seq uint64) (QueueItem, bool, error) {
	it, found, err := readRow(r, "queue items", itemKey(r.scratch(), device, seq), decodeItem)
	it.Seq, it.Drained = seq, seq <= q.Cursor
	return it, found, err
}
