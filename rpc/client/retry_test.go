package client

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// One call of each kind: how often it reaches a server that loses the first
// answer, and what the caller gets.
func TestLostAnswerByRetryKind(t *testing.T) {
	for _, tt := range []struct {
		name      string
		req       proto.Message
		wantCalls int
		wantErr   error
	}{
		{"read", new(pb.PeekRequest), 2, nil},
		{"request id", message(), 2, nil},
		{"batch with request id", new(pb.BatchEnqueueRequest), 2, nil},
		{"confirming fetch", &pb.FetchRequest{AfterSeq: proto.Uint64(7)}, 2, nil},
		{"confirming fetch of nothing yet", &pb.FetchRequest{AfterSeq: proto.Uint64(0)}, 2, nil},
		{"draining fetch", new(pb.FetchRequest), 1, ErrOutcomeUnknown},
		{"confirming wait", &pb.FetchWaitRequest{AfterSeq: proto.Uint64(7)}, 2, nil},
		{"draining wait", new(pb.FetchWaitRequest), 1, ErrOutcomeUnknown},
		{"content", new(pb.OpaqueRegisterFinishRequest), 2, nil},
		{"one shot", new(pb.OpaqueLoginFinishRequest), 1, ErrOutcomeUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			m, ok := rpc.MethodOf(tt.req)
			if !ok {
				t.Fatal("no method")
			}
			f.on(m.Name, func(c *fakeCall) {
				if c.n == 1 {
					c.loseAnswer()
					return
				}
				if first := f.sent(m.Name, 1); !bytes.Equal(c.body, first) {
					t.Errorf("the repeat has other bytes:\n%x\n%x", c.body, first)
				}
				c.ok(m.NewResponse())
			})
			c := f.dial()
			c.SetSession(testSession(1))
			err := c.Call(t.Context(), tt.req, m.NewResponse())
			if !errors.Is(err, tt.wantErr) {
				t.Errorf("error %v, want %v", err, tt.wantErr)
			}
			if n := f.count(m.Name); n != tt.wantCalls {
				t.Errorf("%d calls, want %d", n, tt.wantCalls)
			}
			if n := f.connections(); tt.wantCalls == 2 && n != 2 {
				t.Errorf("%d connections, want 2", n)
			}
		})
	}
}

