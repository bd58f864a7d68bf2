package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// Call performs the method whose request message req is and fills resp with its
// reply. The session token and, where the method has one, a request_id are added
// on the wire; values that req carries itself take precedence. req is not
// changed and may be used by several calls at once.
//
// Errors: *StatusError for a refusal, *OutcomeError when a call with an effect
// got no answer, *ConnectError, *ServerNameError, *rpc.FrameError for a request
// over the method's limit, ErrProtocol, ErrClosed, or ctx's.
func (c *Client) Call(ctx context.Context, req, resp proto.Message) error {
	m, ok := rpc.MethodOf(req)
	if !ok {
		return fmt.Errorf("client: %T is not the request of a method", req)
	}
	if resp.ProtoReflect().Descriptor() != m.Output.Descriptor() {
		return fmt.Errorf("client: %T is not the response of %s", resp, m.Name)
	}
	return c.call(ctx, m, req, resp)
}

// call sends the request until there is an answer that stays.
func (c *Client) call(ctx context.Context, m *rpc.Method, req, resp proto.Message) error {
	buf := getBuffer()
	defer putBuffer(buf)
	a := attempts{method: m, req: req}
	if err := c.buildFrame(buf, &a); err != nil {
		return err
	}
	timeout := c.timeoutOf(req)
	for n := 1; ; n++ {
		sent := false
		conn, err := c.connection(ctx)
		if err == nil {
			sent, err = c.exchange(ctx, conn, m, *buf, timeout, resp)
		}
		if err == nil {
			return nil
		}
		switch a.judge(ctx, err, sent) {
		case giveUp:
			return a.fail(err)
		case stampAnew:
			if err := c.buildFrame(buf, &a); err != nil {
				return err
			}
			continue
		}
		if n >= c.cfg.Attempts {
			return a.fail(err)
		}
		c.cfg.Logger.DebugContext(ctx, "call is repeated", "method", m.Name, "attempt", n, "cause", err)
		if werr := backOff(ctx, c.ctx, n, err); werr != nil {
			return a.fail(werr)
		}
	}
}

// buildFrame writes the request frame of a call: header, session token, request
// id, and then the message, whose own fields override those before it.
func (c *Client) buildFrame(buf *[]byte, a *attempts) error {
	m := a.method
	frame := rpc.AppendRequestHeader((*buf)[:0], rpc.RequestHeader{
		Method:    m.ID,
		RequestID: c.nextID.Add(1),
	})
	// With an optional token the call means something else: it must be asked for.
	if m.TokenField != 0 && m.Rule.Auth != pb.Auth_OPTIONAL {
		if s := c.session.Load(); s != nil {
			frame = protowire.AppendTag(frame, m.TokenField, protowire.BytesType)
			frame = protowire.AppendBytes(frame, s.Token)
		}
	}
	if m.RequestIDField != 0 {
		if own, ok := a.req.(interface{ GetRequestId() []byte }); ok && len(own.GetRequestId()) > 0 {
			a.id, a.ownID = own.GetRequestId(), true
		} else {
			id := c.clock.newRequestID()
			frame = protowire.AppendTag(frame, m.RequestIDField, protowire.BytesType)
			frame = protowire.AppendBytes(frame, id[:])
			a.stamped = id
		}
	}
	frame, err := proto.MarshalOptions{}.MarshalAppend(frame, a.req)
	*buf = frame
	if err != nil {
		return fmt.Errorf("client: %s: %w", m.Name, err)
	}
	if size := len(frame) - rpc.RequestHeaderSize; size > int(m.MaxRequest) {
		return fmt.Errorf("client: %s: %w", m.Name, &rpc.FrameError{
			Reason: pb.Reason_FRAME_TOO_LARGE, Announced: uint32(size), Limit: m.MaxRequest,
		})
	}
	rpc.SetLength(frame, rpc.RequestHeaderSize)
	return nil
}

// maxWait is the longest that the server lets a FetchWait wait.
const maxWait = 60 * time.Second

// timeoutOf is how long one attempt may take.
func (c *Client) timeoutOf(req proto.Message) time.Duration {
	if waits, ok := req.(interface{ GetTimeoutMs() uint32 }); ok {
		return c.cfg.Timeout + min(time.Duration(waits.GetTimeoutMs())*time.Millisecond, maxWait)
	}
	return c.cfg.Timeout
}

// accept takes a response frame apart: resp is filled, or the error is a
// *StatusError, *ServerNameError or ErrProtocol. It also learns the time.
func (c *Client) accept(m *rpc.Method, h rpc.ResponseHeader, body []byte, resp proto.Message, start time.Time) error {
	if h.Status != pb.Status_Ok {
		return c.refusal(m, h.Status, body, start)
	}
	if err := rpc.Unmarshal(body, resp); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrProtocol, m.Name, err)
	}
	// A reply to a request_id may be the repeated one of an earlier time.
	if told, ok := resp.(interface{ GetServerTimeMs() uint64 }); ok && m.RequestIDField == 0 {
		c.clock.learn(told.GetServerTimeMs(), start, time.Now())
	}
	if named, ok := resp.(interface{ GetServerName() string }); ok && named.GetServerName() != c.cfg.ServerName {
		return &ServerNameError{Configured: c.cfg.ServerName, Reported: named.GetServerName()}
	}
	return nil
}

func (c *Client) refusal(m *rpc.Method, status pb.Status, body []byte, start time.Time) error {
	detail := new(pb.ErrorDetail)
	if err := rpc.Unmarshal(body, detail); err != nil {
		detail = new(pb.ErrorDetail) // the status alone must do
	}
	c.clock.learn(detail.ServerTimeMs, start, time.Now())
	return &StatusError{Method: m.Name, Status: status, Reason: detail.Reason, Detail: detail}
}

// isFrameError tells replies that are no frames from transport errors.
func isFrameError(err error) bool {
	var frame *rpc.FrameError
	return errors.As(err, &frame)
}
