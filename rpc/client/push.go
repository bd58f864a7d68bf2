package client

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// Push is a hint from the server. The queue is the truth: a client that missed
// a push loses nothing but time.
type Push struct {
	Type pb.PushType
	// NewMessage is set for type NEW_MESSAGE. With Resync set, pushes were lost
	// (the consumer was slow, or the connection was down): fetch.
	NewMessage *pb.PushNewMessage
	// Membership is set for type MEMBERSHIP: a control item, which the queue holds
	// when Seq is set, or news of a channel's members.
	Membership *pb.PushMembership
	// Typing is set for type TYPING: an EPHEMERAL message of a channel's member.
	Typing *pb.PushTyping
	// Presence is set for type PRESENCE: somebody came or went.
	Presence *pb.PushPresence
}

func resync() Push {
	return Push{Type: pb.PushType_NEW_MESSAGE, NewMessage: &pb.PushNewMessage{Resync: true}}
}

const (
	// pushBacklog is how many pushes wait for a slow consumer; further ones
	// collapse into one resync. An inline payload has at most 16 KiB.
	pushBacklog = 64
	// pushTimeout is how long one push may take to arrive once its stream began.
	pushTimeout = 5 * time.Second
)

// Subscribe returns a channel of the pushes for the session's device. It is
// closed when ctx or the Client ends. The first push is a resync: it says that
// the server now knows whose connection this is. While there is a subscription
// the client reconnects by itself; each time the channel gets another resync.
// Consumers that fall behind get a resync in place of what did not fit. Pushes of
// types that this version does not know are left out.
func (c *Client) Subscribe(ctx context.Context) <-chan Push {
	s := &subscription{ch: make(chan Push, pushBacklog+1)}
	if c.ctx.Err() != nil || ctx.Err() != nil || !c.pushes.add(s) {
		close(s.ch)
		return s.ch
	}
	context.AfterFunc(ctx, func() { c.pushes.remove(s) })
	c.attach()
	return s.ch
}

// readPushes takes the server's streams of one connection until it ends, also
// without a subscriber: unread streams would use up the server's limit.
func (c *Client) readPushes(conn *quic.Conn) {
	buf := make([]byte, 0, 2<<10)
	for {
		stream, err := conn.AcceptUniStream(c.ctx)
		if err != nil {
			break
		}
		_ = stream.SetReadDeadline(time.Now().Add(pushTimeout)) // never fails on an open stream
		h, frame, err := rpc.ReadPush(stream, buf, rpc.MaxPush)
		if err != nil {
			stream.CancelRead(rpc.CodeProtocol)
			continue
		}
		if p, ok := parsePush(h, frame[rpc.PushHeaderSize:]); ok {
			c.pushes.deliver(p)
		}
		if cap(frame) <= maxPooled {
			buf = frame
		}
	}
	if c.ctx.Err() == nil && c.pushes.any() {
		c.attach()
	}
}

// parsePush is false for types that this version does not know and for bodies
// that are not what their type says.
func parsePush(h rpc.PushHeader, body []byte) (Push, bool) {
	p := Push{Type: pb.PushType(h.Type)}
	var m proto.Message
	switch p.Type {
	case pb.PushType_NEW_MESSAGE:
		p.NewMessage = new(pb.PushNewMessage)
		m = p.NewMessage
	case pb.PushType_MEMBERSHIP:
		p.Membership = new(pb.PushMembership)
		m = p.Membership
	case pb.PushType_TYPING:
		p.Typing = new(pb.PushTyping)
		m = p.Typing
	case pb.PushType_PRESENCE:
		p.Presence = new(pb.PushPresence)
		m = p.Presence
	default:
		return Push{}, false
	}
	if rpc.Unmarshal(body, m) != nil {
		return Push{}, false
	}
	return p, true
}

// attach sees to it that there is a connection and that the server knows whose
// it is. One runs at a time; a call while one runs makes it go round once more.
func (c *Client) attach() {
	c.dialMu.Lock()
	defer c.dialMu.Unlock()
	if c.closed || !c.pushes.startAttach() {
		return
	}
	c.wg.Go(func() {
		for n := 1; c.ctx.Err() == nil && c.pushes.any(); {
			if c.bind() {
				if !c.pushes.endAttach() {
					return
				}
				n = 1
				continue
			}
			if backOff(c.ctx, c.ctx, n, nil) != nil {
				break
			}
			n++
		}
		c.pushes.stopAttach()
	})
}

// bind makes a call with the session's token, which binds the connection to its
// device: a Peek behind the queue's end reads nothing. It is false when it should
// be tried again.
func (c *Client) bind() bool {
	s := c.session.Load()
	if s == nil || s.Scope != pb.SessionScope_DEVICE {
		return true // Login attaches again
	}
	err := c.Call(c.ctx, &pb.PeekRequest{FromSeq: math.MaxInt64, MaxItems: 1}, new(pb.PeekResponse))
	if err != nil {
		c.cfg.Logger.DebugContext(c.ctx, "binding the connection for pushes failed", "cause", err)
		// A refusal (the session ended) stays; the caller learns it from its calls.
		return ReasonOf(err) != pb.Reason_REASON_UNSPECIFIED
	}
	c.pushes.deliver(resync())
	return true
}

// subscription is one consumer.
type subscription struct {
	ch   chan Push // one slot more than pushBacklog: for the resync
	lost bool      // a resync stands at the end of ch, pushes behind it are dropped
}

// subscribers is the set of consumers. All sends and closes happen under mu, so
// that len(ch) can only shrink meanwhile.
type subscribers struct {
	mu        sync.Mutex
	set       map[*subscription]struct{}
	closed    bool
	attaching bool
	again     bool
}

func (s *subscribers) add(sub *subscription) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.set == nil {
		s.set = make(map[*subscription]struct{})
	}
	s.set[sub] = struct{}{}
	return true
}

func (s *subscribers) remove(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.set[sub]; ok {
		delete(s.set, sub)
		close(sub.ch)
	}
}

func (s *subscribers) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.set) > 0
}

func (s *subscribers) deliver(p Push) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.set {
		sub.offer(p)
	}
}

func (sub *subscription) offer(p Push) {
	switch full := len(sub.ch) >= pushBacklog; {
	case !full:
		sub.lost = false
		sub.ch <- p
	case !sub.lost:
		sub.lost = true
		sub.ch <- resync()
	}
}

func (s *subscribers) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for sub := range s.set {
		close(sub.ch)
	}
	s.set = nil
}

// startAttach is true for the one that shall run.
func (s *subscribers) startAttach() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attaching {
		s.again = true
		return false
	}
	s.attaching = true
	return true
}

// endAttach is true when somebody asked meanwhile and it must go round again.
func (s *subscribers) endAttach() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attaching = s.again
	s.again = false
	return s.attaching
}

func (s *subscribers) stopAttach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attaching, s.again = false, false
}
