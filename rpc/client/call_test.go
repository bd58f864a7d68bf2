package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// serverAhead is the fake server's clock against the local one.
const serverAhead = 3 * time.Hour

func aheadMS() uint64 { return uint64(time.Now().Add(serverAhead).UnixMilli()) }

func testSession(device byte) Session {
	return Session{
		Username: "alice", Token: bytes.Repeat([]byte{device}, 32),
		Scope: pb.SessionScope_DEVICE, DeviceKey: bytes.Repeat([]byte{device}, 32),
	}
}

func message() *pb.EnqueueRequest {
	return &pb.EnqueueRequest{
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: make([]byte, 32)},
		Payload:   []byte("payload"),
	}
}

func idTime(id []byte) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(append([]byte{0, 0}, id[:6]...))))
}

func checkUUIDv7(t *testing.T, id []byte) {
	t.Helper()
	if len(id) != 16 || id[6]>>4 != 7 || id[8]>>6 != 2 {
		t.Fatalf("%x is not a UUIDv7", id)
	}
}

// What stands on the wire: the token, an id with the server's time, and the
// caller's message untouched.
func TestCallFillsInTokenAndRequestID(t *testing.T) {
	f := newFake(t)
	f.on("Health", func(c *fakeCall) {
		c.ok(&pb.HealthResponse{ServerName: fakeName, ServerTimeMs: aheadMS()})
	})
	seen := make(chan *pb.EnqueueRequest, 1)
	f.on("Enqueue", func(c *fakeCall) {
		seen <- c.req.(*pb.EnqueueRequest)
		c.ok(&pb.EnqueueResponse{MessageId: []byte("message id")})
	})
	c := f.dial()
	session := testSession(1)
	c.SetSession(session)
	if got, ok := c.Session(); !ok || !bytes.Equal(got.Token, session.Token) {
		t.Error("Session is not what was set")
	}
	if _, err := c.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	if off := time.Until(c.ServerTime()) - serverAhead; off.Abs() > time.Minute {
		t.Errorf("the server's time was learned %s wrong", off)
	}
	req := message()
	resp, err := c.Enqueue(t.Context(), req)
	if err != nil || string(resp.MessageId) != "message id" {
		t.Fatal(resp, err)
	}
	got := <-seen
	if !bytes.Equal(got.SessionToken, session.Token) || string(got.Payload) != "payload" {
		t.Errorf("sent %v", got)
	}
	checkUUIDv7(t, got.RequestId)
	if off := time.Until(idTime(got.RequestId)) - serverAhead; off.Abs() > time.Minute {
		t.Errorf("the request_id is %s off the server's time", off)
	}
	if !proto.Equal(req, message()) {
		t.Errorf("the caller's request became %v", req)
	}

	own := message()
	own.SessionToken, own.RequestId = []byte("other token"), []byte("0123456789abcdef")
	if _, err := c.Enqueue(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; !proto.Equal(got, own) {
		t.Errorf("sent %v in place of the caller's own token and id", got)
	}

	c.SetSession(Session{})
	if _, err := c.Enqueue(t.Context(), message()); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; len(got.SessionToken) != 0 {
		t.Error("a token without a session")
	}
}

// A session's token must not turn a registration into a password change.
func TestOptionalTokenIsNotAdded(t *testing.T) {
	f := newFake(t)
	f.on("OpaqueRegisterFinish", func(c *fakeCall) {
		if len(c.req.(*pb.OpaqueRegisterFinishRequest).SessionToken) != 0 {
			t.Error("the token was added")
		}
		c.ok(new(pb.OpaqueRegisterFinishResponse))
	})
	c := f.dial()
	c.SetSession(testSession(1))
	if err := c.Call(t.Context(), new(pb.OpaqueRegisterFinishRequest), new(pb.OpaqueRegisterFinishResponse)); err != nil {
		t.Error(err)
	}
}

func TestCallRefusesWhatIsNoCall(t *testing.T) {
	f := newFake(t)
	c := f.dial()
	if err := c.Call(t.Context(), new(pb.EnqueueResponse), new(pb.EnqueueResponse)); err == nil {
		t.Error("a response as request")
	}
	if err := c.Call(t.Context(), message(), new(pb.FetchResponse)); err == nil {
		t.Error("another method's response")
	}
	huge := message()
	huge.Payload = make([]byte, 2<<20)
	_, err := c.Enqueue(t.Context(), huge)
	var frame *rpc.FrameError
	if !errors.As(err, &frame) || !errors.Is(err, rpc.ErrTooLarge) || frame.Limit == 0 {
		t.Errorf("a payload over the limit: %v", err)
	}
	bad := &pb.ResolveUserRequest{Username: "\xff"}
	if err := c.Call(t.Context(), bad, new(pb.ResolveUserResponse)); err == nil {
		t.Error("a string that is not UTF-8")
	}
	if n := f.count("Enqueue") + f.count("ResolveUser"); n != 0 {
		t.Errorf("%d calls were sent", n)
	}
}

func TestStatusError(t *testing.T) {
	f := newFake(t)
	detail := &pb.ErrorDetail{
		Reason: pb.Reason_QUEUE_FULL, Message: "every queue of the recipient is full",
		RetryAfterMs: 1500, Limit: 10000, ServerTimeMs: aheadMS(), ErrorId: "e17",
	}
	f.on("Enqueue", func(c *fakeCall) { c.refuse(pb.Status_RateLimited, detail) })
	c := f.dial()
	_, err := c.Enqueue(t.Context(), message())
	var status *StatusError
	if !errors.As(err, &status) {
		t.Fatal(err)
	}
	if status.Method != "Enqueue" || status.Status != pb.Status_RateLimited || status.Reason != pb.Reason_QUEUE_FULL ||
		!proto.Equal(status.Detail, detail) || status.RetryAfter() != 1500*time.Millisecond {
		t.Errorf("%+v", status)
	}
	want := "Enqueue: RateLimited QUEUE_FULL: every queue of the recipient is full (limit 10000) (try again in 1.5s) (the server's log has it as e17)"
	if err.Error() != want {
		t.Errorf("text\n%s, want\n%s", err, want)
	}
	if ReasonOf(err) != pb.Reason_QUEUE_FULL || ReasonOf(ErrClosed) != 0 {
		t.Error("ReasonOf")
	}
	if f.count("Enqueue") != 1 {
		t.Error("a rate limit was tried again")
	}
	if off := time.Until(c.ServerTime()) - serverAhead; off.Abs() > time.Minute {
		t.Error("the time of an ErrorDetail was not learned")
	}
	if (&StatusError{Detail: &pb.ErrorDetail{RetryAfterMs: math.MaxUint64}}).RetryAfter() <= 0 {
		t.Error("a huge retry_after_ms overflows")
	}
}

// Newer servers may have statuses, reasons and fields that we don't know.
func TestRepliesOfTheFuture(t *testing.T) {
	f := newFake(t)
	f.on("ResolveUser", func(c *fakeCall) { c.send(rpc.AppendResponse(nil, 42, c.header.RequestID, []byte{0xff})) })
	f.on("Ack", func(c *fakeCall) {
		c.send(rpc.AppendResponse(nil, pb.Status_Ok, c.header.RequestID, []byte{0x08, 3, 0xc2, 0x3e, 1, 'x'}))
	})
	c := f.dial()
	_, err := c.ResolveUser(t.Context(), "alice")
	var status *StatusError
	if !errors.As(err, &status) || status.Status != 42 || !strings.Contains(err.Error(), "Status(42)") {
		t.Errorf("an unknown status: %v", err)
	}
	resp, err := c.Ack(t.Context(), &pb.AckRequest{UpTo: 1})
	if err != nil || resp.Acked != 3 {
		t.Errorf("an unknown field: %v, %v", resp, err)
	}
}

func TestBrokenReplies(t *testing.T) {
	good := func(c *fakeCall) []byte { return rpc.AppendResponse(nil, pb.Status_Ok, c.header.RequestID, nil) }
	for name, reply := range map[string]func(c *fakeCall) []byte{
		"nothing":       func(c *fakeCall) []byte { return nil },
		"half a header": func(c *fakeCall) []byte { return good(c)[:4] },
		"one byte more": func(c *fakeCall) []byte { return append(good(c), 0) },
		"too large":     func(c *fakeCall) []byte { return append(good(c)[:5], 0xff, 0xff, 0xff, 0xff) },
		"body missing":  func(c *fakeCall) []byte { return append(good(c)[:5], 0, 0, 0, 9) },
		"other req_id":  func(c *fakeCall) []byte { return rpc.AppendResponse(nil, 0, c.header.RequestID+1, nil) },
		"not protobuf":  func(c *fakeCall) []byte { return rpc.AppendResponse(nil, 0, c.header.RequestID, []byte{0xff}) },
	} {
		f := newFake(t)
		f.on("Peek", func(c *fakeCall) { c.send(reply(c)) })
		f.on("Enqueue", func(c *fakeCall) { c.send(reply(c)) })
		c := f.dial()
		if _, err := c.Peek(t.Context(), new(pb.PeekRequest)); !errors.Is(err, ErrProtocol) || errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%s, read: %v", name, err)
		}
		if _, err := c.Enqueue(t.Context(), message()); !errors.Is(err, ErrProtocol) || !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%s, mutation: %v", name, err)
		}
		if n := f.count("Peek") + f.count("Enqueue"); n != 2 {
			t.Errorf("%s: %d calls", name, n)
		}
	}
}

