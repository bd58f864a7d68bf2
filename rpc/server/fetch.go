package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/push"
)

// fetch serves method 201: from the view when nothing changes by it, else by a
// command. Payloads are read after the commit.
func (c *call) fetch(ctx context.Context, req *pb.FetchRequest) (*pb.FetchResponse, error) {
	resp, read, err := commands.ReadFetch(c.view, req)
	if !read && err == nil {
		resp, err = decided[*pb.FetchResponse](ctx, c, func() (*commands.Command, error) {
			return commands.NewFetch(c.method.Rule, req)
		})
	}
	if err != nil {
		return nil, err
	}
	resp.Envelopes, err = c.fill(resp.GetEnvelopes(), !read)
	return resp, err
}

// peek serves method 203.
func (c *call) peek(_ context.Context, req *pb.PeekRequest) (*pb.PeekResponse, error) {
	resp, err := commands.Peek(c.view, req)
	if err != nil {
		return nil, err
	}
	resp.Envelopes, err = c.fill(resp.GetEnvelopes(), false)
	return resp, err
}

// pages hold the payloads of answers until they are encoded: a page has 100 KiB
// and more.
var pages = sync.Pool{New: func() any { return new([]byte) }}

// fill adds the payloads and what a report of a message needs; envelopes whose
// payload was released are left out. They refer to memory that serves other calls
// after finish. decided tells that a command handed them out, after the call's view
// was taken.
func (c *call) fill(envelopes []*pb.Envelope, decided bool) ([]*pb.Envelope, error) {
	if len(envelopes) == 0 {
		return nil, nil
	}
	if c.page == nil {
		c.page = pages.Get().(*[]byte)
	}
	filled, room, err := commands.FillPayloads(c.service.engine.Payloads, c.caller.Account, envelopes, (*c.page)[:0])
	*c.page = room
	if err != nil {
		return nil, err
	}
	return filled, c.frank(filled, decided)
}

// decided runs a command and gives its response its type back.
func decided[Resp proto.Message](ctx context.Context, c *call, newCommand func() (*commands.Command, error)) (none Resp, err error) {
	command, err := newCommand()
	if err != nil {
		return none, err
	}
	resp, err := c.service.engine.Do(ctx, command)
	if err != nil {
		return none, err
	}
	return resp.(Resp), nil
}

// errDetached tells that a goroutine of its own answers the call, by running
// call.later: a worker does not wait. It starts once the worker has let go of the
// call, whose view both use.
var errDetached = errors.New("the call is answered later")

// fetchWait serves method 202. The waiter is registered before the queue is
// read, so that nothing falls between the two.
func (c *call) fetchWait(ctx context.Context, req *pb.FetchWaitRequest) (*pb.FetchWaitResponse, error) {
	w, err := c.service.hub.Wait(c.caller.Account, c.caller.DeviceKey)
	if err != nil {
		return nil, waitRefusal(err)
	}
	// The view of the call was taken before: what was published since then, nobody
	// tells this waiter.
	var resp *pb.FetchWaitResponse
	if err = c.refreshView(); err == nil {
		resp, err = c.readQueue(ctx, req)
	}
	limit := min(time.Duration(req.GetTimeoutMs())*time.Millisecond, commands.MaxFetchWait)
	if err != nil || !isEmpty(resp) || limit == 0 {
		w.Release()
		return resp, err
	}
	c.request.recognised()
	c.request.waits()
	c.later = func() { c.await(w, req, limit) }
	return nil, errDetached
}

// readQueue is one read of the queue, as fetch does it.
func (c *call) readQueue(ctx context.Context, req *pb.FetchWaitRequest) (*pb.FetchWaitResponse, error) {
	resp, read, err := commands.ReadFetchWait(c.view, req)
	if !read && err == nil {
		resp, err = decided[*pb.FetchWaitResponse](ctx, c, func() (*commands.Command, error) {
			return commands.NewFetchWait(c.method.Rule, req)
		})
	}
	if err != nil {
		return nil, err
	}
	resp.Envelopes, err = c.fill(resp.GetEnvelopes(), !read)
	return resp, err
}

func isEmpty(resp *pb.FetchWaitResponse) bool {
	return len(resp.GetEnvelopes()) == 0 && resp.GetGap() == nil && !resp.GetMore()
}

// await answers a waiting call. It ends the call in every case.
func (c *call) await(w *push.Waiter, req *pb.FetchWaitRequest, limit time.Duration) {
	defer c.finish()
	defer w.Release()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case <-w.Grown():
			resp, err := c.wake(req)
			if err != nil {
				c.answer(nil, err)
				return
			}
			if !isEmpty(resp) {
				c.answer(resp, nil)
				return
			}
		case s := <-w.Ended():
			if s == push.Stopped {
				c.answer(nil, errStopping)
			} else {
				c.answer(&pb.FetchWaitResponse{Superseded: true}, nil)
			}
			return
		case <-timer.C:
			c.answer(&pb.FetchWaitResponse{}, nil)
			return
		case <-c.request.stream.Context().Done():
			// Nobody waits any more: what would be drained stays.
			c.server.metrics.count(c.method, pb.Status_DeadlineExceeded)
			return
		}
	}
}

// wake reads the queue again, as whoever the session belongs to now.
func (c *call) wake(req *pb.FetchWaitRequest) (*pb.FetchWaitResponse, error) {
	if err := c.refreshView(); err != nil {
		return nil, err
	}
	defer c.closeView()
	return c.readQueue(c.server.requestContext(), req)
}

// waitRefusal translates the hub's errors.
func waitRefusal(err error) error {
	switch {
	case errors.Is(err, push.ErrTooManyWaits):
		return &commands.Refusal{
			Status: pb.Status_RateLimited, Reason: pb.Reason_RATE, Limit: push.MaxWaits,
			Message: "the account has too many waiting calls", RetryAfterMS: uint64(commands.MaxFetchWait.Milliseconds()),
		}
	case errors.Is(err, push.ErrClosed):
		return errStopping
	}
	return err
}