// A stream reset counts as a lost answer; the connection stays.
func TestResetStream(t *testing.T) {
	f := newFake(t)
	f.on("Peek", func(c *fakeCall) {
		if c.n < 3 {
			c.stream.CancelWrite(rpc.CodeProtocol)
			return
		}
		c.ok(new(pb.PeekResponse))
	})
	c := f.dial()
	if _, err := c.Peek(t.Context(), new(pb.PeekRequest)); err != nil {
		t.Error(err)
	}
	if f.count("Peek") != 3 || f.connections() != 1 {
		t.Errorf("%d calls, %d connections", f.count("Peek"), f.connections())
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	simulate(t, func(t *testing.T, f *fake) {
		f.on("Enqueue", (*fakeCall).loseAnswer)
		c := f.dial(func(cfg *Config) { cfg.Attempts = 3 })
		_, err := c.Enqueue(t.Context(), message())
		var outcome *OutcomeError
		if !errors.As(err, &outcome) || outcome.Method != "Enqueue" || f.count("Enqueue") != 3 {
			t.Fatalf("%v after %d calls", err, f.count("Enqueue"))
		}
		ids := f.ids()
		for _, id := range ids {
			if !bytes.Equal(id, outcome.RequestID) {
				t.Errorf("request_id %x on the wire, %x in the error", id, outcome.RequestID)
			}
		}
		// With this id the outcome can be asked for.
		f.on("Enqueue", func(c *fakeCall) {
			if got := c.req.(*pb.EnqueueRequest).RequestId; !bytes.Equal(got, ids[0]) {
				t.Errorf("asked with id %x", got)
			}
			c.ok(&pb.EnqueueResponse{MessageId: []byte("decided")})
		})
		again := message()
		again.RequestId = outcome.RequestID
		if resp, err := c.Enqueue(t.Context(), again); err != nil || string(resp.MessageId) != "decided" {
			t.Error(resp, err)
		}
	})
}

func TestUnavailable(t *testing.T) {
	simulate(t, func(t *testing.T, f *fake) {
		unavailable := func(times int, reason pb.Reason) func(*fakeCall) {
			return func(c *fakeCall) {
				if c.n <= times {
					c.refuse(pb.Status_Unavailable, &pb.ErrorDetail{Reason: reason, RetryAfterMs: 1})
					return
				}
				m, _ := rpc.MethodByID(c.header.Method)
				c.ok(m.NewResponse())
			}
		}
		c := f.dial()
		f.on("Enqueue", unavailable(2, pb.Reason_STARTING))
		if _, err := c.Enqueue(t.Context(), message()); err != nil || f.count("Enqueue") != 3 {
			t.Errorf("starting twice: %v after %d calls", err, f.count("Enqueue"))
		}
		f.on("OpaqueLoginFinish", unavailable(1, pb.Reason_STORAGE))
		err := c.Call(t.Context(), new(pb.OpaqueLoginFinishRequest), new(pb.OpaqueLoginFinishResponse))
		if !errors.Is(err, ErrOutcomeUnknown) || f.count("OpaqueLoginFinish") != 1 {
			t.Errorf("a one-shot call and a failed commit: %v after %d calls", err, f.count("OpaqueLoginFinish"))
		}
		f.on("BatchEnqueue", unavailable(100, pb.Reason_OVERLOADED))
		_, err = c.BatchEnqueue(t.Context(), new(pb.BatchEnqueueRequest))
		if ReasonOf(err) != pb.Reason_OVERLOADED || errors.Is(err, ErrOutcomeUnknown) || f.count("BatchEnqueue") != 5 {
			t.Errorf("overloaded for good: %v after %d calls", err, f.count("BatchEnqueue"))
		}
		f.on("ResolveUser", func(c *fakeCall) {
			c.refuse(pb.Status_Unavailable, &pb.ErrorDetail{Reason: pb.Reason_CLOCK, RetryAfterMs: 3_600_000})
		})
		if _, err := c.ResolveUser(t.Context(), "alice"); ReasonOf(err) != pb.Reason_CLOCK || f.count("ResolveUser") != 1 {
			t.Errorf("asked to come back in an hour: %v after %d calls", err, f.count("ResolveUser"))
		}
		f.on("Ack", unavailable(100, pb.Reason_STORAGE))
		_, err = c.Ack(t.Context(), new(pb.AckRequest))
		if !errors.Is(err, ErrOutcomeUnknown) || ReasonOf(err) != pb.Reason_STORAGE {
			t.Errorf("a commit of unknown outcome: %v", err)
		}
		f.on("Peek", unavailable(100, pb.Reason_STORAGE))
		if _, err = c.Peek(t.Context(), new(pb.PeekRequest)); errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("a read has no outcome: %v", err)
		}
	})
}

// After a lost answer some refusals settle the matter and some don't.
func TestRefusalAfterALostAnswer(t *testing.T) {
	for _, tt := range []struct {
		status  pb.Status
		reason  pb.Reason
		unknown bool
	}{
		{pb.Status_BadRequest, pb.Reason_PAYLOAD_TOO_LARGE, false},
		{pb.Status_NotFound, pb.Reason_NO_DEVICE, false},
		{pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID, true},
		{pb.Status_Forbidden, pb.Reason_BANNED, true},
		{pb.Status_RateLimited, pb.Reason_RATE, true},
		{pb.Status_Internal, pb.Reason_INTERNAL, true},
	} {
		f := newFake(t)
		f.on("Enqueue", func(c *fakeCall) {
			if c.n == 1 {
				c.loseAnswer()
				return
			}
			c.refuse(tt.status, &pb.ErrorDetail{Reason: tt.reason})
		})
		_, err := f.dial().Enqueue(t.Context(), message())
		if ReasonOf(err) != tt.reason || errors.Is(err, ErrOutcomeUnknown) != tt.unknown {
			t.Errorf("%s: %v", tt.reason, err)
		}
	}
}

// A wrong local clock: the first try is refused with the server's time, the
// second has a new id with it.
func TestNeverAcceptedRequestIsStampedAnew(t *testing.T) {
	f := newFake(t)
	f.on("Enqueue", func(c *fakeCall) {
		id := c.req.(*pb.EnqueueRequest).RequestId
		if time.Until(idTime(id)) < serverAhead/2 {
			c.refuse(pb.Status_BadRequest, &pb.ErrorDetail{Reason: pb.Reason_REQUEST_ID_TIME, ServerTimeMs: aheadMS()})
			return
		}
		c.ok(new(pb.EnqueueResponse))
	})
	c := f.dial(func(cfg *Config) { cfg.Attempts = 1 })
	if _, err := c.Enqueue(t.Context(), message()); err != nil {
		t.Fatal(err)
	}
	if ids := f.ids(); len(ids) != 2 || bytes.Equal(ids[0], ids[1]) {
		t.Fatalf("ids %x", ids)
	}
	if _, err := c.Enqueue(t.Context(), message()); err != nil || f.count("Enqueue") != 3 {
		t.Errorf("the next call: %v, %d calls in all", err, f.count("Enqueue"))
	}
}

