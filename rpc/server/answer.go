package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

var writeBuffers = sync.Pool{New: func() any { return new(make([]byte, 0, initialBuffer)) }}

// answer writes the response frame with FIN: resp, or what err says.
func (c *call) answer(resp proto.Message, err error) {
	status := pb.Status_Ok
	if err != nil {
		var detail *pb.ErrorDetail
		status, detail = c.server.explain(c.methodName(), err)
		resp = detail
	}
	c.server.metrics.count(c.method, status)
	buf := writeBuffers.Get().(*[]byte)
	frame, err := rpc.AppendResponseMessage((*buf)[:0], status, c.id, resp)
	if err != nil {
		c.server.logger.Error("answer not encoded", slog.String("method", c.methodName()), slog.Any("error", err))
		c.request.stream.CancelWrite(rpc.CodeShutdown)
		return
	}
	c.write(frame)
	if cap(frame) <= maxPooledAnswer {
		*buf = frame
		writeBuffers.Put(buf)
	}
}

// write sends a frame. A small one is queued, so that no worker waits for the
// client; a large one goes as fast as the client reads, within writeTimeout.
func (c *call) write(frame []byte) {
	stream := c.request.stream
	if len(frame) <= smallAnswer && stream.TryWriteAll(frame) == nil {
		stream.Close()
		return
	}
	stream.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := stream.Write(frame); err != nil {
		stream.CancelWrite(rpc.CodeLimit) // the client is gone, or does not read
		return
	}
	stream.Close()
}

func (c *call) methodName() string {
	if c.method == nil {
		return unknownMethod
	}
	return c.method.Name
}

// explain is the one place where errors become statuses. A refusal says itself
// what the client sees. Everything else is internal: it is logged with its
// cause under an id, and the client learns only the id.
func (s *server) explain(method string, err error) (pb.Status, *pb.ErrorDetail) {
	detail := &pb.ErrorDetail{ServerTimeMs: s.now()}
	if r := commands.AsRefusal(err); r != nil {
		detail.Reason, detail.Message = r.Reason, r.Message
		detail.RetryAfterMs, detail.Limit, detail.CurrentEpoch = r.RetryAfterMS, r.Limit, r.CurrentEpoch
		return r.Status, detail
	}
	if errors.Is(err, context.DeadlineExceeded) {
		detail.Reason, detail.Message = pb.Reason_DEADLINE, "the request timed out: its outcome is unknown"
		return pb.Status_DeadlineExceeded, detail
	}
	detail.ErrorId = newErrorID()
	detail.Reason, detail.Message = pb.Reason_INTERNAL, "the server failed; its log names the cause under error_id"
	s.logger.Error("request failed", slog.String("method", method), slog.String("error_id", detail.ErrorId), slog.Any("error", err))
	return pb.Status_Internal, detail
}

// now is the server's time in Unix milliseconds, also before the engine runs.
func (s *server) now() uint64 {
	if service := s.service.Load(); service != nil {
		return service.engine.Now()
	}
	return uint64(time.Now().UnixMilli())
}

func newErrorID() string {
	var id [8]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}
