package commands

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// window is what one read of a device's queue finds: the page to hand out, and
// what the read would change. It is computed from a view alone, so that the
// published view can answer a read that changes nothing, and the writer decides
// the others by the same rules.
type window struct {
	items []projections.QueueItem
	more  bool
	gap   *pb.Gap
	// confirm is the position up to which items are removed, drain the one up to
	// which the cursor moves; 0 = nothing to decide.
	confirm, drain uint64
}

// changes reports whether handing the window out is a decision.
func (w *window) changes() bool { return w.confirm > 0 || w.drain > 0 }

// reading is a request of Fetch, FetchWait or Peek without its token.
type reading struct {
	device   projections.Key
	now      uint64 // Unix milliseconds
	maxItems int    // 0 or above MaxPageItems: MaxPageItems
	// tentative: a window that changes something is not handed out, so its page
	// need not be collected.
	tentative bool
}

// queue finds the queue of the reading device.
func (r reading) queue(view projections.Reader) (projections.QueueState, error) {
	state, found, err := projections.Queue(view, r.device)
	if err == nil && !found {
		err = fmt.Errorf("commands: a device session without a queue")
	}
	return state, err
}

// draining reads what lies beyond the cursor. Handing it out moves the cursor
// over it and over what expired in between, and tells of the gap for the last
// time.
func (r reading) draining(view projections.Reader) (*window, error) {
	state, err := r.queue(view)
	if err != nil {
		return nil, err
	}
	if r.tentative && state.Waiting() > 0 {
		return &window{drain: state.Tail()}, nil
	}
	w, last, err := r.page(view, state, state.Cursor+1, false)
	if err != nil {
		return nil, err
	}
	w.drain = last
	if w.gap != nil && !w.more {
		// Nothing is left below the gap's end, so the cursor may move there.
		w.drain = max(last, state.Cursor, w.gap.GetUpToSeq())
	}
	return w, nil
}

// following reads what lies beyond after, also items that a draining Fetch
// handed out: whoever confirms says what was processed, and nothing else counts.
// Items up to after are confirmed, and so is a gap that ends there: a loss has a
// position of its own, which nobody can name who was not told of it. Refusal:
// ACK_BEYOND_TAIL.
func (r reading) following(view projections.Reader, after uint64) (*window, error) {
	state, err := r.queue(view)
	if err != nil {
		return nil, err
	}
	if after > state.Tail() {
		return nil, beyondTail("after_seq", after)
	}
	confirms := state.Head <= after
	if state.GapCount > 0 && state.GapUpTo <= after {
		confirms = true
		state.GapCount, state.GapUpTo = 0, 0
	}
	if r.tentative && confirms {
		return &window{confirm: after}, nil
	}
	w, _, err := r.page(view, state, after+1, true)
	if err != nil {
		return nil, err
	}
	if confirms {
		w.confirm = after
	}
	return w, nil
}

// page collects items from a position on. Items past their time to live are
// treated as absent whether or not housekeeping was there: those that nobody
// drained count into the gap. last is the last position that was looked at.
func (r reading) page(view projections.Reader, state projections.QueueState, from uint64, drained bool) (w *window, last uint64, err error) {
	limit := r.maxItems
	if limit <= 0 || limit > MaxPageItems {
		limit = MaxPageItems
	}
	w = &window{}
	gap := pb.Gap{Count: state.GapCount, UpToSeq: state.GapUpTo}
	var size uint64
	for from = max(from, state.Head); from < state.NextSeq; from = last + 1 {
		items, more, err := projections.QueueItems(view, r.device, from, limit-len(w.items), MaxPageBytes)
		if err != nil {
			return nil, 0, err
		}
		for _, item := range items {
			expired := item.ExpiresMS <= r.now
			switch {
			case expired && !item.Drained:
				gap.Count, gap.UpToSeq = gap.Count+1, max(gap.UpToSeq, item.Seq)
			case expired, item.Drained && !drained:
			case len(w.items) > 0 && size+uint64(item.Size) > MaxPageBytes:
				w.more = true
				w.tell(&gap)
				return w, last, nil
			default:
				w.items = append(w.items, item)
				size += uint64(item.Size)
			}
			last = item.Seq
		}
		if w.more = more; !more || len(w.items) == limit {
			break
		}
	}
	w.tell(&gap)
	return w, last, nil
}

