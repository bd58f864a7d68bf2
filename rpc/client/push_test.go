package client

import (
	"context"
	"math"
	"testing"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/client/seal"
)

// newest waits for the n-th connection of the fake server.
func (f *fake) newest(n int) *quic.Conn {
	f.t.Helper()
	eventually(f.t, "the connection comes", func() bool { return f.connections() >= n })
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns[n-1]
}

// push sends one frame on a stream of its own.
func (f *fake) push(conn *quic.Conn, frame []byte) {
	f.t.Helper()
	stream, err := conn.OpenUniStreamSync(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	stream.Write(frame)
	stream.Close()
}

func newMessage(seq uint64) []byte {
	frame, err := rpc.AppendPushMessage(nil, uint16(pb.PushType_NEW_MESSAGE), &pb.PushNewMessage{Seq: seq, Payload: []byte("inline")})
	if err != nil {
		panic(err)
	}
	return frame
}

// subscribed is a client with a session that got the resync of its binding.
func subscribed(t *testing.T, f *fake) (*Client, <-chan Push) {
	t.Helper()
	f.on("Peek", func(c *fakeCall) {
		if req := c.req.(*pb.PeekRequest); req.FromSeq != math.MaxInt64 || len(req.SessionToken) != 32 {
			t.Errorf("bound by %v", req)
		}
		c.ok(new(pb.PeekResponse))
	})
	c := f.dial()
	c.SetSession(testSession(1))
	pushes := c.Subscribe(t.Context())
	wantResync(t, pushes)
	return c, pushes
}

func wantResync(t *testing.T, pushes <-chan Push) {
	t.Helper()
	if p := <-pushes; !p.NewMessage.GetResync() {
		t.Fatalf("got %v, want a resync", p)
	}
}

func TestPushes(t *testing.T) {
	f := newFake(t)
	_, pushes := subscribed(t, f)
	conn := f.newest(1)
	f.push(conn, newMessage(1))
	if p := <-pushes; p.Type != pb.PushType_NEW_MESSAGE || p.NewMessage.Seq != 1 || string(p.NewMessage.Payload) != "inline" {
		t.Errorf("got %v", p)
	}
	// What we don't know or can't read is left out, and the connection lives on.
	f.push(conn, rpc.AppendPush(nil, 1003, []byte("of the future")))
	f.push(conn, rpc.AppendPush(nil, uint16(pb.PushType_NEW_MESSAGE), []byte{0xff}))
	f.push(conn, newMessage(99)[:8])
	f.push(conn, append(newMessage(99), 0))
	f.push(conn, []byte{})
	f.push(conn, rpc.AppendPushHeader(nil, rpc.PushHeader{Type: 1000, Length: math.MaxUint32}))
	f.push(conn, newMessage(2))
	if p := <-pushes; p.NewMessage.Seq != 2 {
		t.Errorf("got %v", p)
	}
}

// More pushes than the server may have open at once: each stream is given back.
func TestManyPushes(t *testing.T) {
	f := newFake(t)
	_, pushes := subscribed(t, f)
	conn := f.newest(1)
	for i := range uint64(5 * maxPushStreams) {
		f.push(conn, newMessage(i+1))
		if p := <-pushes; p.NewMessage.Seq != i+1 {
			t.Fatalf("got %v, want push %d", p, i+1)
		}
	}
}

func TestSlowConsumerGetsOneResync(t *testing.T) {
	s := &subscription{ch: make(chan Push, pushBacklog+1)}
	offer := func(seq uint64) { s.offer(Push{NewMessage: &pb.PushNewMessage{Seq: seq}}) }
	take := func() *pb.PushNewMessage { return (<-s.ch).NewMessage }
	for i := range 10 * pushBacklog {
		offer(uint64(i))
	}
	for i := range pushBacklog {
		if got := take(); got.Seq != uint64(i) || got.Resync {
			t.Fatalf("push %d: %v", i, got)
		}
	}
	if got := take(); !got.Resync || len(s.ch) != 0 {
		t.Fatalf("behind the backlog: %v and %d more", got, len(s.ch))
	}
	// It starts again, also from a queue that is partly read.
	for i := range pushBacklog + 5 {
		offer(uint64(i))
	}
	take()
	take()
	offer(1000)
	for range pushBacklog - 2 {
		take()
	}
	if got := take(); !got.Resync {
		t.Fatalf("got %v, want the resync", got)
	}
	if got := take(); got.Seq != 1000 {
		t.Fatalf("got %v, want what came behind the resync", got)
	}
}

func TestSubscriptionReconnects(t *testing.T) {
	f := newFake(t)
	_, pushes := subscribed(t, f)
	for n := 1; n <= 3; n++ {
		f.newest(n).CloseWithError(rpc.CodeShutdown, "")
		wantResync(t, pushes)
		f.push(f.newest(n+1), newMessage(uint64(n)))
		if p := <-pushes; p.NewMessage.Seq != uint64(n) {
			t.Errorf("after reconnect %d: %v", n, p)
		}
	}
}

func TestSubscribeBeforeLogin(t *testing.T) {
	f := newFake(t)
	f.on("Peek", func(c *fakeCall) { c.ok(new(pb.PeekResponse)) })
	c := f.dial()
	pushes := c.Subscribe(t.Context())
	enroll := testSession(1)
	enroll.Scope = pb.SessionScope_ENROLL_ONLY
	c.SetSession(enroll)
	if f.count("Peek") != 0 {
		t.Error("bound without a device")
	}
	c.SetSession(testSession(1))
	wantResync(t, pushes)
}

// A session that has ended must not make the client ask for ever.
func TestSubscribeWithAnEndedSession(t *testing.T) {
	f := newFake(t)
	f.on("Peek", func(c *fakeCall) {
		c.refuse(pb.Status_Unauthorized, &pb.ErrorDetail{Reason: pb.Reason_TOKEN_INVALID})
	})
	c := f.dial()
	c.SetSession(testSession(1))
	c.Subscribe(t.Context())
	eventually(t, "binding is tried", func() bool { return f.count("Peek") == 1 })
	eventually(t, "and given up", func() bool {
		c.pushes.mu.Lock()
		defer c.pushes.mu.Unlock()
		return !c.pushes.attaching
	})
	if n := f.count("Peek"); n != 1 {
		t.Errorf("%d tries", n)
	}
}

func TestSubscriptionEndsWithItsContext(t *testing.T) {
	f := newFake(t)
	c, first := subscribed(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	second := c.Subscribe(ctx)
	wantResync(t, first)
	wantResync(t, second)
	cancel()
	if _, open := <-second; open {
		t.Error("a push after the context's end")
	}
	f.push(f.newest(1), newMessage(5))
	if p := <-first; p.NewMessage.Seq != 5 {
		t.Errorf("the other subscription got %v", p)
	}
	if _, open := <-c.Subscribe(ctx); open {
		t.Error("a subscription with an ended context")
	}
}

// FuzzReceived gives arbitrary bytes to what reads what others sent, by the
// selector: a push of the server, or the payload of a person.
func FuzzReceived(f *testing.F) {
	body, err := proto.Marshal(&pb.PushNewMessage{Seq: 1, Payload: []byte("x")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(0), uint16(1000), body)
	f.Add(uint8(0), uint16(1000), []byte{0xff})
	f.Add(uint8(0), uint16(1001), body)
	f.Add(uint8(0), uint16(1002), []byte{})
	f.Add(uint8(0), uint16(1003), body)
	f.Add(uint8(0), uint16(7), []byte{})
	alice, bob := newPerson(f, "alice"), newPerson(f, "bob")
	hybrid, err := seal.NewHybridKey([32]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := seal.Seal(
		seal.Sender{ServerName: fakeName, Username: alice.name, IdentityKey: public(alice.identity), Device: alice.device},
		&pb.KeySet{IdentityKey: public(bob.identity), DeviceKeys: [][]byte{public(bob.device)}, KemId: seal.KEMID, HybridKey: hybrid.Public()},
		seal.Draft{TimeMS: 1_800_000_000_000, Text: []byte("seed")},
	)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(1), uint16(0), sealed)
	f.Add(uint8(1), uint16(0), []byte{1})
	f.Fuzz(func(t *testing.T, selector uint8, typ uint16, body []byte) {
		if selector%2 == 1 {
			got, err := seal.Open(fakeName, public(bob.identity), []*seal.HybridKey{hybrid}, body)
			if err == nil && got.GetSender() != "alice" {
				t.Errorf("opened a payload that nobody sealed: %v", got)
			}
			return
		}
		p, ok := parsePush(rpc.PushHeader{Type: typ, Length: uint32(len(body))}, body)
		told := 0
		for _, has := range []bool{p.NewMessage != nil, p.Typing != nil, p.Presence != nil, p.Membership != nil} {
			if has {
				told++
			}
		}
		if ok && (p.Type != pb.PushType(typ) || told != 1) {
			t.Errorf("%v", p)
		}
	})
}
