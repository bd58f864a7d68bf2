package sim

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

func unmarshal(b []byte, m proto.Message) error { return proto.Unmarshal(b, m) }

// Tail is the highest number assigned.
func (q *Queue) Tail() uint64 { return q.Next - 1 }

// remove takes items out of a queue and forgets payloads that nobody waits for.
func (m *Model) remove(q *Queue, cause string, which func(Item) bool) {
	var gone []Item
	q.Items = slices.DeleteFunc(q.Items, func(it Item) bool {
		if which(it) {
			gone = append(gone, it)
			return true
		}
		return false
	})
	for _, it := range gone {
		q.Removed[it.Seq] = Removal{m.TimeMS, cause, m.Size}
		m.forget(it.Message)
	}
}

func (m *Model) drain(device Key, upTo uint64) error {
	q := m.Queues[device]
	if q == nil || upTo < q.Cursor || upTo > q.Tail() {
		return fmt.Errorf("drained up to %d", upTo)
	}
	q.Moves = append(q.Moves, Move{m.TimeMS, q.Cursor, upTo, m.Size})
	q.Cursor, q.Gap, q.GapUpTo = upTo, 0, 0
	return nil
}

func (m *Model) confirm(device Key, upTo uint64) error {
	q := m.Queues[device]
	if q == nil || upTo > q.Tail() {
		return fmt.Errorf("confirmed up to %d", upTo)
	}
	m.remove(q, "confirmed", func(it Item) bool { return it.Seq <= upTo })
	q.Cursor = max(q.Cursor, upTo)
	if q.GapUpTo <= upTo {
		q.Gap, q.GapUpTo = 0, 0
	}
	return nil
}

func (m *Model) ack(device Key, seqs []uint64, upTo uint64) error {
	q := m.Queues[device]
	if q == nil {
		return fmt.Errorf("acknowledged in no queue")
	}
	for _, seq := range seqs {
		if !slices.ContainsFunc(q.Items, func(it Item) bool { return it.Seq == seq }) {
			return fmt.Errorf("acknowledged %d, which is not there", seq)
		}
	}
	m.remove(q, "acked", func(it Item) bool { return slices.Contains(seqs, it.Seq) })
	if upTo > 0 {
		return m.confirm(device, upTo)
	}
	return nil
}

func (m *Model) expire(device Key, seqs []uint64, now uint64) error {
	q := m.Queues[device]
	for _, seq := range seqs {
		i := slices.IndexFunc(q.Items, func(it Item) bool { return it.Seq == seq })
		if i < 0 || q.Items[i].ExpiresMS > now {
			return fmt.Errorf("expired %d, which is not there or not due", seq)
		}
		if seq > q.Cursor {
			q.Gap, q.GapUpTo = q.Gap+1, max(q.GapUpTo, seq)
		}
	}
	m.remove(q, "expired", func(it Item) bool { return slices.Contains(seqs, it.Seq) })
	return nil
}

func (m *Model) release(device Key, upTo uint64) error {
	q := m.Queues[device]
	if q == nil || upTo > q.Cursor {
		return fmt.Errorf("released up to %d, beyond what was drained", upTo)
	}
	m.remove(q, "released", func(it Item) bool { return it.Seq <= upTo })
	return nil
}

// Live are the items that a read beyond after must hand out at a time: with
// drained, also those that a draining Fetch handed out before.
func (q *Queue) Live(after uint64, now uint64, drained bool) (items []Item) {
	for _, it := range q.Items {
		if it.Seq > after && it.ExpiresMS > now && (drained || it.Seq > q.Cursor) {
			items = append(items, it)
		}
	}
	return items
}

// Lost is the gap that a read at a time must tell.
func (q *Queue) Lost(after uint64, now uint64) *pb.Gap {
	gap := &pb.Gap{Count: q.Gap, UpToSeq: q.GapUpTo}
	if q.GapUpTo <= after {
		gap = &pb.Gap{}
	}
	for _, it := range q.Items {
		if it.Seq > after && it.Seq > q.Cursor && it.ExpiresMS <= now {
			gap.Count, gap.UpToSeq = gap.Count+1, max(gap.UpToSeq, it.Seq)
		}
	}
	if gap.Count == 0 {
		return nil
	}
	return gap
}
