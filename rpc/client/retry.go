package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// attempts is what a call has gone through so far.
type attempts struct {
	method *rpc.Method
	req    proto.Message

	id      []byte              // request_id that the caller chose
	stamped [requestIDSize]byte // … or that this client drew
	ownID   bool                // the caller chose it

	sent    bool // the server may have got the request at least once
	unknown bool // … and may have performed it
	anew    bool // it was stamped anew already
}

type verdict int

const (
	giveUp verdict = iota
	tryAgain
	stampAnew
)

// judge takes the failure of one attempt.
func (a *attempts) judge(ctx context.Context, err error, sent bool) verdict {
	var status *StatusError
	if errors.As(err, &status) {
		return a.judgeStatus(status)
	}
	if sent {
		a.sent = true
		a.unknown = a.unknown || a.method.Rule.Mutates
	}
	var connect *ConnectError
	var name *ServerNameError
	switch {
	case ctx.Err() != nil,
		errors.Is(err, ErrClosed),
		errors.Is(err, ErrProtocol),
		errors.As(err, &name),
		errors.As(err, &connect) && connect.Permanent,
		!a.repeatable():
		return giveUp
	}
	return tryAgain
}

// judgeStatus takes a reply. A refusal says that this attempt had no effect,
// but for two reasons.
func (a *attempts) judgeStatus(e *StatusError) verdict {
	switch e.Reason {
	case pb.Reason_REQUEST_ID_TIME:
		if a.ownID { // the caller's id is too old: it asks for an earlier outcome
			a.unknown = true
		}
		if a.unknown || a.anew {
			return giveUp
		}
		a.anew = true
		return stampAnew
	case pb.Reason_STORAGE, pb.Reason_DEADLINE:
		a.sent = true
		a.unknown = a.unknown || a.method.Rule.Mutates
	}
	switch e.Status {
	case pb.Status_Unavailable, pb.Status_DeadlineExceeded:
		if a.repeatable() && e.RetryAfter() <= patience {
			return tryAgain
		}
	}
	return giveUp
}

// repeatable tells whether sending the same bytes once more does no harm.
func (a *attempts) repeatable() bool {
	switch a.method.Rule.Retry {
	case pb.Retry_NONE, pb.Retry_REQUEST_ID, pb.Retry_CONTENT:
		return true
	case pb.Retry_AFTER_SEQ: // without it a Fetch drains
		switch req := a.req.(type) {
		case *pb.FetchRequest:
			return req.AfterSeq != nil || !a.sent
		case *pb.FetchWaitRequest:
			return req.AfterSeq != nil || !a.sent
		}
	}
	return !a.sent
}

// fail is the error that the caller gets. While the outcome is unknown, a
// refusal settles it only if it was decided behind the check for the receipt of
// an earlier attempt.
func (a *attempts) fail(err error) error {
	if !a.unknown {
		return err
	}
	var status *StatusError
	if errors.As(err, &status) && status.Reason != pb.Reason_REQUEST_ID_TIME {
		switch status.Status {
		case pb.Status_BadRequest, pb.Status_NotFound:
			return err
		}
	}
	outcome := &OutcomeError{Method: a.method.Name, Cause: err}
	if a.method.RequestIDField != 0 {
		outcome.RequestID = a.id
		if !a.ownID {
			outcome.RequestID = a.stamped[:]
		}
	}
	return outcome
}

// Bounds of the pause between two attempts.
const (
	firstPause = 50 * time.Millisecond
	longest    = 5 * time.Second
	// patience is the longest wait that a server may ask for before the caller is
	// told instead.
	patience = 30 * time.Second
)

// pause is how long to wait after the n-th failure: exponential with full
// jitter, so that clients which failed together don't return together. The
// jitter is drawn as everything random here is: a test that seeds that source
// repeats the pauses too.
func pause(n int) time.Duration {
	bound := min(firstPause<<min(n-1, 10), longest)
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return time.Duration(binary.BigEndian.Uint64(b[:])%uint64(bound)) + time.Millisecond
}

// backOff waits before the next attempt, at least as long as the server asked.
func backOff(ctx, closed context.Context, n int, err error) error {
	wait := pause(n)
	var status *StatusError
	if errors.As(err, &status) {
		wait += status.RetryAfter()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-closed.Done():
		return ErrClosed
	}
}
