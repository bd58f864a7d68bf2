package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

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
file is evidence, and it holds. Status 75: the file shows nothing, or not by itself.`
}

// Run is called by kong.
func (c *verifyCommand) Run(_ context.Context, a *app) error {
	pinned, err := (&trustFlags{VKey: c.VKey}).pin()
	if err != nil {
		return err
	}
	content, err := readBounded(c.File, kt.MaxBundleSize)
	if err != nil {
		return err
	}
	var kind struct {
		Format string `json:"format"`
	}
	if json.Unmarshal(content, &kind) != nil || kind.Format == "" {
		return unsettled("%s is neither a bundle nor evidence: no program of this system saved it", c.File)
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
		return unsettled("the bundle is damaged: a field is missing, unknown or of the wrong form")
	}
	var key []byte
	if pinned != nil {
		key = pinned.key
	}
	answer, err := kt.VerifyBundle(bundle, key)
	var wrong *kt.EvidenceError
	if pinned == nil && (err == nil || errors.As(err, &wrong)) {
		tellKey(w, bundleKey(bundle))
	}
	switch {
	case errors.As(err, &wrong):
		fmt.Fprintf(w, "asked at %s; the server's reply, which is in the file, does not hold\n", timeText(bundle.TimeMS))
		return &findingError{Step: wrong.Step, Detail: wrong.Detail}
	case err != nil:
		return unsettled("the bundle shows nothing: %v", err)
	}
	subject := bundle.Question.Query.Username
	if subject == "" {
		subject = fmt.Sprintf("%x", append(bytes.Clone(bundle.Question.Query.RevokedKey), bundle.Question.Query.IdentityKey...))
	}
	fmt.Fprintf(w, "asked at %s\n", timeText(bundle.TimeMS))
	return writeAnswer(w, subject, answer)
}

// tellKey says on whose word a file is believed that no --vkey was given for.
func tellKey(w io.Writer, line string) {
	fmt.Fprintf(w, "the log's key is the one in the file, %s: compare it, or give --vkey\n", line)
}

// bundleKey is the verifier key of the newest CONFIG that a bundle shows or knows.
func bundleKey(b *kt.Bundle) string {
	line, err := b.VerifierKey()
	if err != nil {
		return "which can't be read"
	}
	return line
}

// verifyEvidence checks what of an auditor's evidence can be checked without the
// log.
func verifyEvidence(w io.Writer, content []byte, pinned *pin) error {
	var e evidence
	if err := json.Unmarshal(content, &e); err != nil {
		return unsettled("the evidence is damaged: a field has the wrong form")
	}
	if pinned == nil {
		own, err := parsePin(e.Log)
		if err != nil {
			return unsettled("the evidence names no key of a log: give --vkey")
		}
		tellKey(w, own.line)
		pinned = own
	}
	note, err := pinned.opensAnyGeneration([]byte(e.Note))
	if err != nil {
		return unsettled("the evidence shows nothing: its note is not signed by the log's key")
	}
	fmt.Fprintf(w, "found %s, reading from %s\n", e.Found.Format("2006-01-02 15:04:05 MST"), e.Source)
	fmt.Fprintf(w, "signed by the log: %d leaves, root %x, as %s\n", note.Size, note.Root, note.Origin)
	proved, err := e.shown(w, note, pinned)
	switch {
	case err != nil:
		return err
	case !proved:
		return unsettled("the file alone does not prove what it says (%s: %s): whoever audits the log sees it again, with qpc-audit follow --once", e.Step, e.Detail)
	}
	return &findingError{Step: e.Step, Detail: e.Detail}
}

// shown tells what the file proves by itself, and whether no honest log signs that;
// an error when it contradicts itself.
func (e *evidence) shown(w io.Writer, note kt.Checkpoint, pinned *pin) (proved bool, err error) {
	if e.KnownNote != "" {
		known, err := pinned.opensAnyGeneration([]byte(e.KnownNote))
		if err != nil {
			return false, unsettled("the evidence shows nothing: its earlier note is not signed by the log's key")
		}
		fmt.Fprintf(w, "signed before:     %d leaves, root %x, as %s\n", known.Size, known.Root, known.Origin)
		switch proved, err := e.forked(known, note); {
		case err != nil:
			return false, err
		case known.Origin != note.Origin:
			fmt.Fprintln(w, "PROVED: the log was begun anew after it had signed what the earlier note says")
			return true, nil
		case proved:
			fmt.Fprintf(w, "PROVED: the log signed two histories: they differ within the first %d leaves\n", min(known.Size, note.Size))
			return true, nil
		}
	}
	if len(e.Leaf) == 0 || len(e.InclusionPath) == 0 && note.Size > 1 {
		return false, nil
	}
	if err := includes(note, e.Index, e.Leaf, e.InclusionPath); err != nil {
		return false, unsettled("the evidence shows nothing: the leaf is not under the signed root: %v", err)
	}
	fmt.Fprintf(w, "PROVED: leaf %d is in the log as it was signed: %x\n", e.Index, e.Leaf)
	what, err := e.impossible(note)
	if err == nil && what != "" {
		fmt.Fprintf(w, "PROVED: and %s\n", what)
	}
	return what != "", err
}

// forked is whether two notes of one log are of two histories.
func (e *evidence) forked(known, note kt.Checkpoint) (bool, error) {
	switch {
	case known.Origin != note.Origin:
		return false, nil
	case known.Size == note.Size:
		return known.Root != note.Root, nil
	case len(e.Beginning) != len(kt.Hash{}) || known.Size > note.Size:
		return false, nil
	}
	err := proof.VerifyConsistency(rfc6962.DefaultHasher, known.Size, note.Size, e.Consistency, e.Beginning, note.Root[:])
	if err != nil {
		return false, unsettled("the evidence shows nothing: what it says of the first %d leaves is not so under the signed root: %v", known.Size, err)
	}
	return kt.Hash(e.Beginning) != known.Root, nil
}

func includes(c kt.Checkpoint, index uint64, leaf []byte, path [][]byte) error {
	hash := kt.LeafHash(leaf)
	return proof.VerifyInclusion(rfc6962.DefaultHasher, index, c.Size, hash[:], path, c.Root[:])
}

// impossible says why no honest log has the leaf at its place; empty if one could,
// for all that the file shows.
func (e *evidence) impossible(note kt.Checkpoint) (string, error) {
	leaf, err := kt.ParseLeaf(e.Leaf)
	switch first := leaf.Class == kt.ClassConfig && leaf.Config.Previous == nil; {
	case err != nil:
		return fmt.Sprintf("it is no valid leaf: %v", err), nil
	case first != (e.Index == 0):
		return "the first CONFIG of a log stands at index 0, once", nil
	case e.Index == note.Size-1 && leaf.Class != kt.ClassHead:
		return "it is the last one of what was signed, and no HEAD", nil
	case leaf.Class != kt.ClassHead || len(e.HeadLeaf) == 0 || e.HeadIndex >= e.Index:
		return "", nil
	}
	if err := includes(note, e.HeadIndex, e.HeadLeaf, e.HeadPath); err != nil {
		return "", unsettled("the evidence shows nothing: the earlier HEAD is not under the signed root: %v", err)
	}
	earlier, err := kt.ParseLeaf(e.HeadLeaf)
	if err != nil || earlier.Class != kt.ClassHead || leaf.Head.CanFollow(earlier.Head, e.HeadIndex, e.Index) {
		return "", nil
	}
	return fmt.Sprintf("it contradicts the HEAD at index %d, which is there too: %x", e.HeadIndex, e.HeadLeaf), nil
}
