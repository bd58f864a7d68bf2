package server_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/push"
)

// nextPush reads one push.
func (c *conn) nextPush() *pb.PushNewMessage {
	c.t.Helper()
	stream, err := c.AcceptUniStream(testContext(c.t))
	if err != nil {
		c.t.Fatalf("no push: %v", err)
	}
	b, err := io.ReadAll(stream)
	if err != nil {
		c.t.Fatal(err)
	}
	h, body, err := rpc.ParsePush(b, rpc.MaxPush)
	if err != nil || h.Type != uint16(pb.PushType_NEW_MESSAGE) {
		c.t.Fatalf("push frame %v: %v", h, err)
	}
	m := new(pb.PushNewMessage)
	if err := proto.Unmarshal(body, m); err != nil {
		c.t.Fatal(err)
	}
	return m
}

func TestPushes(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	must[*pb.PeekResponse](b, &pb.PeekRequest{SessionToken: bob.token}) // binds
	for i, size := range []int{1, push.MaxInline, push.MaxInline + 1} {
		payload := bytes.Repeat([]byte{'x'}, size)
		sent := must[*pb.EnqueueResponse](a, alice.enqueue(bob, payload))
		got := b.nextPush()
		if got.GetSeq() != uint64(i+1) || int(got.GetSize()) != size || !bytes.Equal(got.GetMessageId(), sent.GetMessageId()) || got.GetResync() {
			t.Errorf("size %d: got seq %d, size %d", size, got.GetSeq(), got.GetSize())
		}
		if inline := bytes.Equal(got.GetPayload(), payload); inline != (size <= push.MaxInline) {
			t.Errorf("size %d: inline is %v", size, inline)
		}
	}
}

// TestUnreadPushesBlockNobody has a client that takes two pushes at a time and
// reads none: everybody else goes on, and it gets a resync in the end.
func TestUnreadPushesBlockNobody(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, _ := w.join("bob")
	lazy := w.dialWith(&quic.Config{MaxIncomingUniStreams: 2})
	must[*pb.PeekResponse](lazy, &pb.PeekRequest{SessionToken: bob.token})
	const messages = 50
	for range messages {
		must[*pb.EnqueueResponse](a, alice.enqueue(bob, []byte("hint")))
	}
	seen := make(map[uint64]bool)
	for {
		m := lazy.nextPush()
		if m.GetResync() {
			break
		}
		if seen[m.GetSeq()] {
			t.Errorf("seq %d twice", m.GetSeq())
		}
		seen[m.GetSeq()] = true
	}
	page := must[*pb.FetchResponse](lazy, &pb.FetchRequest{SessionToken: bob.token})
	if len(page.GetEnvelopes()) != messages {
		t.Errorf("the queue holds %d messages, want %d", len(page.GetEnvelopes()), messages)
	}
}

// TestStrangersGetNoPushes: only a bound connection hears of a device's queue.
func TestStrangersGetNoPushes(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, b := w.join("bob") // logged in here, but no request with the token yet
	enroll := bob.login(b, keyOf("another")).GetSessionToken()
	b.refused(&pb.PeekRequest{SessionToken: enroll}, pb.Status_Forbidden, pb.Reason_SCOPE)
	must[*pb.PeekResponse](a, &pb.PeekRequest{SessionToken: alice.token})
	must[*pb.EnqueueResponse](a, alice.enqueue(bob, []byte("first")))
	// Pushes follow the replies, in the order of the messages: behind this one the
	// first has been told, to nobody.
	must[*pb.EnqueueResponse](a, alice.enqueue(alice, []byte("a mark")))
	a.nextPush()
	must[*pb.PeekResponse](b, &pb.PeekRequest{SessionToken: bob.token})
	must[*pb.EnqueueResponse](a, alice.enqueue(bob, []byte("second")))
	if got := b.nextPush(); got.GetSeq() != 2 {
		t.Errorf("the first push is of seq %d, want 2", got.GetSeq())
	}
}
