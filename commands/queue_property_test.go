package commands_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"quicprochat/commands"
	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// queueMachine drives one device's queue through the engine and a model beside
// it, step by step.
type queueMachine struct {
	*world
	model queueModel
	sent  map[projections.ID]bool // not known to be gone
	retry func(*rapid.T)          // the last mutation again
}

// TestQueueAgainstModel holds every answer of Enqueue, BatchEnqueue, Fetch,
// FetchWait, Peek and Ack, and the queue after each, against the model; retries
// change nothing; a payload is there exactly as long as its message; and a
// rebuild of the views has the same digest.
func TestQueueAgainstModel(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	rapid.Check(t, func(rt *rapid.T) {
		inBubble(t, rt, func(t tester) {
			m := &queueMachine{
				world: newWorld(t, false), model: queueModel{next: 1},
				sent: map[projections.ID]bool{}, retry: func(*rapid.T) {},
			}
			m.people("alice", m.arguments([]string{"bob"}))
			rt.Repeat(map[string]func(*rapid.T){
				"enqueue": m.enqueue,
				"batch":   m.batch,
				"drain":   m.drainStep,
				"follow":  m.followStep,
				"peek":    m.peek,
				"ack":     m.ack,
				"retry":   func(t *rapid.T) { m.retry(t) },
				"sleep":   m.pass,
				"":        m.compare,
			})
			m.rebuild()
		})
	})
}

// inBubble runs one sequence with virtual time of its own: rapid itself needs the
// real one. Its failures are panics, which are carried over the bubble's edge,
// and what is cleaned up must be so inside.
func inBubble(t *testing.T, rt *rapid.T, sequence func(t tester)) {
	var failure any
	bubble(t, func(*testing.T) {
		defer func() { failure = recover() }()
		inside := &bubbled{T: rt}
		defer inside.end()
		sequence(inside)
	})
	// rapid shrinks to whatever panics at the same line. Draws that ran out must have
	// another than failures, else it ends at "invalid data: overrun" and hides them.
	if fmt.Sprintf("%T", failure) == "rapid.invalidData" {
		panic(failure)
	}
	if failure != nil {
		panic(failure)
	}
}

// bubbled is a rapid.T whose cleanups run in the bubble.
type bubbled struct {
	*rapid.T
	cleanups []func()
}

func (b *bubbled) Cleanup(f func()) { b.cleanups = append(b.cleanups, f) }

func (b *bubbled) Context() context.Context { return context.Background() }

func (b *bubbled) end() {
	for _, f := range slices.Backward(b.cleanups) {
		f()
	}
}

func (m *queueMachine) send(t *rapid.T, session string, req proto.Message) (proto.Message, error) {
	method, _ := rpc.MethodOf(req)
	m.identify(req, session, m.arguments(nil))
	response, err := m.dispatch(method, req)
	if err != nil && commands.AsRefusal(err) == nil {
		t.Fatalf("%s: %v", method, err)
	}
	if method.Rule.GetRetry() == pb.Retry_REQUEST_ID && err == nil {
		size := m.log.Size()
		m.retry = func(t *rapid.T) {
			again, err := m.dispatch(method, req)
			if m.log.Size() != size {
				return // more was decided since: a call without an event is decided anew
			}
			if err != nil || !proto.Equal(again, response) {
				t.Fatalf("%s again: %v, %v; at first %v", method, again, err, response)
			}
		}
		if size == m.shown { // nothing was decided, so nothing is kept
			m.retry = func(*rapid.T) {}
		}
	}
	m.shown = m.log.Size()
	return response, err
}

var (
	payloads = rapid.OneOf(rapid.StringMatching(`[a-z]{1,8}`), rapid.Just(strings.Repeat("x", 400_000)))
	ttls     = rapid.SampledFrom([]uint32{0, 0, 0, 5, 40, 100})
)

func expiry(now uint64, ttl uint32) uint64 {
	if ttl == 0 {
		return now + uint64(commands.MaxTTL/time.Millisecond)
	}
	return now + uint64(ttl)*1000
}

