package commands

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// call is one command on its way from Do through the writer and back. Calls are
// pooled together with their reply channel, per engine: a channel made inside a
// testing/synctest bubble must not leave it.
type call struct {
	pool *sync.Pool
	Command
	size  int
	state atomic.Uint32
	resp  proto.Message
	err   error
	done  chan struct{} // one token: the reply is set
}

// States of a call. The caller may give up only before the writer begins; from
// then on the outcome is not the caller's to choose.
const (
	callWaiting   = iota
	callTaken     // the writer decides it
	callAbandoned // the caller's deadline passed first: it is never decided
)

// callOverhead is what a waiting call costs beside its request, in bytes.
const callOverhead = 512

func newCallPool() *sync.Pool {
	pool := new(sync.Pool)
	pool.New = func() any { return &call{pool: pool, done: make(chan struct{}, 1)} }
	return pool
}

func (e *Engine) newCall(c *Command) *call {
	p := e.calls.Get().(*call)
	p.Command = *c
	p.size = c.Size + callOverhead
	p.state.Store(callWaiting)
	return p
}

// recycle is for a call that nobody else refers to any more.
func (c *call) recycle() {
	c.Command = Command{}
	c.resp, c.err = nil, nil
	c.pool.Put(c)
}

// begin claims the call for the writer; false when the caller gave up.
func (c *call) begin() bool { return c.state.CompareAndSwap(callWaiting, callTaken) }

// fail wakes the caller with an error, whatever was decided.
func (c *call) fail(err error) {
	c.resp, c.err = nil, err
	c.done <- struct{}{}
}

// release wakes the caller with the outcome that the writer set.
func (c *call) release() { c.done <- struct{}{} }

// wait returns the outcome of a queued call, or the truth about its absence.
func (c *call) wait(ctx context.Context) (proto.Message, error) {
	select {
	case <-c.done:
		resp, err := c.resp, c.err
		c.recycle()
		return resp, err
	case <-ctx.Done():
	}
	if c.state.CompareAndSwap(callWaiting, callAbandoned) {
		return nil, deadline(ctx, "the server did not get to the request in time: it was not executed")
	}
	select { // the reply may have come meanwhile
	case <-c.done:
		resp, err := c.resp, c.err
		c.recycle()
		return resp, err
	default:
		return nil, deadline(ctx, "the request timed out: its outcome is unknown")
	}
}

// deadline is the refusal for a context that ended; it keeps the context's
// error in its chain.
func deadline(ctx context.Context, text string) error {
	return errors.Join(&Refusal{Status: pb.Status_DeadlineExceeded, Reason: pb.Reason_DEADLINE, Message: text}, context.Cause(ctx))
}
