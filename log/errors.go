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
	// ErrFailed: a write had an unknown outcome; nothing more can be written before a restart.
	ErrFailed = errors.New("log has failed")
	// ErrOutOfRange: an index, size or tile that the log does not have (yet).
	ErrOutOfRange = errors.New("not in the log")
	// ErrGroupOrder: a group was committed that does not start where the log ends, or a second time.
	ErrGroupOrder = errors.New("group is not the next one")
)

const restoreRemedy = "restore the data directory from a backup"

// AnchorError says how the recovered log and its head anchor disagree. It wraps ErrShorterThanAnchor,
// ErrRootMismatch or ErrNoAnchor.
type AnchorError struct {
	Kind       error
	LogSize    uint64  // records recovered from the segments
	LogRoot    kt.Hash // root over the first AnchorSize records; over all when there are fewer
	AnchorSize uint64
	AnchorRoot kt.Hash
	Detail     string // for ErrNoAnchor: what is wrong
}

func (e *AnchorError) Error() string {
	switch e.Kind {
	case ErrShorterThanAnchor:
		return fmt.Sprintf("log has %d records but its head anchor proves %d (root %x), so acknowledged records are lost: %s",
			e.LogSize, e.AnchorSize, e.AnchorRoot, restoreRemedy)
	case ErrRootMismatch:
		return fmt.Sprintf("log has root %x at size %d but its head anchor says %x, so records were changed: %s",
			e.LogRoot, e.AnchorSize, e.AnchorRoot, restoreRemedy)
	default:
		return fmt.Sprintf("log has no valid head anchor (%s): put back the file %s that belongs to this log, or %s",
			e.Detail, AnchorFile, restoreRemedy)
	}
}

// Unwrap gives the sentinel.
func (e *AnchorError) Unwrap() error { return e.Kind }

// CorruptError reports a record, tile or bundle that cannot be read as it was written. It wraps ErrCorrupt.
type CorruptError struct {
	Index uint64 // first record that is affected
	Cause error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("log is damaged at index %d (%v): %s", e.Index, e.Cause, restoreRemedy)
}

// Unwrap gives ErrCorrupt and the cause.
func (e *CorruptError) Unwrap() []error { return []error{ErrCorrupt, e.Cause} }

// FileError reports a file of the log's store that cannot be read as it was written, where no record is known that is
// affected. It wraps ErrCorrupt.
type FileError struct {
	Path  string
	Cause error
}

func (e *FileError) Error() string {
	return fmt.Sprintf("the log's file %s is damaged (%v): %s", e.Path, e.Cause, restoreRemedy)
}

// Unwrap gives ErrCorrupt and the cause.
func (e *FileError) Unwrap() []error { return []error{ErrCorrupt, e.Cause} }

func corrupt(index uint64, format string, args ...any) error {
	return &CorruptError{Index: index, Cause: fmt.Errorf(format, args...)}
}

// lockedError names the directory that is in use.
type lockedError struct {
	dir   string
	cause error
}

func (e *lockedError) Error() string {
	return fmt.Sprintf("%s is in use by another process (%v): stop that process or choose another data directory", e.dir, e.cause)
}

func (e *lockedError) Unwrap() []error { return []error{ErrLocked, e.cause} }

// FormatError reports a FORMAT file that this program cannot work with. The message names cause and remedy.
type FormatError struct {
	Version int    // as found; -1 when the file cannot be read as a FORMAT file
	Detail  string // cause and remedy
}

func (e *FormatError) Error() string { return e.Detail }
