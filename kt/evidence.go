package kt

import (
	"errors"
	"fmt"
)

// Step names the check that failed. The set is closed: programs and people tell
// cases apart by it.
type Step string

const (
	// StepLeaf: a leaf of the log is malformed.
	StepLeaf Step = "leaf"
	// StepConfig: a CONFIG is missing, not linked to the one before, or not signed
	// by its log key; or the chain is another than the one known.
	StepConfig Step = "config"
	// StepConsistency: the tree does not contain the one that was signed before.
	StepConsistency Step = "consistency"
	// StepHead: there is no HEAD where one must be, or one of its fields is wrong.
	StepHead Step = "head"
	// StepHeads: the tree of earlier heads is not the one under heads_root.
	StepHeads Step = "heads"
	// StepMap: the map lacks what it must have, has what it must not, or its root
	// is not that of the KT leaves.
	StepMap Step = "map"
	// StepVRF: a label is not the one of its kind, id and version.
	StepVRF Step = "vrf"
	// StepOpening: a version that must be opened is not.
	StepOpening Step = "opening"
	// StepCommitment: opening and event do not fit the commitment.
	StepCommitment Step = "commitment"
	// StepEvent: the event under a label is not the one it must be.
	StepEvent Step = "event"
	// StepBinding: a username's binding to an identity key lacks its authority.
	StepBinding Step = "binding"
	// StepKeySet: a KeySet is malformed, not signed, or not the successor of the one
	// before.
	StepKeySet Step = "keyset"
	// StepTombstone: something follows a tombstone.
	StepTombstone Step = "tombstone"
	// StepRevocation: a revocation is malformed or not signed.
	StepRevocation Step = "revocation"
)

// Steps lists all steps in the order in which a verifier takes them.
func Steps() []Step {
	return []Step{
		StepLeaf, StepConfig, StepConsistency, StepHead, StepHeads, StepEvent, StepOpening, StepCommitment,
		StepMap, StepVRF, StepTombstone, StepBinding, StepKeySet, StepRevocation,
	}
}

// EvidenceError means that a server shows what no honest server shows: keep the
// reply (Bundle) and do not use it. Errors that accuse nobody are ErrStale,
// ErrOlder, ErrPolicy, ErrIncomplete, ErrNote, ErrFormat, ErrMalformed and
// *NewGenerationError.
type EvidenceError struct {
	Step Step
	// Detail says what was expected and what was shown.
	Detail string
	// Err is the cause, or nil.
	Err error
	// Leaf is the leaf of the log that a Replayer or KTReplayer refused; nil where it
	// was none, or from a Verifier.
	Leaf   *IndexedLeaf
	bundle func() *Bundle
}

// Bundle is what to keep; nil from a Replayer, whose evidence is the log itself.
func (e *EvidenceError) Bundle() *Bundle {
	if e.bundle == nil {
		return nil
	}
	return e.bundle()
}

// Error names the step and what was wrong.
func (e *EvidenceError) Error() string {
	return fmt.Sprintf("evidence against the server (%s): %s", e.Step, e.Detail)
}

// Unwrap gives the cause.
func (e *EvidenceError) Unwrap() error { return e.Err }

// evidence makes an EvidenceError. A last argument that is an error is its cause
// too.
func evidence(step Step, format string, args ...any) *EvidenceError {
	e := &EvidenceError{Step: step, Detail: fmt.Errorf(format, args...).Error()}
	if len(args) > 0 {
		e.Err, _ = args[len(args)-1].(error)
	}
	return e
}

var (
	// ErrStale: the newest HEAD shown is older than the freshness window allows, or
	// newer than the clock. The server, the network or the clock stands still.
	ErrStale = errors.New("stale")
	// ErrOlder: the reply is older than what was stored meanwhile. Ask again.
	ErrOlder = errors.New("older than what is known")
	// ErrIncomplete: the reply starts at a version that only somebody can check who
	// knows the one before. Ask again, from version 0.
	ErrIncomplete = errors.New("earlier versions are needed")
	// ErrMalformed: the reply is no proof of what was asked for.
	ErrMalformed = errors.New("malformed proof")
	// ErrFormat: the log is of a format that this program does not know.
	ErrFormat = errors.New("unknown log format")
	// ErrLogKey: the log's key is not the one that the caller was told.
	ErrLogKey = errors.New("another log key")
)

// NewGenerationError means that the log's origin is of a later generation: its
// operator went on after a loss of the log's end. Only the person may consent
// (State.Consent).
type NewGenerationError struct {
	// Known and Shown are the N of the origins server_name/N.
	Known, Shown uint32
}

// Error tells both generations.
func (e *NewGenerationError) Error() string {
	return fmt.Sprintf("the log was begun anew: generation %d was known, %d is shown", e.Known, e.Shown)
}
