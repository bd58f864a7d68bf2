package commands

import (
	"errors"
	"fmt"

	pb "quicprochat/proto/qpcv1"
)

// Refusal is the answer "no": a status and a reason that travel to the client
// together with a sentence that is safe to show. Every other error is internal:
// it is logged with its cause and the client sees Internal.
type Refusal struct {
	Status  pb.Status
	Reason  pb.Reason
	Message string // for a person; no secrets, nothing about other people
	// RetryAfterMS tells when a retry makes sense, in milliseconds; 0 = not told.
	RetryAfterMS uint64
	// Limit is the limit that was exceeded, in the unit the reason names.
	Limit uint64
	// CurrentEpoch is the channel's epoch, with STALE_EPOCH.
	CurrentEpoch uint64
}

// Error gives status, reason and message in one line, for logs and tests.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s (%s): %s", r.Status, r.Reason, r.Message)
}

// Is reports whether target is a Refusal of the same status and reason, so that
// errors.Is works against a value that carries only these two.
func (r *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Status == r.Status && t.Reason == r.Reason
}

// Refuse makes a Refusal as an error. The formatted message reaches the client.
func Refuse(status pb.Status, reason pb.Reason, format string, args ...any) error {
	return &Refusal{Status: status, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// AsRefusal unwraps err to the Refusal in it, or nil when err is none.
func AsRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return nil
}

// ErrStale is returned by a decide function that found another version of a
// key-transparency label current than the one whose VRF proofs were prepared
// outside the writer. Nothing was emitted: prepare again and call again.
var ErrStale = errors.New("commands: prepared for another version")
