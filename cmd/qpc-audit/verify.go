package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"quicprochat/kt"
)

// verifyCommand checks saved proofs and evidence.
type verifyCommand struct {
	File string `arg:"" placeholder:"BUNDLE" help:"What check --bundle saved, or an evidence file."`
	VKey string `name:"vkey" env:"QPC_AUDIT_VKEY" placeholder:"KEY|FILE" help:"A verifier key that the log is known to have or had (${env}). Without it the file is only as good as its own word on whose log it is."`
}

// Help is shown by verify --help.
func (*verifyCommand) Help() string {
	return `Checks everything again from the file alone. Status 0: the proof holds. Status 1: the
file is evidence, and it holds. Status 75: the file shows nothing.`
}

// Run is called by kong.
func (c *verifyCommand) Run(_ context.Context, a *app) error {
	pinned, err := (&trustFlags{VKey: c.VKey}).pin()
	if err != nil {
		return err
	}
	content, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	var kind struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(content, &kind); err != nil {
		return unsettled("%s is neither a bundle nor evidence: %v", c.File, err)
	}
	switch kind.Format {
	case kt.BundleFormat:
		return verifyBundle(a.stdout, content, pinned)
	case evidenceFormat:
		return verifyEvidence(a.stdout, content, pinned)
	}
	return unsettled("%s has the unknown format %q", c.File, kind.Format)
}

// verifyBundle checks the answer of a server about a person or a key.
func verifyBundle(w io.Writer, content []byte, pinned *pin) error {
	bundle, err := kt.ParseBundle(content)
	if err != nil {
		return unsettled("%v", err)
	}
	var key []byte
	if pinned != nil {
		key = pinned.key
	}
	answer, err := kt.VerifyBundle(bundle, key)
	var wrong *kt.EvidenceError
	switch {
	case errors.As(err, &wrong):
		return &findingError{Step: wrong.Step, Detail: wrong.Detail}
	case err != nil:
		return unsettled("the bundle shows nothing: %v", err)
	}
	if pinned == nil {
		fmt.Fprintf(w, "the log's key is the one in the file: compare it, or give --vkey\n")
	}
	subject := bundle.Question.Query.Username
	if subject == "" {
		subject = fmt.Sprintf("%x", append(bytes.Clone(bundle.Question.Query.RevokedKey), bundle.Question.Query.IdentityKey...))
	}
	fmt.Fprintf(w, "asked at %s\n", timeText(bundle.TimeMS))
	return writeAnswer(w, subject, answer)
}

// verifyEvidence checks what of an auditor's evidence can be checked without the
// log.
func verifyEvidence(w io.Writer, content []byte, pinned *pin) error {
	var e evidence
	if err := json.Unmarshal(content, &e); err != nil {
		return unsettled("the evidence can't be read: %v", err)
	}
	if pinned == nil {
		own, err := parsePin(e.Log)
		if err != nil {
			return unsettled("the evidence names no key of a log: give --vkey")
		}
		fmt.Fprintf(w, "the log's key is the one in the file: compare it, or give --vkey\n")
		pinned = own
	}
	fmt.Fprintf(w, "found %s, reading from %s\n", e.Found.Format("2006-01-02 15:04:05 MST"), e.Source)
	note, err := pinned.opensAnyGeneration([]byte(e.Note))
	if err != nil {
		return unsettled("the evidence shows nothing: its note is not signed by the log's key")
	}
	fmt.Fprintf(w, "signed by the log: %d leaves, root %x, as %s\n", note.Size, note.Root, note.Origin)
	if err := e.shown(w, note, pinned); err != nil {
		return err
	}
	return &findingError{Step: e.Step, Detail: e.Detail}
}

// shown tells what the file proves by itself; an error when it contradicts
// itself.
func (e *evidence) shown(w io.Writer, note kt.Checkpoint, pinned *pin) error {
	if e.KnownNote != "" {
		known, err := pinned.opensAnyGeneration([]byte(e.KnownNote))
		if err != nil {
			return unsettled("the evidence shows nothing: its earlier note is not signed by the log's key")
		}
		fmt.Fprintf(w, "signed before:     %d leaves, root %x, as %s\n", known.Size, known.Root, known.Origin)
		switch {
		case known.Origin != note.Origin:
			fmt.Fprintln(w, "PROVED: the log was begun anew after it had signed what the earlier note says")
			return nil
		case known.Size == note.Size && known.Root != note.Root:
			fmt.Fprintln(w, "PROVED: the log signed two histories of the same length")
			return nil
		}
	}
	if len(e.Leaf) > 0 && len(e.InclusionPath) > 0 {
		hash := kt.LeafHash(e.Leaf)
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, e.Index, note.Size, hash[:], e.InclusionPath, note.Root[:]); err != nil {
			return unsettled("the evidence shows nothing: the leaf is not under the signed root: %v", err)
		}
		fmt.Fprintf(w, "PROVED: leaf %d is in the log as it was signed: %x\n", e.Index, e.Leaf)
		if _, err := kt.ParseLeaf(e.Leaf); err != nil {
			fmt.Fprintf(w, "PROVED: and it is no valid leaf: %v\n", err)
		}
		return nil
	}
	fmt.Fprintln(w, "what the file does not prove by itself, whoever audits the log sees again: qpc-audit follow --once")
	return nil
}
