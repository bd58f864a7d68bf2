package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	"quicprochat/rpc"
)

// longAgo as a deadline ends reads and writes at once.
var longAgo = time.Unix(1, 0)

// exchange sends one frame on a stream of its own and reads the reply. sent
// tells whether the server may have got the request. Errors are those of accept,
// ctx's, or transport errors.
func (c *Client) exchange(ctx context.Context, conn *quic.Conn, m *rpc.Method, frame []byte, timeout time.Duration, resp proto.Message) (sent bool, err error) {
	start := time.Now()
	deadline := start.Add(timeout + transferTime(len(frame)))
	stream, err := openStream(ctx, conn, deadline)
	if err != nil {
		return false, c.callError(ctx, m, timeout, err)
	}
	if err := stream.SetDeadline(deadline); err != nil {
		return false, c.callError(ctx, m, timeout, err)
	}
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { stream.SetDeadline(longAgo) })
		defer stop()
	}
	in := getBuffer()
	defer putBuffer(in)
	h, err := roundTrip(ctx, stream, deadline, frame, in)
	if err != nil {
		stream.CancelWrite(rpc.CodeShutdown)
		stream.CancelRead(rpc.CodeShutdown)
		if isFrameError(err) {
			return true, fmt.Errorf("%w: %s: %w", ErrProtocol, m.Name, err)
		}
		return true, c.callError(ctx, m, timeout, err)
	}
	if want, _ := rpc.ParseRequestHeader(frame); h.RequestID != want.RequestID {
		return true, fmt.Errorf("%w: %s: the reply is for req_id %d, sent was %d", ErrProtocol, m.Name, h.RequestID, want.RequestID)
	}
	return true, c.accept(m, h, (*in)[rpc.ResponseHeaderSize:], resp, start)
}

// openStream takes a stream, or waits for one while the server's limit of
// concurrent calls is reached.
func openStream(ctx context.Context, conn *quic.Conn, deadline time.Time) (*quic.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stream, err := conn.OpenStream()
	if limit := (*quic.StreamLimitReachedError)(nil); !errors.As(err, &limit) {
		return stream, err
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return conn.OpenStreamSync(ctx)
}

// roundTrip writes header and body at once, with the FIN close behind, and reads
// until the server's FIN. A server that refuses a request early stops the
// stream's sending side; its reply is still read.
func roundTrip(ctx context.Context, stream *quic.Stream, deadline time.Time, frame []byte, in *[]byte) (rpc.ResponseHeader, error) {
	_, err := stream.Write(frame)
	if err == nil {
		err = stream.Close()
	}
	if stopped := (*quic.StreamError)(nil); err != nil && !errors.As(err, &stopped) {
		return rpc.ResponseHeader{}, err
	}
	paced := pacedReader{ctx: ctx, stream: stream, deadline: deadline}
	h, buf, rerr := rpc.ReadResponse(&paced, *in, rpc.MaxResponse)
	*in = buf
	return h, rerr
}

const (
	// minRate is the slowest transfer that is waited for, in bytes per second; it
	// is also what servers ask of requests.
	minRate = 8 << 10
	// paceStep is how many bytes must have arrived for more time to be given.
	paceStep = 8 << 10
)

// transferTime is how long a number of bytes may take beyond the timeout.
func transferTime(size int) time.Duration {
	return time.Duration(size) * time.Second / minRate
}

// pacedReader gives a long answer on a slow link the time it needs: the deadline
// moves on with the bytes that arrive.
type pacedReader struct {
	ctx            context.Context
	stream         *quic.Stream
	deadline       time.Time // of the first byte
	received, last int       // last: when the deadline was moved
}

func (r *pacedReader) Read(p []byte) (int, error) {
	n, err := r.stream.Read(p)
	r.received += n
	if err == nil && r.received-r.last >= paceStep {
		r.last = r.received
		if err := r.stream.SetReadDeadline(r.deadline.Add(transferTime(r.received))); err != nil {
			return n, err
		}
		if r.ctx.Err() != nil { // it may have set its deadline just before
			r.stream.SetReadDeadline(longAgo)
		}
	}
	return n, err
}

// callError names the method; that ctx or the Client ended is said in place of
// what followed from it.
func (c *Client) callError(ctx context.Context, m *rpc.Method, timeout time.Duration, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", m.Name, ctx.Err())
	case c.ctx.Err() != nil:
		return fmt.Errorf("%s: %w", m.Name, ErrClosed)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: no answer within %s: %w", m.Name, timeout, os.ErrDeadlineExceeded)
	}
	return fmt.Errorf("%s: %w", m.Name, err)
}

// buffers holds frames of usual size.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

// maxPooled keeps one large page from pinning its memory.
const maxPooled = 64 << 10

func getBuffer() *[]byte { return buffers.Get().(*[]byte) }

func putBuffer(b *[]byte) {
	if cap(*b) <= maxPooled {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}
