package log

import (
	"errors"
	"fmt"

	"quicprochat/kt"
)

// Sentinels for errors.Is. The errors that carry them say in one sentence what is wrong and what to do.
var (
	// ErrShorterThanAnchor: the store holds fewer records than the head anchor proves were acknowledged.
	ErrShorterThanAnchor = errors.New("log is shorter than its head anchor")
	// ErrRootMismatch: the store's first records do not have the root that the head anchor names.
	ErrRootMismatch = errors.New("log has another root than its head anchor")
	// ErrNoAnchor: the head anchor is missing, or no slot of it is valid for this store.
	ErrNoAnchor = errors.New("log has no valid head anchor")
	// ErrLocked: another process (or another Log of this one) has the store open.
	ErrLocked = errors.New("log is locked")
	// ErrCorrupt: stored bytes are damaged or missing; CorruptError names the index.
	ErrCorrupt = errors.New("log is damaged")
	// ErrFailed: a write had an unknown outcome; nothing more can be committed before a restart.
	ErrFailed = errors.New("log has failed")
	// ErrOutOfRange: an index, size or tile that the log does not have (yet).
	ErrOutOfRange = errors.New("not in the log")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("log is closed")
)

// AnchorError says how the recovered log and its head anchor disagree. It wraps ErrShorterThanAnchor,
// ErrRootMismatch or ErrNoAnchor.
type AnchorError struct {
	Kind       error
	LogSize    uint64  // records recovered from the segments
	LogRoot    kt.Hash // root over the first AnchorSize records, or over all when there are fewer
	AnchorSize uint64
	AnchorRoot kt.Hash
	Detail     string // for ErrNoAnchor: what is wrong with the slots
}

func (e *AnchorError) Error() string { panic("not yet") }

// Unwrap gives the sentinel.
func (e *AnchorError) Unwrap() error { return e.Kind }

// CorruptError reports a record, tile or bundle that cannot be read as it was written. It wraps ErrCorrupt.
type CorruptError struct {
	Index uint64 // first index that cannot be trusted
	Cause error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("log is damaged at index %d (%v): restore the data directory from a backup", e.Index, e.Cause)
}

// Unwrap gives ErrCorrupt and the cause.
func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Cause} }

// FormatError reports a FORMAT file that this program cannot work with.
type FormatError struct {
	Version int    // as found; -1 when the file cannot be read as a FORMAT file
	Detail  string // cause and remedy
}

func (e *FormatError) Error() string { return e.Detail }
