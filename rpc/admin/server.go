package admin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// SocketName is the socket's name in the data directory.
const SocketName = "admin.sock"

// Bounds of an exchange. Only the owner of the server comes here: they guard
// against what hangs, not against an enemy.
const (
	maxConnections = 16
	readTimeout    = 2 * time.Second
	callTimeout    = 10 * time.Second
	writeTimeout   = 2 * time.Second
)

// Server serves the admin socket. From Listen to Attach, and from Shutdown on,
// every call is answered Unavailable.
type Server struct {
	listener *net.UnixListener
	remove   func() error
	logger   *slog.Logger
	service  atomic.Pointer[Service]
	slots    chan struct{}

	stopping  atomic.Bool
	accepting sync.WaitGroup
	inflight  sync.WaitGroup
	mu        sync.Mutex
	open      map[net.Conn]struct{}
}

// Listen opens the socket at path with mode 0600 and begins to answer. A socket
// that a killed server left behind is replaced; one on which somebody answers is
// not, nor anything that is no socket. The error is one sentence with cause and
// remedy.
func Listen(path string, logger *slog.Logger) (*Server, error) {
	l, remove, err := listen(path)
	if err != nil {
		return nil, err
	}
	s := &Server{
		listener: l, remove: remove, logger: logger,
		slots: make(chan struct{}, maxConnections), open: make(map[net.Conn]struct{}),
	}
	s.accepting.Go(s.accept)
	return s, nil
}

// Attach lets the service answer from now on.
func (s *Server) Attach(service *Service) { s.service.Store(service) }

func (s *Server) accept() {
	for {
		s.slots <- struct{}{}
		c, err := s.listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				s.logger.Error("the admin socket takes no more connections", slog.Any("error", err))
			}
			return
		}
		s.mu.Lock()
		s.open[c] = struct{}{}
		s.mu.Unlock()
		s.inflight.Go(func() {
			s.serve(c)
			s.mu.Lock()
			delete(s.open, c)
			s.mu.Unlock()
			<-s.slots
		})
	}
}

// Shutdown takes no more connections, lets what runs finish within ctx, and
// removes the socket.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopping.Store(true)
	err := errors.Join(s.listener.Close(), s.remove())
	<-s.slots // accept may wait for one
	s.accepting.Wait()
	finished := make(chan struct{})
	go func() { s.inflight.Wait(); close(finished) }()
	select {
	case <-finished:
	case <-ctx.Done():
		s.mu.Lock()
		for c := range s.open {
			c.Close()
		}
		s.mu.Unlock()
		<-finished
	}
	return err
}

// serve answers one connection's request.
func (s *Server) serve(c net.Conn) {
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(readTimeout))
	header, req, err := s.receive(c)
	var resp proto.Message
	if err == nil {
		resp, err = s.call(req)
	}
	if broken := (*net.OpError)(nil); errors.As(err, &broken) {
		return // nobody is left, or too slow
	}
	status := pb.Status_Ok
	if err != nil {
		status, resp = s.explain(header.Method, err)
	}
	frame, err := rpc.AppendResponseMessage(nil, status, header.RequestID, resp)
	if err != nil {
		s.logger.Error("admin answer not encoded", slog.Any("error", err))
		return
	}
	c.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := c.Write(frame); err != nil {
		s.logger.Warn("admin answer not written", slog.Any("error", err))
	}
}

var (
	errUnknownMethod = commands.Refuse(pb.Status_UnknownMethod, pb.Reason_METHOD_UNKNOWN, "the admin socket has no such method: use the quicprochat-server that is running")
	errStarting      = &commands.Refusal{Status: pb.Status_Unavailable, Reason: pb.Reason_STARTING, Message: "the server is starting: try again soon", RetryAfterMS: 1000}
	errStopping      = commands.Refuse(pb.Status_Unavailable, pb.Reason_STOPPING, "the server is stopping")
)

// receive reads and decodes one request.
func (s *Server) receive(r io.Reader) (header rpc.RequestHeader, req proto.Message, err error) {
	var m *rpc.Method
	header, frame, err := rpc.ReadRequest(r, nil, func(h rpc.RequestHeader) (uint32, error) {
		header = h
		var ok bool
		if m, ok = rpc.LocalMethodByID(h.Method); !ok {
			return 0, errUnknownMethod
		}
		return m.MaxRequest, nil
	})
	if err != nil {
		return header, nil, err
	}
	req, err = m.UnmarshalRequest(frame[rpc.RequestHeaderSize:])
	return header, req, err
}

// call hands a request to the service, when there is one.
func (s *Server) call(req proto.Message) (proto.Message, error) {
	service := s.service.Load()
	switch {
	case s.stopping.Load():
		return nil, errStopping
	case service == nil:
		return nil, errStarting
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return service.Do(ctx, req)
}

// explain makes status and detail of an error: a refusal says itself what the
// caller sees, anything else is logged under an id.
func (s *Server) explain(method uint16, err error) (pb.Status, *pb.ErrorDetail) {
	var frame *rpc.FrameError
	switch refusal := commands.AsRefusal(err); {
	case refusal != nil:
		return refusal.Status, &pb.ErrorDetail{
			Reason: refusal.Reason, Message: refusal.Message, RetryAfterMs: refusal.RetryAfterMS, Limit: refusal.Limit,
		}
	case errors.As(err, &frame):
		return pb.Status_BadRequest, &pb.ErrorDetail{Reason: frame.Reason, Message: frame.Error(), Limit: uint64(frame.Limit)}
	case errors.Is(err, rpc.ErrMalformed), errors.Is(err, rpc.ErrTooDeep), errors.Is(err, rpc.ErrTooManyElements):
		return pb.Status_BadRequest, &pb.ErrorDetail{Reason: pb.Reason_MALFORMED_REQUEST, Message: "the body is not the method's request message"}
	}
	var random [8]byte
	rand.Read(random[:])
	id := hex.EncodeToString(random[:])
	s.logger.Error("admin request failed", slog.Int("method", int(method)), slog.String("error_id", id), slog.Any("error", err))
	return pb.Status_Internal, &pb.ErrorDetail{
		Reason: pb.Reason_INTERNAL, ErrorId: id,
		Message: fmt.Sprintf("the server failed; its log names the cause under %s", id),
	}
}