// A server that refuses early stops reading; its answer still arrives.
func TestEarlyRefusalOfALargeRequest(t *testing.T) {
	f := newFake(t)
	f.mu.Lock()
	f.early = func(c *fakeCall) {
		c.stream.CancelRead(rpc.CodeLimit)
		c.refuse(pb.Status_BadRequest, &pb.ErrorDetail{Reason: pb.Reason_FRAME_TOO_LARGE, Limit: 9})
	}
	f.mu.Unlock()
	c := f.dial()
	req := message()
	req.Payload = make([]byte, 1<<20)
	for range 5 {
		if _, err := c.Enqueue(t.Context(), req); ReasonOf(err) != pb.Reason_FRAME_TOO_LARGE {
			t.Fatal(err)
		}
	}
}

func TestCancelledCall(t *testing.T) {
	f := newFake(t)
	f.on("Peek", (*fakeCall).hang)
	f.on("Enqueue", (*fakeCall).hang)
	c := f.dial()
	for _, tt := range []struct {
		method  string
		call    func(ctx context.Context) error
		unknown bool
	}{
		{"Peek", func(ctx context.Context) error {
			_, err := c.Peek(ctx, new(pb.PeekRequest))
			return err
		}, false},
		{"Enqueue", func(ctx context.Context) error {
			_, err := c.Enqueue(ctx, message())
			return err
		}, true},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tt.call(ctx) }()
		eventually(t, "the call arrives", func() bool { return f.count(tt.method) == 1 })
		cancel()
		err := <-done
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrOutcomeUnknown) != tt.unknown {
			t.Errorf("%s cancelled under way: %v", tt.method, err)
		}
		err = tt.call(ctx)
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%s cancelled before: %v", tt.method, err)
		}
		if f.count(tt.method) != 1 {
			t.Errorf("%d calls of %s", f.count(tt.method), tt.method)
		}
	}
}

