package projections

import (
	"errors"
	"fmt"
)

// ErrInvalidEvent is in the chain of an ApplyError when the event itself can't
// be: it contradicts the views, is malformed, or of a type that this program
// does not know. Other causes are failures of the store.
var ErrInvalidEvent = errors.New("invalid event")

// invalid makes an ErrInvalidEvent. The text must not name users or keys: it is
// logged, and the index tells which event it is about.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalidEvent, fmt.Sprintf(format, args...))
}

// ApplyError says which event could not be applied, and why.
type ApplyError struct {
	// Index is the event's position in the log.
	Index uint64
	Err   error
}

func (e *ApplyError) Error() string {
	return fmt.Sprintf("event %d can't be applied: %v", e.Index, e.Err)
}

// Unwrap gives the cause.
func (e *ApplyError) Unwrap() error { return e.Err }

// RebuildReason tells why views must be built anew.
type RebuildReason uint8

// The reasons of a RebuildError.
const (
	// Missing: there is no store, or one that was never finished.
	Missing RebuildReason = iota + 1
	// Damaged: the store does not open, a checksum failed, a row is malformed or
	// the rows have another format.
	Damaged
	// Ahead: the cursor lies beyond the log.
	Ahead
)

// String names the reason in a word.
func (r RebuildReason) String() string {
	switch r {
	case Missing:
		return "missing"
	case Damaged:
		return "damaged"
	case Ahead:
		return "ahead of the log"
	}
	return fmt.Sprintf("RebuildReason(%d)", uint8(r))
}

// RebuildError says that the views can't be used as they are. They are a cache
// of the log: DropAndRecreate and applying the log is the remedy.
type RebuildError struct {
	Reason RebuildReason
	// Cursor is where the views stood, with reason Ahead.
	Cursor uint64
	// Err is the cause, with reason Damaged.
	Err error
}

func (e *RebuildError) Error() string {
	switch {
	case e.Reason == Ahead:
		return fmt.Sprintf("the views are ahead of the log: their cursor is %d", e.Cursor)
	case e.Err != nil:
		return fmt.Sprintf("the views are %v: %v", e.Reason, e.Err)
	}
	return fmt.Sprintf("the views are %v", e.Reason)
}

// Unwrap gives the cause.
func (e *RebuildError) Unwrap() error { return e.Err }
