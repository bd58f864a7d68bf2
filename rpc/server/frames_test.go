package server_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// method finds the row of a request message.
func method(t testing.TB, req proto.Message) *rpc.Method {
	t.Helper()
	m, ok := rpc.MethodOf(req)
	if !ok {
		t.Fatalf("%T is no request", req)
	}
	return m
}

// header is a request header that announces a length.
func header(id uint16, length uint32) []byte {
	return rpc.AppendRequestHeader(nil, rpc.RequestHeader{Method: id, RequestID: 5, Length: length})
}

// TestBrokenFrames sends what is wrong with a frame or its body, on one and the
// same connection, which has to live on.
func TestBrokenFrames(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	enqueue := method(t, &pb.EnqueueRequest{})
	batch := method(t, &pb.BatchEnqueueRequest{})
	good, err := proto.Marshal(alice.enqueue(alice, []byte("never stored")))
	if err != nil {
		t.Fatal(err)
	}
	whole := rpc.AppendRequest(nil, enqueue.ID, 5, good)
	tests := []struct {
		name   string
		frame  []byte
		status pb.Status
		reason pb.Reason
		limit  uint64
	}{
		{"body missing", whole[:rpc.RequestHeaderSize], pb.Status_BadRequest, pb.Reason_FRAME_TRUNCATED, 0},
		{"body one byte short", whole[:len(whole)-1], pb.Status_BadRequest, pb.Reason_FRAME_TRUNCATED, 0},
		{"one byte behind the body", append(bytes.Clone(whole), 0), pb.Status_BadRequest, pb.Reason_FRAME_TRAILING_BYTES, 0},
		{"a frame behind the frame", append(bytes.Clone(whole), whole...), pb.Status_BadRequest, pb.Reason_FRAME_TRAILING_BYTES, 0},
		{"64 KiB behind the body", append(bytes.Clone(whole), make([]byte, 64<<10)...), pb.Status_BadRequest, pb.Reason_FRAME_TRAILING_BYTES, 0},
		{"announced over the limit", header(enqueue.ID, enqueue.MaxRequest+1), pb.Status_BadRequest, pb.Reason_FRAME_TOO_LARGE, uint64(enqueue.MaxRequest)},
		{"announced 4 GiB", header(enqueue.ID, 1<<32-1), pb.Status_BadRequest, pb.Reason_FRAME_TOO_LARGE, uint64(enqueue.MaxRequest)},
		{"sent over the limit", append(header(enqueue.ID, enqueue.MaxRequest+1), make([]byte, enqueue.MaxRequest+1)...), pb.Status_BadRequest, pb.Reason_FRAME_TOO_LARGE, uint64(enqueue.MaxRequest)},
		{"default limit", header(method(t, &pb.PeekRequest{}).ID, rpc.DefaultMaxRequest+1), pb.Status_BadRequest, pb.Reason_FRAME_TOO_LARGE, rpc.DefaultMaxRequest},
		{"not protobuf", rpc.AppendRequest(nil, enqueue.ID, 5, []byte("\xff\xff\xff")), pb.Status_BadRequest, pb.Reason_MALFORMED_REQUEST, 0},
		{"field of another type", rpc.AppendRequest(nil, enqueue.ID, 5, []byte{0x08, 0x96, 0x01, 0x2a}), pb.Status_BadRequest, pb.Reason_MALFORMED_REQUEST, 0},
		{"text that is not UTF-8", rpc.AppendRequest(nil, 100, 5, []byte{0x12, 0x01, 0xff}), pb.Status_BadRequest, pb.Reason_MALFORMED_REQUEST, 0},
		{"groups that never end", rpc.AppendRequest(nil, batch.ID, 5, bytes.Repeat([]byte{0x7b}, 60_000)), pb.Status_BadRequest, pb.Reason_MALFORMED_REQUEST, 0},
		{"a bomb of empty sub-messages", rpc.AppendRequest(nil, batch.ID, 5, bytes.Repeat([]byte{0x1a, 0x00}, 1<<19)), pb.Status_BadRequest, pb.Reason_TOO_MANY_ITEMS, rpc.MaxElements},
		{"unknown method", rpc.AppendRequest(nil, 999, 5, nil), pb.Status_UnknownMethod, pb.Reason_METHOD_UNKNOWN, 0},
		{"method 0", rpc.AppendRequest(nil, 0, 5, good), pb.Status_UnknownMethod, pb.Reason_METHOD_UNKNOWN, 0},
		{"unknown method with 4 GiB announced", header(12345, 1<<32-1), pb.Status_UnknownMethod, pb.Reason_METHOD_UNKNOWN, 0},
	}
	unchanged := w.unchanged()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := &conn{Conn: c.Conn, t: t}
			r, err := c.raw(test.frame)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			d := c.check(r, test.status, test.reason)
			if d.GetLimit() != test.limit {
				t.Errorf("limit %d, want %d", d.GetLimit(), test.limit)
			}
			if r.id != 5 {
				t.Errorf("req_id %d, want 5", r.id)
			}
		})
	}
	unchanged()
	must[*pb.EnqueueResponse](c, alice.enqueue(alice, []byte("stored")))
}