func (w *window) tell(gap *pb.Gap) {
	if gap.GetCount() > 0 {
		w.gap = gap
	}
}

// envelopes are the items without their payloads: those are in the log, and are
// read by FillPayloads.
func (w *window) envelopes() []*pb.Envelope {
	envelopes := make([]*pb.Envelope, len(w.items))
	for i := range w.items {
		item := &w.items[i]
		envelopes[i] = &pb.Envelope{
			Seq:        item.Seq,
			MessageId:  item.MessageID[:],
			EnqueuedMs: item.EnqueuedMS,
			ExpiresMs:  item.ExpiresMS,
			Drained:    item.Drained,
		}
		if item.Channel != (projections.ID{}) {
			envelopes[i].ChannelId = item.Channel[:]
			envelopes[i].ChannelSeq, envelopes[i].Welcome = item.ChannelSeq, item.Welcome
		}
		if item.Control {
			envelopes[i].Control = new(pb.ControlItem)
		}
	}
	return envelopes
}

// PayloadReader reads payloads in the order of keys, as Engine.Payloads does: fn
// gets nil for one that was released, and data that is valid only during the
// call.
type PayloadReader func(keys []log.PayloadKey, fn func(i int, data []byte) error) error

// FillPayloads adds the payloads to envelopes that a decision or a view chose.
// account is the caller's, under which payloads of its queues are stored; those of
// posts are stored under their channel.
// An envelope whose payload was released meanwhile (acknowledged on another
// stream, expired) is left out: it is gone, which is no error. The result reuses
// the slice. A control item is stored as a payload; its envelope gets it in
// control. The payloads are put into room, which is returned as far as it grew and
// may serve again when the envelopes are no longer used. It is called when the
// decision is durable, outside the writer.
func FillPayloads(read PayloadReader, account [16]byte, envelopes []*pb.Envelope, room []byte) ([]*pb.Envelope, []byte, error) {
	keys := make([]log.PayloadKey, len(envelopes))
	byKey := make([]*pb.Envelope, len(envelopes))
	copy(byKey, envelopes)
	// In the order of the store, one scan reads them all.
	owner := func(e *pb.Envelope) []byte {
		if e.GetChannelSeq() > 0 {
			return e.GetChannelId()
		}
		return account[:]
	}
	slices.SortFunc(byKey, func(a, b *pb.Envelope) int {
		return cmp.Or(bytes.Compare(owner(a), owner(b)), bytes.Compare(a.GetMessageId(), b.GetMessageId()))
	})
	for i, envelope := range byKey {
		keys[i] = log.PayloadKey{Owner: [16]byte(owner(envelope)), ID: [16]byte(envelope.GetMessageId())}
	}
	err := read(keys, func(i int, data []byte) error {
		if control := byKey[i].GetControl(); control != nil && data != nil {
			return proto.Unmarshal(data, control)
		}
		if data != nil { // what was put before stays where it is when room grows
			at := len(room)
			room = append(room, data...)
			byKey[i].Payload = room[at:len(room):len(room)]
		}
		return nil
	})
	if err != nil {
		return nil, room, fmt.Errorf("commands: reading payloads: %w", err)
	}
	return slices.DeleteFunc(envelopes, func(e *pb.Envelope) bool {
		return e.GetPayload() == nil && e.GetControl().GetKind() == nil
	}), room, nil
}

// beyondTail refuses a position that was never assigned in this queue.
func beyondTail(field string, seq uint64) error {
	return Refuse(pb.Status_BadRequest, pb.Reason_ACK_BEYOND_TAIL,
		"%s %d lies beyond the end of the queue", field, seq)
}

// noLimit asks QueueItems for as much payload as there is.
const noLimit = math.MaxUint64