func TestServerThatRefusesEveryTime(t *testing.T) {
	f := newFake(t)
	f.on("Enqueue", func(c *fakeCall) {
		c.refuse(pb.Status_BadRequest, &pb.ErrorDetail{Reason: pb.Reason_REQUEST_ID_TIME, ServerTimeMs: aheadMS()})
	})
	_, err := f.dial().Enqueue(t.Context(), message())
	if ReasonOf(err) != pb.Reason_REQUEST_ID_TIME || errors.Is(err, ErrOutcomeUnknown) || f.count("Enqueue") != 2 {
		t.Errorf("%v after %d calls", err, f.count("Enqueue"))
	}
}

// A repeat never changes its id: when it has become too old, nobody knows.
func TestTooOldRepeat(t *testing.T) {
	f := newFake(t)
	tooOld := &pb.ErrorDetail{Reason: pb.Reason_REQUEST_ID_TIME, ServerTimeMs: aheadMS()}
	f.on("Enqueue", func(c *fakeCall) {
		if c.n == 1 {
			c.loseAnswer()
			return
		}
		c.refuse(pb.Status_BadRequest, tooOld)
	})
	c := f.dial()
	_, err := c.Enqueue(t.Context(), message())
	var outcome *OutcomeError
	first := f.ids()[0]
	if !errors.As(err, &outcome) || !bytes.Equal(outcome.RequestID, first) || f.count("Enqueue") != 2 {
		t.Fatalf("%v after %d calls", err, f.count("Enqueue"))
	}
	own := message()
	own.RequestId = first
	_, err = c.Enqueue(t.Context(), own)
	if !errors.Is(err, ErrOutcomeUnknown) || f.count("Enqueue") != 3 {
		t.Errorf("with the caller's own id: %v after %d calls", err, f.count("Enqueue"))
	}
}

func TestReconnectKeepsTheSession(t *testing.T) {
	f := newFake(t)
	tokens := make(chan []byte, 10)
	f.on("Peek", func(c *fakeCall) {
		tokens <- c.req.(*pb.PeekRequest).SessionToken
		c.ok(new(pb.PeekResponse))
	})
	c := f.dial()
	session := testSession(3)
	c.SetSession(session)
	for range 3 {
		if _, err := c.Peek(t.Context(), new(pb.PeekRequest)); err != nil {
			t.Fatal(err)
		}
		if got := <-tokens; !bytes.Equal(got, session.Token) {
			t.Errorf("token %x", got)
		}
		f.dropAll()
	}
	if f.connections() != 3 {
		t.Errorf("%d connections", f.connections())
	}
}

// The server binds a connection to a device: another device needs another one.
func TestAnotherDeviceTakesAnotherConnection(t *testing.T) {
	f := newFake(t)
	f.on("Peek", func(c *fakeCall) { c.ok(new(pb.PeekResponse)) })
	c := f.dial()
	for _, device := range []byte{1, 1, 2, 2} {
		c.SetSession(testSession(device))
		if _, err := c.Peek(t.Context(), new(pb.PeekRequest)); err != nil {
			t.Fatal(err)
		}
	}
	if f.connections() != 2 {
		t.Errorf("%d connections for 2 devices", f.connections())
	}
}

func TestCallEndsWhileTheServerIsAway(t *testing.T) {
	f := newFake(t)
	f.on("Peek", func(c *fakeCall) {
		c.refuse(pb.Status_Unavailable, &pb.ErrorDetail{Reason: pb.Reason_STARTING, RetryAfterMs: 20_000})
	})
	c := f.dial()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.Peek(ctx, new(pb.PeekRequest))
		done <- err
	}()
	eventually(t, "the call arrives", func() bool { return f.count("Peek") == 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled in the pause: %v", err)
	}
}

func TestPauses(t *testing.T) {
	for n := 1; n < 100; n++ {
		for range 20 {
			if got := pause(n); got <= 0 || got > longest+time.Millisecond {
				t.Fatalf("pause(%d) = %s", n, got)
			}
			if got := pause(1); got > firstPause+time.Millisecond {
				t.Fatalf("pause(1) = %s", got)
			}
		}
	}
}