func (m *queueMachine) enqueue(t *rapid.T) {
	payload, ttl := payloads.Draw(t, "payload"), ttls.Draw(t, "ttl")
	req := &pb.EnqueueRequest{
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: m.public("bob")}, Payload: []byte(payload), TtlS: ttl,
	}
	response, err := m.send(t, "alice", req)
	m.check(err)
	m.put(response.(*pb.EnqueueResponse).GetMessageId(), payload, ttl)
}

func (m *queueMachine) put(id []byte, payload string, ttl uint32) {
	m.sent[projections.ID(id)] = true
	m.model.put(&modelMessage{id: projections.ID(id), payload: payload, enqueued: m.now(), expires: expiry(m.now(), ttl)})
}

func (m *queueMachine) batch(t *rapid.T) {
	n := rapid.IntRange(1, 5).Draw(t, "items")
	req := &pb.BatchEnqueueRequest{Atomic: rapid.Bool().Draw(t, "atomic")}
	lost := -1
	for i := range n {
		item := &pb.BatchEnqueueRequest_Item{
			Recipient: &pb.BatchEnqueueRequest_Item_RecipientDevice{RecipientDevice: m.public("bob/1")},
			Payload:   []byte(fmt.Sprintf("item %d", i)), TtlS: ttls.Draw(t, "ttl"),
		}
		if rapid.IntRange(0, 9).Draw(t, "stray") == 0 {
			item.Recipient = &pb.BatchEnqueueRequest_Item_RecipientDevice{RecipientDevice: m.public("nobody")}
			lost = i
		}
		req.Items = append(req.Items, item)
	}
	response, err := m.send(t, "alice", req)
	if lost >= 0 && req.GetAtomic() {
		if !errors.Is(err, commands.Refuse(pb.Status_NotFound, pb.Reason_NO_DEVICE, "")) {
			t.Fatalf("an atomic batch with a stray item: %v", err)
		}
		return
	}
	m.check(err)
	for i, result := range response.(*pb.BatchEnqueueResponse).GetResults() {
		if result.GetStatus() != pb.Status_Ok {
			continue
		}
		m.put(result.GetMessageId(), string(req.GetItems()[i].GetPayload()), req.GetItems()[i].GetTtlS())
	}
}

func (m *queueMachine) drainStep(t *rapid.T) {
	limit := rapid.IntRange(0, 6).Draw(t, "max_items")
	response, err := m.send(t, "bob", &pb.FetchRequest{MaxItems: uint32(limit)})
	m.check(err)
	p := m.model.drain(m.now(), limit)
	same(t, response, &pb.FetchResponse{Envelopes: p.envelopes, More: p.more, Gap: p.gap})
}

func (m *queueMachine) followStep(t *rapid.T) {
	limit := rapid.IntRange(0, 6).Draw(t, "max_items")
	after := m.position(t, "after_seq")
	response, err := m.send(t, "bob", &pb.FetchWaitRequest{AfterSeq: &after, MaxItems: uint32(limit)})
	p, ok := m.model.follow(after, m.now(), limit)
	if !ok {
		beyondTail(t, err)
		return
	}
	m.check(err)
	same(t, response, &pb.FetchWaitResponse{Envelopes: p.envelopes, More: p.more, Gap: p.gap})
}

func (m *queueMachine) peek(t *rapid.T) {
	req := &pb.PeekRequest{
		FromSeq: m.position(t, "from_seq"), IncludeDrained: rapid.Bool().Draw(t, "include_drained"),
		MaxItems: rapid.Uint32Range(0, 6).Draw(t, "max_items"),
	}
	from, limit := req.GetFromSeq(), int(req.GetMaxItems())
	response, err := m.send(t, "bob", req)
	m.check(err)
	if !req.GetIncludeDrained() {
		from = max(from, m.model.cursor+1)
	}
	p := m.model.page(from, m.now(), limit, req.GetIncludeDrained())
	same(t, response, &pb.PeekResponse{Envelopes: p.envelopes, More: p.more, Gap: p.gap})
}

// position draws a place in the queue, or rarely one beyond its end.
func (m *queueMachine) position(t *rapid.T, label string) uint64 {
	return rapid.Uint64Range(0, m.model.tail()+1).Draw(t, label)
}

