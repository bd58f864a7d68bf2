package server

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// readBuffers hold request frames while they are read. A decoded message does
// not refer to its frame.
var readBuffers = sync.Pool{New: func() any { return new(make([]byte, 0, initialBuffer)) }}

// handle serves one stream: it is what the workers do.
func (s *server) handle(r request) {
	r.connection.used.Store(int64(s.elapsed()))
	service, refused := s.begin()
	c := calls.Get().(*call)
	c.server, c.service, c.request, c.in.stream = s, service, r, r.stream
	if !c.receive(refused) {
		if refused == nil {
			s.end()
		}
		c.recycle()
		r.done()
		return
	}
	resp, err := c.serve()
	if err == errDetached {
		go c.later() // answers, and calls finish
		return
	}
	c.answer(resp, err)
	c.finish()
}

// receive reads the frame and decodes it. When it returns false, it has answered
// what is wrong, or reset the stream where nobody could be answered. With refused,
// that is every request's answer.
func (c *call) receive(refused error) bool {
	buf := readBuffers.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= maxPooledBuffer {
			readBuffers.Put(buf)
		}
	}()
	c.request.stream.SetReadDeadline(time.Now().Add(headerTimeout))
	header, frame, err := rpc.ReadRequest(&c.in, *buf, func(h rpc.RequestHeader) (uint32, error) {
		c.id, c.admitted = h.RequestID, true
		c.method, _ = rpc.MethodByID(h.Method)
		switch {
		case c.method == nil:
			return 0, errUnknownMethod
		case refused != nil:
			return 0, refused
		}
		c.in.body()
		return c.method.MaxRequest, nil
	})
	if cap(frame) > cap(*buf) {
		*buf = frame
	}
	if err == nil {
		c.size = int(header.Length)
		c.message, err = c.method.UnmarshalRequest(frame[rpc.RequestHeaderSize:])
	}
	if err == nil {
		return true
	}
	c.server.refuseFrame(c, err)
	return false
}

var errUnknownMethod = commands.Refuse(pb.Status_UnknownMethod, pb.Reason_METHOD_UNKNOWN, "this server has no such method")

// refuseFrame answers a request that could not be read or decoded, or resets
// the stream when not even its header came.
func (s *server) refuseFrame(c *call, err error) {
	stream := c.request.stream
	refusal := frameRefusal(err)
	if refusal == nil || !c.admitted {
		code := quic.StreamErrorCode(rpc.CodeLimit) // too slow
		if refusal != nil {
			code = rpc.CodeProtocol
		}
		stream.CancelRead(code)
		stream.CancelWrite(code)
		s.metrics.brokenStreams.Inc()
		return
	}
	// What the client still sends has no reader.
	stream.CancelRead(rpc.CodeProtocol)
	c.answer(nil, refusal)
}

// frameRefusal translates the errors of reading and decoding; nil means that
// the stream failed or was too slow.
func frameRefusal(err error) error {
	var frame *rpc.FrameError
	switch {
	case commands.AsRefusal(err) != nil:
		return err
	case errors.As(err, &frame):
		return &commands.Refusal{Status: pb.Status_BadRequest, Reason: frame.Reason, Message: frame.Error(), Limit: uint64(frame.Limit)}
	case errors.Is(err, rpc.ErrTooManyElements):
		return &commands.Refusal{Status: pb.Status_BadRequest, Reason: pb.Reason_TOO_MANY_ITEMS, Message: err.Error(), Limit: rpc.MaxElements}
	case errors.Is(err, rpc.ErrMalformed), errors.Is(err, rpc.ErrTooDeep):
		return commands.Refuse(pb.Status_BadRequest, pb.Reason_MALFORMED_REQUEST, "the body is not the method's request message")
	}
	return nil
}

// paced reads a stream and moves its deadline with what comes: the header must
// be there in headerTimeout, the body must not fall behind minBodyRate.
type paced struct {
	stream *quic.Stream
	began  time.Time // of the body
	moving bool      // the header was read
	bytes  int
}

// body starts the pace of the body.
func (p *paced) body() { p.moving, p.began, p.bytes = true, time.Now(), 0 }

func (p *paced) Read(b []byte) (int, error) {
	if p.moving {
		earned := time.Duration(p.bytes) * time.Second / minBodyRate
		p.stream.SetReadDeadline(p.began.Add(bodySlack + earned))
	}
	n, err := p.stream.Read(b)
	p.bytes += n
	return n, err
}

var _ io.Reader = (*paced)(nil)

// calls are those that are not in use. Nothing may refer to a call that is finished.
var calls = sync.Pool{New: func() any { return new(call) }}

// call is one request that was read, with everything its handler needs.
type call struct {
	server   *server
	service  *service
	request  request
	in       paced
	method   *rpc.Method // nil: unknown
	id       uint32      // req_id of the frame
	admitted bool        // the header was read
	size     int         // of the body, bytes
	message  proto.Message
	token    [32]byte // SHA-256 of the session token; zero: none
	caller   commands.Caller
	view     *commands.View // of handlers that want one
	later    func()         // of a call that is answered by a goroutine of its own
	page     *[]byte        // payloads of the answer; of a pool
}

// finish ends a call that was begun.
func (c *call) finish() {
	if c.page != nil && cap(*c.page) <= maxPooledAnswer {
		pages.Put(c.page)
	}
	server, request := c.server, c.request
	c.recycle()
	server.end()
	request.done()
}

// recycle gives the call back, empty.
func (c *call) recycle() {
	*c = call{}
	calls.Put(c)
}
