package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/push"
)

// connection is one client's QUIC connection. It begins as a stranger's; the
// first token of a device session binds it to that account and device for the
// rest of its life.
type connection struct {
	server    *server
	quic      *quic.Conn
	admission *admission
	// bound is nil while the connection has no device session.
	bound atomic.Pointer[boundSession]
	// used is when the last request began, in nanoseconds since server.started.
	used atomic.Int64
	// calls is how many have come and are not answered, without those that wait.
	calls atomic.Int64
	id    uint64 // unique in this process

	mu      sync.Mutex // binding and its end
	binding *push.Binding
	closed  bool
	// left is called when a bound connection ends.
	left func()
}

// boundSession is the session that a bound connection used last.
type boundSession struct {
	caller  commands.Caller
	checked time.Duration // since server.started
}

// request is one stream on its way through the pool.
type request struct {
	connection *connection
	stream     *quic.Stream
	stranger   bool // holds a token of the neighbours' requests
	waiting    bool // does not count in connection.calls any more
}

// waits takes the request out of those whose answer is to be expected soon.
func (r *request) waits() {
	if !r.waiting {
		r.waiting = true
		r.connection.calls.Add(-1)
	}
}

// recognised gives the token back early: the request turned out to be that of a
// session, and waits.
func (r *request) recognised() {
	if r.stranger {
		r.stranger = false
		<-r.connection.admission.neighbours.requests
	}
}

// serve accepts streams until the connection ends.
func (c *connection) serve(ctx context.Context) {
	defer c.release()
	for {
		stream, err := c.quic.AcceptStream(ctx)
		if err != nil {
			return
		}
		r := request{connection: c, stream: stream}
		c.calls.Add(1)
		if slots := c.admission.neighbours.requests; slots != nil && !c.admission.recognised.Load() {
			select {
			case slots <- struct{}{}:
				r.stranger = true
			case <-c.quic.Context().Done():
				r.waits()
				return
			}
		}
		c.server.pool.run(r)
	}
}

// done gives back what a stream held.
func (r *request) done() {
	r.stream.ReleaseStreamCredit()
	r.recognised()
	r.waits()
}

// bind makes the caller's device session the connection's. It refuses a token
// of another device. fresh tells that the hub learned of the session just now.
func (c *connection) bind(caller commands.Caller, s *service) (fresh bool, err error) {
	now := c.server.elapsed()
	if b := c.bound.Load(); b != nil && b.caller.Session == caller.Session {
		c.bound.Store(&boundSession{caller: caller, checked: now})
		return false, nil
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		// Whoever goes on with another session needs another connection, at once.
		c.quic.CloseWithError(rpc.CodeSessionEnded, sessionEnded)
		return false, commands.Refuse(pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID, sessionEnded)
	}
	defer c.mu.Unlock()
	if err := c.checkBound(caller); err != nil {
		return false, err
	}
	if c.binding == nil {
		c.binding = s.hub.Bind(caller.DeviceKey, caller.Session, c)
		c.left = s.teller.arrived(caller.Account)
		c.admission.recognise()
	} else {
		c.binding.Use(caller.Session)
	}
	c.bound.Store(&boundSession{caller: caller, checked: now})
	return true, nil
}

// checkBound refuses a caller that is not the one the connection is bound to.
func (c *connection) checkBound(caller commands.Caller) error {
	b := c.bound.Load()
	if b == nil || (b.caller.Account == caller.Account &&
		(caller.Scope != pb.SessionScope_DEVICE || b.caller.DeviceKey == caller.DeviceKey)) {
		return nil
	}
	return commands.Refuse(pb.Status_Forbidden, pb.Reason_CONNECTION_BOUND,
		"this connection belongs to another device: open one for each device")
}

// release forgets the connection when it has ended.
func (c *connection) release() {
	c.mu.Lock()
	binding, left := c.binding, c.left
	c.binding, c.closed = nil, true
	c.mu.Unlock()
	if binding != nil {
		binding.Release()
		left()
	}
	c.server.forget(c)
}

// sessionEnded is what a client is told with code 3.
const sessionEnded = "the session has ended"

// SessionEnded closes the connection: its session is over. The answer of the call
// that ended it may still be made, with a proof that waits for the disk, so the close
// waits for what was asked before, and no call gets a session any more. It is called
// by the hub and does not block.
func (c *connection) SessionEnded() {
	c.bound.Store(nil)
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.endQuiet(c.calls.Load() == 0, endLooks)
}

// endLooks bounds how often a connection whose session has ended is looked at.
const endLooks = 100

// endQuiet closes the connection answersLinger after all calls were answered, but
// after so many looks in any case. quiet tells that they were at the last one.
func (c *connection) endQuiet(quiet bool, looks int) {
	time.AfterFunc(answersLinger, func() {
		now := c.calls.Load() == 0
		if quiet && now || looks == 0 || c.quic.Context().Err() != nil {
			c.quic.CloseWithError(rpc.CodeSessionEnded, sessionEnded)
			return
		}
		c.endQuiet(now, looks-1)
	})
}

// TryPush sends one push if the client's limits allow it at once.
func (c *connection) TryPush(t pb.PushType, m proto.Message) error {
	frame, err := rpc.AppendPushMessage(nil, uint16(t), m)
	if err != nil {
		return err
	}
	stream, err := c.quic.OpenUniStream()
	if err != nil {
		return pushError(err)
	}
	if err := stream.TryWriteAll(frame); err != nil {
		stream.CancelWrite(rpc.CodeLimit)
		return pushError(err)
	}
	return stream.Close()
}

// Push sends one push and waits until the client's limits allow it.
func (c *connection) Push(t pb.PushType, m proto.Message) error {
	frame, err := rpc.AppendPushMessage(nil, uint16(t), m)
	if err != nil {
		return err
	}
	stream, err := c.quic.OpenUniStreamSync(c.quic.Context())
	if err != nil {
		return err
	}
	if _, err := stream.Write(frame); err != nil {
		return err
	}
	return stream.Close()
}

// pushError tells the client's limits from the end of the connection.
func pushError(err error) error {
	var limit *quic.StreamLimitReachedError
	if errors.As(err, &limit) || errors.Is(err, quic.ErrWouldBlock) {
		return push.ErrFull
	}
	return err
}