// TestNoHeaderNoAnswer ends streams before there is a req_id to answer to.
func TestNoHeaderNoAnswer(t *testing.T) {
	w := boot(t, nil)
	c := w.dial()
	for n := range rpc.RequestHeaderSize {
		_, err := c.raw(header(802, 0)[:n])
		wantReset(t, fmt.Sprintf("%d bytes", n), err, rpc.CodeProtocol)
	}
	must[*pb.HealthResponse](c, &pb.HealthRequest{})
}

func wantReset(t *testing.T, what string, err error, code quic.StreamErrorCode) {
	t.Helper()
	var reset *quic.StreamError
	if !errors.As(err, &reset) || reset.ErrorCode != code || !reset.Remote {
		t.Errorf("%s: got %v, want a reset with code %d", what, err, code)
	}
}

// TestSlowSenders starts requests and does not go on: with the header, with the
// body, and with a body that trickles. They must not hold the server longer
// than the rule says, and not disturb others.
func TestSlowSenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bootSimulated(t, nil)
		c, end := s.dial()
		defer end()
		ctx := testContext(t)
		open := func(b []byte) *quic.Stream {
			s, err := c.OpenStreamSync(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(b); err != nil {
				t.Fatal(err)
			}
			s.SetDeadline(time.Now().Add(30 * time.Second))
			return s
		}
		slowHeader := open(header(802, 0)[:4])
		slowBody := open(append(header(200, 1<<20), make([]byte, 100)...))
		trickle := open(header(200, 1<<20))
		done := make(chan error)
		go func() {
			for {
				if _, err := trickle.Write([]byte{0}); err != nil {
					done <- err
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		}()
		must[*pb.HealthResponse](c, &pb.HealthRequest{})
		for name, s := range map[string]*quic.Stream{"header": slowHeader, "body": slowBody, "trickle": trickle} {
			_, err := io.ReadAll(s)
			wantReset(t, name, err, rpc.CodeLimit)
		}
		wantReset(t, "writing", <-done, rpc.CodeLimit)
		must[*pb.HealthResponse](c, &pb.HealthRequest{})
	})
}

// TestFrameInPieces sends a good request byte by byte: pieces are no fault.
func TestFrameInPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bootSimulated(t, nil)
		c, end := w.dial()
		defer end()
		s, err := c.OpenStreamSync(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range rpc.AppendRequest(nil, 802, 77, nil) {
			s.Write([]byte{b})
			time.Sleep(5 * time.Millisecond)
		}
		s.Close()
		r, err := c.answer(s)
		if err != nil || r.status != pb.Status_Ok || r.id != 77 {
			t.Errorf("got %v, %v", r, err)
		}
	})
}

// TestRandomFrames throws noise at the server: each stream gets an answer or a
// reset, and the connection lives on.
func TestRandomFrames(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	const seed = 20260101
	random := rand.New(rand.NewPCG(seed, 0))
	unchanged := w.unchanged()
	methods := rpc.Methods()
	for i := range 300 {
		frame := make([]byte, random.IntN(200))
		for j := range frame {
			frame[j] = byte(random.Uint32())
		}
		if len(frame) >= rpc.RequestHeaderSize && random.IntN(4) > 0 { // a good header
			binary.BigEndian.PutUint16(frame, methods[random.IntN(len(methods))].ID)
			binary.BigEndian.PutUint32(frame[6:], uint32(len(frame)-rpc.RequestHeaderSize))
		}
		r, err := c.raw(frame)
		var reset *quic.StreamError
		switch {
		case err != nil && !errors.As(err, &reset):
			t.Fatalf("seed %d, frame %d %x: %v", seed, i, frame, err)
		case err == nil && r.status == pb.Status_Internal:
			t.Errorf("seed %d, frame %d %x: internal error", seed, i, frame)
		}
	}
	unchanged()
	must[*pb.EnqueueResponse](c, alice.enqueue(alice, []byte("still there")))
}