func TestSlowServer(t *testing.T) {
	simulate(t, func(t *testing.T, f *fake) {
		short := func(cfg *Config) { cfg.Timeout = 200 * time.Millisecond }
		f.on("Peek", func(c *fakeCall) {
			if c.n == 1 {
				c.hang()
				return
			}
			c.ok(&pb.PeekResponse{More: true})
		})
		c := f.dial(short)
		if resp, err := c.Peek(t.Context(), new(pb.PeekRequest)); err != nil || !resp.More || f.count("Peek") != 2 {
			t.Errorf("%v, %v after %d calls", resp, err, f.count("Peek"))
		}
		f.on("Peek", (*fakeCall).hang)
		once := f.dial(short, func(cfg *Config) { cfg.Attempts = 1 })
		_, err := once.Peek(t.Context(), new(pb.PeekRequest))
		if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "no answer within 200ms") {
			t.Errorf("no answer at all: %v", err)
		}
		// FetchWait may take as long as it asked for.
		f.on("FetchWait", func(c *fakeCall) {
			time.Sleep(400 * time.Millisecond)
			c.ok(&pb.FetchWaitResponse{Superseded: true})
		})
		resp, err := once.FetchWait(t.Context(), &pb.FetchWaitRequest{TimeoutMs: 5000})
		if err != nil || !resp.Superseded {
			t.Errorf("FetchWait: %v, %v", resp, err)
		}
	})
}

