package commands_test

import (
	"slices"

	"quicprochat/commands"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// queueModel is what one device's queue is to its owner, as a slice. It knows
// nothing of how the views store it.
type queueModel struct {
	items  []modelItem // what is there, in order
	next   uint64
	cursor uint64
	// lost counts the messages lost and not yet told, lostUpTo is the last of them.
	lost, lostUpTo uint64
}

// modelItem is a message at its position.
type modelItem struct {
	seq uint64
	*modelMessage
}

// modelMessage is one message, whatever queues it lies in. Times are in Unix
// milliseconds.
type modelMessage struct {
	id                projections.ID
	payload           string
	sender            string // username; unused where there is but one, "" the server
	enqueued, expires uint64

	owner   string          // whose account the payload is stored under; "" with a post
	control *pb.ControlItem // instead of the payload
	// channel is that of a post or of a message within one; post is its number.
	channel *modelChannel
	post    uint64
	welcome bool
}

// envelope is the message as its recipient gets it, without its position.
func (m *modelMessage) envelope() *pb.Envelope {
	e := &pb.Envelope{MessageId: m.id[:], EnqueuedMs: m.enqueued, ExpiresMs: m.expires, ChannelSeq: m.post, Welcome: m.welcome}
	if m.control != nil {
		e.Control = m.control
	} else {
		e.Payload = []byte(m.payload)
	}
	if m.channel != nil {
		e.ChannelId = m.channel.id[:]
	}
	return e
}

func (m *queueModel) tail() uint64 { return m.next - 1 }

func (m *queueModel) put(message *modelMessage) {
	m.items = append(m.items, modelItem{m.next, message})
	m.next++
}

// remove takes the items out that gone says, and returns how many.
func (m *queueModel) remove(gone func(modelItem) bool) (removed []modelItem) {
	m.items = slices.DeleteFunc(m.items, func(it modelItem) bool {
		if gone(it) {
			removed = append(removed, it)
			return true
		}
		return false
	})
	return removed
}

// confirm is what after_seq and up_to do.
func (m *queueModel) confirm(upTo uint64) int {
	m.cursor = max(m.cursor, upTo)
	if m.lostUpTo <= upTo {
		m.lost, m.lostUpTo = 0, 0
	}
	return len(m.remove(func(it modelItem) bool { return it.seq <= upTo }))
}

// expire follows housekeeping: an item that nobody drained is a loss.
func (m *queueModel) expire(seqs []uint64) {
	for _, it := range m.remove(func(it modelItem) bool { return slices.Contains(seqs, it.seq) }) {
		if it.seq > m.cursor {
			m.lost, m.lostUpTo = m.lost+1, max(m.lostUpTo, it.seq)
		}
	}
}

// modelPage is an answer with what it does to the cursor.
type modelPage struct {
	envelopes []*pb.Envelope
	more      bool
	gap       *pb.Gap
	last      uint64 // last position that was looked at
}

// page reads from a position on, at a time: expired items are passed over, and
// are a loss if they were not drained.
func (m *queueModel) page(from, now uint64, limit int, drained bool) modelPage {
	var p modelPage
	gap := &pb.Gap{Count: m.lost, UpToSeq: m.lostUpTo}
	if limit == 0 || limit > commands.MaxPageItems {
		limit = commands.MaxPageItems
	}
	size := 0
	for _, it := range m.items {
		wasDrained := it.seq <= m.cursor
		switch {
		case it.seq < from:
			continue
		case len(p.envelopes) == limit:
			p.more = true
		case it.expires <= now && !wasDrained:
			gap.Count, gap.UpToSeq = gap.Count+1, max(gap.UpToSeq, it.seq)
		case it.expires <= now, wasDrained && !drained:
		case len(p.envelopes) > 0 && size+len(it.payload) > commands.MaxPageBytes:
			p.more = true
		default:
			size += len(it.payload)
			e := it.envelope()
			e.Seq, e.Drained = it.seq, wasDrained
			p.envelopes = append(p.envelopes, e)
		}
		if p.more {
			break
		}
		p.last = it.seq
	}
	if gap.GetCount() > 0 {
		p.gap = gap
	}
	return p
}

// drain is the plain Fetch.
func (m *queueModel) drain(now uint64, limit int) modelPage {
	p := m.page(m.cursor+1, now, limit, false)
	if p.gap != nil && !p.more {
		p.last = max(p.last, p.gap.GetUpToSeq())
	}
	m.cursor = max(m.cursor, p.last)
	m.lost, m.lostUpTo = 0, 0
	return p
}

// follow is the Fetch with after_seq; false beyond the tail.
func (m *queueModel) follow(after, now uint64, limit int) (modelPage, bool) {
	if after > m.tail() {
		return modelPage{}, false
	}
	// What is drained is judged as of before the confirmation.
	before := *m
	before.items = slices.Clone(m.items)
	if before.lostUpTo <= after {
		before.lost, before.lostUpTo = 0, 0
	}
	p := before.page(after+1, now, limit, true)
	confirms := len(m.items) > 0 && m.items[0].seq <= after || m.lost > 0 && m.lostUpTo <= after
	if confirms {
		m.confirm(after)
	}
	return p, true
}
