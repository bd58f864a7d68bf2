package push

import (
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

func typing(n byte) *pb.PushTyping { return &pb.PushTyping{Payload: []byte{n}} }

func TestWordsReachTheNamedDevices(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, _ *store) {
		first, second, other := newLink(10), newLink(10), newLink(10)
		h.Bind(device(1), token(1), first)
		h.Bind(device(2), token(2), second)
		h.Bind(device(3), token(3), other)
		member := &pb.PushMembership{Item: &pb.ControlItem{Kind: &pb.ControlItem_MemberAdded{MemberAdded: &pb.MemberAdded{ChannelId: []byte("c")}}}}
		devices := [][32]byte{device(1), device(2), device(4)}
		h.Tell(devices, pb.PushType_TYPING, typing(1))
		h.Tell(devices, pb.PushType_TYPING, typing(2))
		h.Tell(devices, pb.PushType_MEMBERSHIP, member)
		synctest.Wait()
		for i, l := range []*fakeLink{first, second} {
			if len(l.typed) != 2 || !proto.Equal(l.typed[0], typing(1)) || !proto.Equal(l.typed[1], typing(2)) {
				t.Errorf("device %d got %v", i+1, l.typed)
			}
			if len(l.told) != 1 || !proto.Equal(l.told[0], member) || len(l.got) != 0 {
				t.Errorf("device %d was told %v and %v", i+1, l.told, l.got)
			}
		}
		if len(other.typed)+len(other.told) != 0 {
			t.Errorf("another device got %v and %v", other.typed, other.told)
		}
	})
}

// TestWordsWithoutRoom has a client that takes no more: typing is lost, a
// membership is told by a resync, and messages still are.
func TestWordsWithoutRoom(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, s *store) {
		l := newLink(0)
		h.Bind(device(1), token(1), l)
		to := [][32]byte{device(1)}
		h.Tell(to, pb.PushType_TYPING, typing(1))
		synctest.Wait()
		l.read(10)
		synctest.Wait()
		if len(l.typed)+len(l.got) != 0 {
			t.Errorf("a word that had no room came later: %v, %v", l.typed, l.got)
		}
		l.read(-10)
		h.Tell(to, pb.PushType_MEMBERSHIP, &pb.PushMembership{})
		synctest.Wait()
		l.read(10)
		synctest.Wait()
		if got := l.taken(); len(l.told) != 0 || len(got) != 1 || !got[0].GetResync() {
			t.Errorf("a membership without room became %v and %v, want a resync", l.told, got)
		}
		h.Publish([]Message{s.put(7, []byte("hello"))}, nil)
		h.Tell(to, pb.PushType_TYPING, typing(2))
		synctest.Wait()
		if len(l.typed) != 1 || len(l.taken()) != 1 {
			t.Errorf("with room again: %v", l.typed)
		}
	})
}

// TestWordsAreBounded has a client that reads nothing for long.
func TestWordsAreBounded(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, _ *store) {
		b := h.Bind(device(1), token(1), newLink(0))
		b.mu.Lock()
		b.queued = true // as if a worker were busy with it
		b.mu.Unlock()
		for n := range byte(100) {
			h.Tell([][32]byte{device(1)}, pb.PushType_TYPING, typing(n))
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.words) != maxWords || b.news != 0 {
			t.Errorf("%d words wait, %d messages", len(b.words), b.news)
		}
	})
}