// A long answer on a slow link gets more time than a short one, a stalled answer
// does not.
func TestSlowLink(t *testing.T) {
	simulate(t, func(t *testing.T, f *fake) {
		page := &pb.PeekResponse{Envelopes: []*pb.Envelope{{Seq: 1, Payload: make([]byte, 80<<10)}}}
		f.on("Peek", func(c *fakeCall) {
			frame, err := rpc.AppendResponseMessage(nil, pb.Status_Ok, c.header.RequestID, page)
			if err != nil {
				t.Error(err)
			}
			for len(frame) > 0 {
				n := min(10<<10, len(frame))
				c.stream.Write(frame[:n])
				frame = frame[n:]
				time.Sleep(60 * time.Millisecond)
			}
			c.stream.Close()
		})
		f.on("ResolveUser", func(c *fakeCall) {
			c.stream.Write(rpc.AppendResponseHeader(nil, rpc.ResponseHeader{RequestID: c.header.RequestID, Length: 100}))
			c.hang()
		})
		c := f.dial(func(cfg *Config) { cfg.Timeout, cfg.Attempts = 300*time.Millisecond, 1 })
		if got, err := c.Peek(t.Context(), new(pb.PeekRequest)); err != nil || !proto.Equal(got, page) {
			t.Errorf("80 KiB in 480 ms: %v", err)
		}
		if _, err := c.ResolveUser(t.Context(), "alice"); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a stalled answer: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		f.on("Peek", func(c *fakeCall) {
			c.stream.Write(rpc.AppendResponse(nil, pb.Status_Ok, c.header.RequestID, make([]byte, 1<<20))[:64<<10])
			cancel()
			c.hang()
		})
		if _, err := c.Peek(ctx, new(pb.PeekRequest)); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled within a long answer: %v", err)
		}
		if transferTime(1<<20) != 128*time.Second {
			t.Errorf("1 MiB may take %s", transferTime(1<<20))
		}
	})
}

func TestManyCallsAtOnce(t *testing.T) {
	f := newFake(t)
	f.on("Enqueue", func(c *fakeCall) {
		req := c.req.(*pb.EnqueueRequest)
		if c.n%17 == 0 {
			c.stream.CancelWrite(rpc.CodeLimit)
			return
		}
		c.ok(&pb.EnqueueResponse{MessageId: req.Payload})
	})
	c := f.dial(func(cfg *Config) { cfg.Attempts = 20 })
	c.SetSession(testSession(1))
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := range 10 {
				req := message()
				req.Payload = []byte{byte(g), byte(i)}
				resp, err := c.Enqueue(context.Background(), req)
				if err != nil || !bytes.Equal(resp.MessageId, req.Payload) {
					t.Errorf("call %d/%d: %v, %v", g, i, resp, err)
				}
			}
		})
	}
	wg.Wait()
	if f.connections() != 1 {
		t.Errorf("%d connections", f.connections())
	}
}

func BenchmarkEnqueue(b *testing.B) {
	f := newFake(b)
	f.on("Enqueue", func(c *fakeCall) { c.ok(&pb.EnqueueResponse{MessageId: make([]byte, 16), ServerTimeMs: 1}) })
	c := f.dial()
	c.SetSession(testSession(1))
	req := message()
	req.Payload = make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Enqueue(context.Background(), req); err != nil {
			b.Fatal(err)
		}
	}
}
