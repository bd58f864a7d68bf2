package push

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

func TestPushesReachEachConnectionOfTheDevice(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, s *store) {
		first, second, other := newLink(10), newLink(10), newLink(10)
		h.Bind(device(1), token(1), first)
		h.Bind(device(1), token(2), second)
		h.Bind(device(2), token(3), other)
		if got := h.Devices(); got != 2 {
			t.Errorf("%d devices, want 2", got)
		}
		h.Publish([]Message{s.put(7, []byte("hello"))}, nil)
		synctest.Wait()
		want := &pb.PushNewMessage{Seq: 7, Size: 5, Payload: []byte("hello"), MessageId: append([]byte{7}, make([]byte, 15)...)}
		for i, l := range []*fakeLink{first, second} {
			got := l.taken()
			if len(got) != 1 || !proto.Equal(got[0], want) {
				t.Errorf("connection %d got %v, want %v", i, got, want)
			}
		}
		if got := other.taken(); len(got) != 0 {
			t.Errorf("another device got %v", got)
		}
	})
}

func TestLargePayloadsAreNotInline(t *testing.T) {
	for _, size := range []int{1, MaxInline, MaxInline + 1, 1 << 20} {
		withHub(t, func(t *testing.T, h *Hub, s *store) {
			l := newLink(1)
			h.Bind(device(1), token(1), l)
			payload := bytes.Repeat([]byte{9}, size)
			h.Publish([]Message{s.put(1, payload)}, nil)
			synctest.Wait()
			got := l.taken()
			if len(got) != 1 || got[0].GetSize() != uint32(size) {
				t.Fatalf("size %d: got %v", size, got)
			}
			if inline := len(got[0].GetPayload()) > 0; inline != (size <= MaxInline) {
				t.Errorf("size %d: inline is %v", size, inline)
			}
		})
	}
}

// TestControlItemsAreMembershipPushes has a control item pushed by itself, and as
// one of several.
func TestControlItemsAreMembershipPushes(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, s *store) {
		l := newLink(1)
		h.Bind(device(1), token(1), l)
		item := &pb.ControlItem{Kind: &pb.ControlItem_DeviceAdded{DeviceAdded: &pb.DeviceAdded{KeysetVersion: 3}}}
		encoded, err := proto.Marshal(item)
		if err != nil {
			t.Fatal(err)
		}
		m := s.put(7, encoded)
		m.Control = true
		h.Publish([]Message{m}, nil)
		synctest.Wait()
		want := &pb.PushMembership{Seq: 7, MessageId: m.ID[:], Item: item}
		if len(l.got) != 0 || len(l.told) != 1 || !proto.Equal(l.told[0], want) {
			t.Errorf("got %v and %v, want one %v", l.got, l.told, want)
		}
		h.Publish([]Message{s.put(8, []byte("hello"))}, nil) // finds no room
		synctest.Wait()
		h.Publish([]Message{s.put(9, []byte("hello")), m}, nil)
		synctest.Wait()
		l.read(10)
		synctest.Wait()
		if len(l.told) != 1 || len(l.got) != 2 || !l.got[0].GetResync() || !l.got[1].GetResync() {
			t.Errorf("a message that waited and two behind it were told as %v and %v, want a resync each", l.got, l.told[1:])
		}
	})
}

func TestReleasedPayloadIsNoNews(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, s *store) {
		l := newLink(10)
		h.Bind(device(1), token(1), l)
		h.Publish([]Message{{Device: device(1), ID: [16]byte{1}, Seq: 1, Size: 5}}, nil)
		synctest.Wait()
		h.Publish([]Message{s.put(2, []byte("x"))}, nil)
		synctest.Wait()
		got := l.taken()
		if len(got) != 1 || got[0].GetSeq() != 2 {
			t.Errorf("got %v, want only seq 2", got)
		}
	})
}

func TestUnreadablePayloadStillHints(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, s *store) {
		l := newLink(10)
		h.Bind(device(1), token(1), l)
		m := s.put(3, []byte("abc"))
		s.err = errors.New("disk")
		h.Publish([]Message{m}, nil)
		synctest.Wait()
		got := l.taken()
		if len(got) != 1 || got[0].GetSeq() != 3 || got[0].GetPayload() != nil {
			t.Errorf("got %v, want a hint without payload", got)
		}
	})
}

