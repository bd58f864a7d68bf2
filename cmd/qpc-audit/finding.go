package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"quicprochat/kt"
)

// findingError is something that no honest server shows.
type findingError struct {
	// Step names the check that failed, as kt does.
	Step kt.Step
	// Detail says what was expected and what was shown.
	Detail string
	// Path and Body are the resource in which it was found, if it was one.
	Path string
	Body []byte
	// Index is the leaf in question; Leaf is empty where none is.
	Index uint64
	Leaf  []byte
	// InclusionPath shows the leaf under the note, where it could be had.
	InclusionPath [][]byte
	// HeadLeaf is the last HEAD before Leaf, at HeadIndex.
	HeadIndex uint64
	HeadLeaf  []byte
	// Beginning is the root that the tree of the note has where another one was signed
	// before, and Consistency the RFC 6962 proof that it has.
	Beginning   []byte
	Consistency [][]byte
	// absent: something that was signed is not served.
	absent bool
	// File is where the evidence was saved.
	File string
}

func (e *findingError) Error() string {
	text := fmt.Sprintf("EVIDENCE AGAINST THE SERVER (%s): %s", e.Step, e.Detail)
	if e.File != "" {
		text += "; saved in " + e.File
	}
	return text
}

// after notes the last HEAD that held before the finding.
func (e *findingError) after(r interface {
	Head() (kt.Head, uint64, bool)
	HeadLeaf() []byte
}) {
	_, e.HeadIndex, _ = r.Head()
	e.HeadLeaf = r.HeadLeaf()
}

func finding(step kt.Step, format string, args ...any) *findingError {
	return &findingError{Step: step, Detail: fmt.Sprintf(format, args...)}
}

// asFinding turns evidence of package kt into a finding; other errors stay.
func asFinding(err error) error {
	var evidence *kt.EvidenceError
	if errors.As(err, &evidence) {
		f := finding(evidence.Step, "%s", evidence.Detail)
		if l := evidence.Leaf; l != nil {
			f.Index, f.Leaf = l.Index, l.Leaf
		}
		return f
	}
	if errors.Is(err, kt.ErrDelta) {
		return finding(kt.StepLeaf, "%v", err)
	}
	return err
}

// unsettledError accuses nobody, but does not satisfy either.
type unsettledError struct{ text string }

func (e *unsettledError) Error() string { return e.text }

func unsettled(format string, args ...any) error {
	return &unsettledError{fmt.Sprintf(format, args...)}
}

// errInterrupted: the person ended it before there was anything to say.
var errInterrupted = unsettled("interrupted before anything was checked")

func isUnsettled(err error) bool {
	var own *unsettledError
	return errors.As(err, &own) || errors.Is(err, kt.ErrStale) || errors.Is(err, kt.ErrPolicy) || errors.Is(err, kt.ErrOlder)
}

// evidenceFormat is the first thing in an evidence file.
const evidenceFormat = "qpc-audit evidence 1"

// evidence is the file that a finding leaves: whoever doubts the finding can
// check it without this machine.
type evidence struct {
	Format string    `json:"format"`
	Found  time.Time `json:"found"`
	Source string    `json:"source"`
	Step   kt.Step   `json:"step"`
	Detail string    `json:"detail"`
	// Log is the log's verifier key as far as it was known.
	Log string `json:"log,omitempty"`
	// KnownNote was verified before, Note is the one at which it was found.
	KnownNote string `json:"known_note,omitempty"`
	Note      string `json:"note,omitempty"`
	// Resource and Body are what was served.
	Resource string `json:"resource,omitempty"`
	Body     []byte `json:"body,omitempty"`
	// Leaf stands at Index, by InclusionPath under Note.
	Index         uint64   `json:"index,omitempty"`
	Leaf          []byte   `json:"leaf,omitempty"`
	InclusionPath [][]byte `json:"inclusion_path,omitempty"`
	// HeadLeaf is an earlier HEAD, at HeadIndex by HeadPath under Note.
	HeadIndex uint64   `json:"head_index,omitempty"`
	HeadLeaf  []byte   `json:"head_leaf,omitempty"`
	HeadPath  [][]byte `json:"head_path,omitempty"`
	// Beginning is the root over as many leaves of Note as KnownNote has, by the
	// RFC 6962 proof Consistency.
	Beginning   []byte   `json:"beginning,omitempty"`
	Consistency [][]byte `json:"consistency,omitempty"`
}

// save writes the evidence into a folder, under a name of its own.
func (e evidence) save(dir string) (string, error) {
	content, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "evidence-"+e.Found.UTC().Format("20060102T150405.000")+".json")
	if _, err := os.Stat(name); err == nil {
		return "", fmt.Errorf("%s exists already", name)
	}
	return name, replaceFile(name, append(content, '\n'), 0o600)
}
