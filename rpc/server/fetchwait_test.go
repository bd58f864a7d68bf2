package server_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// pendingCall is a request that was sent and not answered yet.
type pendingCall struct {
	t      testing.TB
	cancel func()
	reply  chan reply
	err    chan error
}

// begin sends a request and does not wait for its answer.
func (c *conn) begin(req proto.Message) *pendingCall {
	c.t.Helper()
	m := method(c.t, req)
	body, err := proto.Marshal(req)
	if err != nil {
		c.t.Fatal(err)
	}
	stream, err := c.OpenStreamSync(testContext(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := stream.Write(rpc.AppendRequest(nil, m.ID, 1, body)); err != nil {
		c.t.Fatal(err)
	}
	stream.Close()
	p := &pendingCall{t: c.t, reply: make(chan reply, 1), err: make(chan error, 1), cancel: func() { stream.CancelRead(0) }}
	go func() {
		r, err := c.answer(stream)
		if err != nil {
			p.err <- err
			return
		}
		p.reply <- r
	}()
	return p
}

// get waits for the answer.
func (p *pendingCall) get() reply {
	p.t.Helper()
	select {
	case r := <-p.reply:
		return r
	case err := <-p.err:
		p.t.Fatalf("no answer: %v", err)
	case <-time.After(time.Minute):
		p.t.Fatal("no answer within a minute")
	}
	panic("unreachable")
}

func (p *pendingCall) page() *pb.FetchWaitResponse {
	p.t.Helper()
	r := p.get()
	if r.status != pb.Status_Ok {
		p.t.Fatalf("got %v %v", r.status, r.detail)
	}
	resp := new(pb.FetchWaitResponse)
	if err := proto.Unmarshal(r.body, resp); err != nil {
		p.t.Fatal(err)
	}
	return resp
}

// waiting returns when so many calls wait at the server, this one with them, and
// asserts that it has no answer.
func (p *pendingCall) waiting(w *world, calls int) {
	p.t.Helper()
	for {
		waiting := w.node.Waiting() == calls
		select {
		case r := <-p.reply:
			p.t.Fatalf("answered already: %v %v", r.status, r.detail)
		case err := <-p.err:
			p.t.Fatalf("ended already: %v", err)
		case <-time.After(time.Millisecond):
		}
		if waiting {
			return
		}
	}
}

func waitFor(p *person, ms uint32) *pb.FetchWaitRequest {
	var none uint64
	return &pb.FetchWaitRequest{SessionToken: p.token, AfterSeq: &none, TimeoutMs: ms}
}

func TestFetchWait(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, b := w.join("bob")

	empty := must[*pb.FetchWaitResponse](b, waitFor(bob, 0)) // no wait at all
	if len(empty.GetEnvelopes()) != 0 || empty.GetSuperseded() {
		t.Errorf("got %v", empty)
	}
	began := time.Now()
	empty = must[*pb.FetchWaitResponse](b, waitFor(bob, 200))
	if len(empty.GetEnvelopes()) != 0 || time.Since(began) < 200*time.Millisecond {
		t.Errorf("time-out after %v: %v", time.Since(began), empty)
	}
	waiting := b.begin(waitFor(bob, 60_000))
	waiting.waiting(w, 1)
	must[*pb.EnqueueResponse](a, alice.enqueue(bob, []byte("wake up")))
	page := waiting.page()
	if len(page.GetEnvelopes()) != 1 || string(page.GetEnvelopes()[0].GetPayload()) != "wake up" {
		t.Fatalf("got %v", page)
	}
	// What is there already is answered at once; nothing was drained.
	page = must[*pb.FetchWaitResponse](b, waitFor(bob, 60_000))
	if len(page.GetEnvelopes()) != 1 {
		t.Errorf("again: %v", page)
	}
}

// TestFetchWaitDrains: without after_seq the waking read moves the cursor.
func TestFetchWaitDrains(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	waiting := b.begin(&pb.FetchWaitRequest{SessionToken: bob.token, TimeoutMs: 60_000})
	waiting.waiting(w, 1)
	must[*pb.EnqueueResponse](a, alice.enqueue(bob, []byte("one")))
	if page := waiting.page(); len(page.GetEnvelopes()) != 1 {
		t.Fatalf("got %v", page)
	}
	if page := must[*pb.FetchResponse](b, &pb.FetchRequest{SessionToken: bob.token}); len(page.GetEnvelopes()) != 0 {
		t.Errorf("handed out twice: %v", page)
	}
	peek := must[*pb.PeekResponse](b, &pb.PeekRequest{SessionToken: bob.token, IncludeDrained: true})
	if len(peek.GetEnvelopes()) != 1 || !peek.GetEnvelopes()[0].GetDrained() || !bytes.Equal(peek.GetEnvelopes()[0].GetPayload(), []byte("one")) {
		t.Errorf("drained items are kept for a while: %v", peek)
	}
}

// TestGoneWaiterDrainsNothing: a client that gave up waiting loses nothing.
func TestGoneWaiterDrainsNothing(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	waiting := b.begin(&pb.FetchWaitRequest{SessionToken: bob.token, TimeoutMs: 60_000})
	waiting.waiting(w, 1)
	waiting.cancel()
	<-waiting.err
	eventually(t, "the server sees that nobody waits", func() bool { return w.node.Waiting() == 0 })
	must[*pb.EnqueueResponse](a, alice.enqueue(bob, []byte("kept")))
	if page := must[*pb.FetchResponse](b, &pb.FetchRequest{SessionToken: bob.token}); len(page.GetEnvelopes()) != 1 {
		t.Errorf("got %v, want the message", page)
	}
}

func TestNewerFetchWaitSupersedes(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	older := b.begin(waitFor(bob, 60_000))
	older.waiting(w, 1)
	other := w.dial() // another connection of the same device
	newer := other.begin(waitFor(bob, 60_000))
	if page := older.page(); !page.GetSuperseded() || len(page.GetEnvelopes()) != 0 {
		t.Errorf("older: %v", page)
	}
	newer.waiting(w, 1)
	must[*pb.EnqueueResponse](a, alice.enqueue(bob, []byte("to the newer")))
	if page := newer.page(); page.GetSuperseded() || len(page.GetEnvelopes()) != 1 {
		t.Errorf("newer: %v", page)
	}
}

// TestFetchWaitEndsWithSession: a waiting call does not outlive its session.
func TestFetchWaitEndsWithSession(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	other := w.dial()
	stolen := *alice
	stolen.token = alice.login(other, alice.device).GetSessionToken()
	waiting := other.begin(waitFor(&stolen, 60_000))
	waiting.waiting(w, 1)
	must[*pb.OpaqueRegisterFinishResponse](c, alice.passwordChange(c, "new"))
	select {
	case r := <-waiting.reply:
		t.Errorf("answered: %v", r)
	case <-waiting.err:
		wantClosed(t, other, rpc.CodeSessionEnded)
	case <-time.After(time.Minute):
		t.Error("still waiting")
	}
}

func TestFetchBeyondTail(t *testing.T) {
	w := boot(t, nil)
	bob, b := w.join("bob")
	beyond := uint64(1)
	unchanged := w.unchanged()
	b.refused(&pb.FetchRequest{SessionToken: bob.token, AfterSeq: &beyond}, pb.Status_BadRequest, pb.Reason_ACK_BEYOND_TAIL)
	b.refused(&pb.FetchWaitRequest{SessionToken: bob.token, AfterSeq: &beyond, TimeoutMs: 100}, pb.Status_BadRequest, pb.Reason_ACK_BEYOND_TAIL)
	b.refused(&pb.AckRequest{SessionToken: bob.token, RequestId: newRequestID(), UpTo: 1}, pb.Status_BadRequest, pb.Reason_ACK_BEYOND_TAIL)
	unchanged()
}

// TestFetchWaitWokenAtOnce wakes waiting calls at the very moment at which their
// worker hands them over. What goes wrong there is for the race detector to see,
// and shows without it as a lost or a doubled message.
func TestFetchWaitWokenAtOnce(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	var after uint64
	for i := range 200 {
		waiting := b.begin(&pb.FetchWaitRequest{SessionToken: bob.token, AfterSeq: &after, TimeoutMs: 60_000})
		text := fmt.Sprintf("message %d", i)
		must[*pb.EnqueueResponse](a, alice.enqueue(bob, []byte(text)))
		page := waiting.page()
		if len(page.GetEnvelopes()) != 1 || string(page.GetEnvelopes()[0].GetPayload()) != text {
			t.Fatalf("round %d: got %v", i, page)
		}
		after = page.GetEnvelopes()[0].GetSeq()
	}
}