// TestFullClientGetsOneResync sends more than the client takes: the rest is one
// resync, sent as soon as there is room, and nothing blocks meanwhile.
func TestFullClientGetsOneResync(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, s *store) {
		full, healthy := newLink(2), newLink(100)
		h.Bind(device(1), token(1), full)
		h.Bind(device(1), token(2), healthy)
		defer full.close()
		for i := range byte(5) {
			h.Publish([]Message{s.put(i+1, []byte{i})}, nil)
			synctest.Wait()
		}
		if got := full.taken(); len(got) != 2 || got[0].GetResync() || got[1].GetResync() {
			t.Errorf("before: got %v, want seq 1 and 2", got)
		}
		if got := healthy.taken(); len(got) != 5 {
			t.Errorf("the other connection got %d pushes, want 5", len(got))
		}
		full.read(10)
		synctest.Wait()
		// One that waited for room, one for what came while it did.
		got := full.taken()
		if len(got) != 2 || !got[0].GetResync() || !got[1].GetResync() {
			t.Errorf("after: got %v, want two resyncs", got)
		}
		h.Publish([]Message{s.put(6, []byte("six"))}, nil)
		synctest.Wait()
		if got := full.taken(); len(got) != 1 || got[0].GetSeq() != 6 {
			t.Errorf("later: got %v, want seq 6", got)
		}
	})
}

// TestBurstCollapses gives many messages at once while the workers are kept
// from sending: what they did not get to becomes one resync, or is the last message.
func TestBurstCollapses(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, s *store) {
		l := newLink(1000)
		h.Bind(device(1), token(1), l)
		burst := make([]Message, 100)
		for i := range burst {
			burst[i] = s.put(byte(i), []byte("x"))
		}
		l.mu.Lock() // a worker that has something to send waits
		h.Publish(burst[:1], nil)
		h.Publish(burst[1:50], nil)
		h.Publish(burst[50:], nil)
		l.mu.Unlock()
		synctest.Wait()
		got := l.taken()
		resync := func(m *pb.PushNewMessage) bool { return m.GetResync() }
		if n := len(got); n > 2 || !slices.ContainsFunc(got, resync) || !resync(got[n-1]) && got[n-1].GetSeq() != 99 {
			t.Errorf("got %v, want one or two pushes with a resync, ending in it or in the last message", got)
		}
	})
}

func TestEndOfConnectionWhileBlocked(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, s *store) {
		l := newLink(0)
		b := h.Bind(device(1), token(1), l)
		h.Publish([]Message{s.put(1, []byte("x"))}, nil)
		synctest.Wait()
		l.close()
		b.Release()
		synctest.Wait()
		h.Publish([]Message{s.put(2, []byte("x"))}, nil)
		synctest.Wait()
		if got := l.taken(); len(got) != 0 {
			t.Errorf("got %v", got)
		}
		if h.Devices() != 0 {
			t.Error("the device is still bound")
		}
	})
}

func TestSessionEndClosesItsConnectionsOnly(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, _ *store) {
		ended, moved, other := newLink(1), newLink(1), newLink(1)
		h.Bind(device(1), token(1), ended)
		b := h.Bind(device(1), token(1), moved)
		b.Use(token(2)) // logged in again on the same connection
		h.Bind(device(2), token(3), other)
		h.Publish(nil, [][32]byte{token(1), token(9)})
		if ended.endings() != 1 || moved.endings() != 0 || other.endings() != 0 {
			t.Errorf("ended %d, moved %d, other %d; want 1, 0, 0", ended.endings(), moved.endings(), other.endings())
		}
		h.Publish(nil, [][32]byte{token(2)})
		if moved.endings() != 1 {
			t.Error("the end of the newer session did not close the connection")
		}
		b.Release()
		b.Use(token(3)) // after the release it must not come back
		h.Publish(nil, [][32]byte{token(3)})
		if moved.endings() != 1 || other.endings() != 1 {
			t.Errorf("after release: moved %d, other %d; want 1, 1", moved.endings(), other.endings())
		}
	})
}

// TestLowOnKeyPackages: a push of its own tells it, and only the device; one that
// meets a full client comes with the resync.
func TestLowOnKeyPackages(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, s *store) {
		mine, other := newLink(1), newLink(8)
		defer h.Bind(device(1), token(1), mine).Release()
		defer h.Bind(device(2), token(2), other).Release()
		h.LowOnKeyPackages([][32]byte{device(1), device(3)})
		synctest.Wait()
		got := mine.taken()
		if len(got) != 1 || !got[0].GetKeyPackagesLow() || got[0].GetResync() || got[0].GetSeq() != 0 {
			t.Errorf("pushed %v", got)
		}
		h.LowOnKeyPackages([][32]byte{device(1)})
		synctest.Wait()
		mine.read(4)
		synctest.Wait()
		if got := mine.taken(); len(got) != 1 || !got[0].GetKeyPackagesLow() || !got[0].GetResync() {
			t.Errorf("pushed %v", got)
		}
		h.Publish([]Message{s.put(1, []byte("x"))}, nil)
		synctest.Wait()
		if got := mine.taken(); len(got) != 1 || got[0].GetKeyPackagesLow() || got[0].GetSeq() != 1 {
			t.Errorf("pushed %v", got)
		}
		if got := other.taken(); len(got) != 0 {
			t.Errorf("another device was told: %v", got)
		}
	})
}
