package push

import (
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

var errGone = errors.New("connection gone")

// fakeLink is a client: it takes so many pushes, then its limit is reached.
type fakeLink struct {
	mu    sync.Mutex
	room  int
	freed sync.Cond
	gone  bool
	got   []*pb.PushNewMessage
	told  []*pb.PushMembership
	typed []*pb.PushTyping
	ended int
}

func newLink(room int) *fakeLink {
	l := &fakeLink{room: room}
	l.freed.L = &l.mu
	return l
}

func (l *fakeLink) TryPush(t pb.PushType, m proto.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.gone:
		return errGone
	case l.room == 0:
		return ErrFull
	}
	l.room--
	l.note(t, m)
	return nil
}

func (l *fakeLink) Push(t pb.PushType, m proto.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.room == 0 && !l.gone {
		l.freed.Wait()
	}
	if l.gone {
		return errGone
	}
	l.room--
	l.note(t, m)
	return nil
}

// note keeps a push under its type; another message under that type is none.
func (l *fakeLink) note(t pb.PushType, m proto.Message) {
	switch m := m.(type) {
	case *pb.PushNewMessage:
		if t == pb.PushType_NEW_MESSAGE {
			l.got = append(l.got, m)
		}
	case *pb.PushMembership:
		if t == pb.PushType_MEMBERSHIP {
			l.told = append(l.told, m)
		}
	case *pb.PushTyping:
		if t == pb.PushType_TYPING {
			l.typed = append(l.typed, m)
		}
	}
}

func (l *fakeLink) SessionEnded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended++
}

// read lets the client take n more pushes.
func (l *fakeLink) read(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.room += n
	l.freed.Broadcast()
}

func (l *fakeLink) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	l.freed.Broadcast()
}

func (l *fakeLink) taken() []*pb.PushNewMessage {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.got
	l.got = nil
	return got
}

func (l *fakeLink) endings() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// store holds payloads by message id.
type store struct {
	mu   sync.Mutex
	data map[[16]byte][]byte
	err  error
}

func (s *store) payload(_, id [16]byte) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, found := s.data[id]
	return data, found, s.err
}

func (s *store) put(id byte, data []byte) Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data == nil {
		s.data = make(map[[16]byte][]byte)
	}
	s.data[[16]byte{id}] = data
	return Message{Device: device(1), ID: [16]byte{id}, Seq: uint64(id), Size: uint32(len(data))}
}

func device(n byte) [32]byte { return [32]byte{n} }
func token(n byte) [32]byte  { return [32]byte{0xff, n} }

// withHub runs a test in a bubble, where synctest.Wait waits for the workers.
func withHub(t *testing.T, test func(t *testing.T, h *Hub, s *store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := new(store)
		h := NewHub(Options{Payload: s.payload, Logger: slog.New(slog.DiscardHandler)})
		defer h.Close()
		test(t, h, s)
	})
}