func (m *queueMachine) ack(t *rapid.T) {
	req := &pb.AckRequest{UpTo: m.position(t, "up_to")}
	for range rapid.IntRange(0, 4).Draw(t, "seqs") {
		req.Seqs = append(req.Seqs, max(1, m.position(t, "seq")))
	}
	if rapid.Bool().Draw(t, "seqs only") || req.GetUpTo() == 0 {
		req.UpTo = 0
		req.Seqs = append(req.Seqs, max(1, m.position(t, "seq")))
	}
	highest := req.GetUpTo()
	for _, seq := range req.GetSeqs() {
		highest = max(highest, seq)
	}
	response, err := m.send(t, "bob", req)
	if highest > m.model.tail() {
		beyondTail(t, err)
		return
	}
	m.check(err)
	listed := m.model
	listed.items = append([]modelItem(nil), m.model.items...)
	want := &pb.AckResponse{}
	for _, seq := range req.GetSeqs() {
		here := func(it modelItem) bool { return it.seq == seq }
		if len(listed.remove(here)) == 0 {
			want.AlreadyGone++
		}
		if seq > req.GetUpTo() {
			want.Acked += uint32(len(m.model.remove(here)))
		}
	}
	endsGap := m.model.lost > 0 && m.model.lostUpTo <= req.GetUpTo()
	prefix := len(m.model.items) > 0 && m.model.items[0].seq <= req.GetUpTo()
	if want.GetAcked() > 0 || prefix || endsGap {
		want.Acked += uint32(m.model.confirm(req.GetUpTo()))
	}
	same(t, response, want)
}

// pass lets time go by, and follows what housekeeping decided meanwhile.
func (m *queueMachine) pass(t *rapid.T) {
	time.Sleep(time.Duration(rapid.SampledFrom([]int{1, 6, 45, 130}).Draw(t, "seconds")) * time.Second)
	synctest.Wait()
	m.check(m.log.Iterate(m.shown, m.log.Size(), func(_ uint64, r log.Record) error {
		event, err := projections.DecodeEvent(r.Event)
		m.model.expire(event.GetMessagesExpired().GetSeqs())
		return err
	}))
	m.shown = m.log.Size()
}

// compare holds the queue as the published view has it against the model.
func (m *queueMachine) compare(t *rapid.T) {
	view := m.view()
	defer view.Release()
	device := projections.Key(m.public("bob/1"))
	state, _, err := projections.Queue(view.Reader, device)
	m.check(err)
	if state.NextSeq != m.model.next || state.Cursor != m.model.cursor || state.Count != uint64(len(m.model.items)) ||
		state.GapCount != m.model.lost || state.GapUpTo != m.model.lostUpTo {
		t.Fatalf("queue %+v, model next %d cursor %d items %d lost %d up to %d", state,
			m.model.next, m.model.cursor, len(m.model.items), m.model.lost, m.model.lostUpTo)
	}
	items, _, err := projections.QueueItems(view.Reader, device, 1, 1<<20, 1<<40)
	m.check(err)
	there := map[projections.ID]bool{}
	for i, it := range items {
		want := m.model.items[i]
		if it.Seq != want.seq || it.MessageID != want.id || it.Drained != (want.seq <= m.model.cursor) {
			t.Fatalf("item %d is %+v, in the model %d", i, it, want.seq)
		}
		there[it.MessageID] = true
	}
	for id := range m.sent {
		_, found, err := view.Payload(state.Owner, id)
		m.check(err)
		if found != there[id] {
			t.Fatalf("message %x: payload there %v, message there %v", id, found, there[id])
		}
		if !there[id] {
			delete(m.sent, id)
		}
	}
}

func same(t *rapid.T, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Fatalf("answer %s\nmodel %s", short(got), short(want))
	}
}

// short prints a message without its long payloads.
func short(m proto.Message) string {
	return strings.ReplaceAll(fmt.Sprint(m), strings.Repeat("x", 400_000), "…")
}

func beyondTail(t *rapid.T, err error) {
	t.Helper()
	if !errors.Is(err, commands.Refuse(pb.Status_BadRequest, pb.Reason_ACK_BEYOND_TAIL, "")) {
		t.Fatalf("beyond the tail: %v", err)
	}
}
