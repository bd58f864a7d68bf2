package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// TestExplain: refusals say themselves what the client sees; the text of
// internal errors stays here.
func TestExplain(t *testing.T) {
	var log bytes.Buffer
	s := &server{logger: slog.New(slog.NewTextHandler(&log, nil)), started: time.Now()}
	refusal := &commands.Refusal{Status: pb.Status_RateLimited, Reason: pb.Reason_RATE, Message: "slowly", RetryAfterMS: 7, Limit: 3}
	for name, test := range map[string]struct {
		err    error
		status pb.Status
		reason pb.Reason
		text   string
	}{
		"refusal":         {refusal, pb.Status_RateLimited, pb.Reason_RATE, "slowly"},
		"wrapped refusal": {fmt.Errorf("context: %w", refusal), pb.Status_RateLimited, pb.Reason_RATE, "slowly"},
		"deadline":        {fmt.Errorf("waiting: %w", context.DeadlineExceeded), pb.Status_DeadlineExceeded, pb.Reason_DEADLINE, "unknown"},
		"internal":        {errors.New("disk /dev/secret is gone"), pb.Status_Internal, pb.Reason_INTERNAL, "error_id"},
	} {
		log.Reset()
		status, detail := s.explain("Enqueue", test.err)
		if status != test.status || detail.GetReason() != test.reason || !strings.Contains(detail.GetMessage(), test.text) || detail.GetServerTimeMs() == 0 {
			t.Errorf("%s: %v %v", name, status, detail)
		}
		if test.status == pb.Status_RateLimited && (detail.GetRetryAfterMs() != 7 || detail.GetLimit() != 3) {
			t.Errorf("%s: %v", name, detail)
		}
		if internal := status == pb.Status_Internal; internal != (detail.GetErrorId() != "") || internal != strings.Contains(log.String(), "/dev/secret") {
			t.Errorf("%s: id %q, log %q", name, detail.GetErrorId(), log.String())
		}
		if strings.Contains(detail.String(), "secret") {
			t.Errorf("%s tells the cause: %v", name, detail)
		}
	}
}

func TestFrameRefusal(t *testing.T) {
	for _, test := range []struct {
		err    error
		reason pb.Reason
	}{
		{&rpc.FrameError{Reason: pb.Reason_FRAME_TRUNCATED}, pb.Reason_FRAME_TRUNCATED},
		{fmt.Errorf("x: %w", &rpc.FrameError{Reason: pb.Reason_FRAME_TOO_LARGE}), pb.Reason_FRAME_TOO_LARGE},
		{rpc.ErrMalformed, pb.Reason_MALFORMED_REQUEST},
		{rpc.ErrTooDeep, pb.Reason_MALFORMED_REQUEST},
		{rpc.ErrTooManyElements, pb.Reason_TOO_MANY_ITEMS},
		{errStarting, pb.Reason_STARTING},
	} {
		if got := commands.AsRefusal(frameRefusal(test.err)); got == nil || got.Reason != test.reason {
			t.Errorf("%v: got %v, want %v", test.err, got, test.reason)
		}
	}
	if got := frameRefusal(errors.New("timeout")); got != nil {
		t.Errorf("an error of the stream became %v", got)
	}
}

// TestSharedDeadline: requests of one second share a context, and each has at
// least its time.
func TestSharedDeadline(t *testing.T) {
	s := &server{started: time.Now()}
	defer s.endDeadlines()
	first := s.requestContext()
	if s.requestContext() != first {
		t.Error("the next request has another context")
	}
	end, ok := first.Deadline()
	if left := time.Until(end); !ok || left < requestTimeout || left > requestTimeout+sharing {
		t.Errorf("time left: %v", left)
	}
	s.started = s.started.Add(-2 * sharing)
	if s.requestContext() == first {
		t.Error("still shared after its time")
	}
}
