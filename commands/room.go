package commands

import (
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// room is what one device's queue can still take of one sender, as the call that
// is being decided has planned it so far.
type room struct {
	device projections.Key
	// state and share begin as the view has them and move with what is planned;
	// share is zero and unused without quotas.
	state projections.QueueState
	share projections.Share
	// release is the position up to which drained items give way to the message
	// that is being placed; 0 = none.
	release uint64
	// drained are the oldest items as read, once something must give way;
	// exhausted says that looking at them did not help.
	drained   []projections.QueueItem
	exhausted bool
}

// verdict says whether a queue can take a message.
type verdict uint8

const (
	fits verdict = iota
	queueFull
	senderQuota
)

// releaseScan is how many of the oldest drained items are looked at to make room. It bounds the work that a sender at the limit can cause.
const releaseScan = 256

// quotaRetryMS is when trying a full queue again makes sense, in milliseconds:
// its owner must come by first.
const quotaRetryMS = 60_000

// verdict judges one more message of size bytes.
func (q *room) verdict(size uint64) verdict {
	switch {
	case q.state.Count+1 > MaxQueueItems, q.state.Bytes+size > MaxQueueBytes:
		return queueFull
	case q.share.Count+1 > MaxSenderItems, q.share.Bytes+size > MaxSenderBytes:
		return senderQuota
	}
	return fits
}

// fit judges one more message of size bytes, and makes the oldest drained items
// give way when that helps: for their recipient they are gone, and are kept only
// in case the answer that carried them was lost.
func (q *room) fit(tx *Tx, size uint64) (verdict, error) {
	if !tx.Quotas() {
		return fits, nil
	}
	first := q.verdict(size)
	if first == fits || q.exhausted || q.state.DrainedCount == 0 {
		return first, nil
	}
	if len(q.drained) == 0 {
		items, _, err := projections.QueueItems(tx.View(), q.device, q.state.Head, releaseScan, noLimit)
		if err != nil {
			return first, err
		}
		q.drained = items
	}
	less := *q
	for len(less.drained) > 0 && less.drained[0].Drained {
		less.drop(less.drained[0], tx.Caller().Account)
		if less.verdict(size) == fits {
			*q = less
			return fits, nil
		}
	}
	q.exhausted = true
	return first, nil
}

// drop plans the release of a drained item, the first that is there.
func (q *room) drop(item projections.QueueItem, sender projections.ID) {
	size := uint64(item.Size)
	q.drained = q.drained[1:]
	q.release = item.Seq
	q.state.Head = item.Seq + 1
	q.state.Count--
	q.state.Bytes -= size
	q.state.DrainedCount--
	q.state.DrainedBytes -= size
	if item.Sender == sender {
		q.share.Count--
		q.share.Bytes -= size
	}
}

// takeRelease hands the planned release over to a message, once.
func (q *room) takeRelease() uint64 {
	upTo := q.release
	q.release = 0
	return upTo
}

// take plans one message of size bytes and returns its position.
func (q *room) take(size uint64) uint64 {
	seq := q.state.NextSeq
	q.state.NextSeq++
	q.state.Count++
	q.state.Bytes += size
	q.share.Count++
	q.share.Bytes += size
	return seq
}

// lose plans that a message does not find room: the loss takes a position.
func (q *room) lose() { q.state.NextSeq++ }

// refuseFull refuses a message that no queue can take.
func refuseFull(allFull bool) error {
	if allFull {
		return &Refusal{
			Status: pb.Status_RateLimited, Reason: pb.Reason_QUEUE_FULL,
			Message: "every queue of the recipient is full", RetryAfterMS: quotaRetryMS,
		}
	}
	return &Refusal{
		Status: pb.Status_RateLimited, Reason: pb.Reason_SENDER_QUOTA,
		Message: "the recipient's queues hold as much of this sender as is allowed", RetryAfterMS: quotaRetryMS,
	}
}
