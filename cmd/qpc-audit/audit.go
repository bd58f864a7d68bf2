package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"quicprochat/kt"
)

// auditor audits one log from one source.
type auditor struct {
	src    source
	folder *stateFolder
	// pinned is the verifier key that the log must have at first contact; nil
	// takes the one that CONFIG names.
	pinned *pin
	policy kt.WitnessPolicy
	// freshness is how old the newest HEAD may be.
	freshness time.Duration
	ktOnly    bool
	now       func() time.Time
	// progress is told how many of how many leaves are read.
	progress func(done, total uint64)

	replay  replayer // nil: to be loaded
	own     bool     // replay goes on from a state of this folder, whose CONFIG is that of the log
	saved   time.Time
	savedAt uint64 // position of the replay state on disk
}

// replayEvery is how often the replay state is written: it holds every label.
const replayEvery = 5 * time.Minute

// result is what one check found.
type result struct {
	Checkpoint kt.Checkpoint
	Head       kt.Head
	// Added is how many leaves are new since the last check.
	Added uint64
	// Age is that of the newest HEAD.
	Age time.Duration
	// Cosigned are the witnesses of the policy that signed.
	Cosigned []kt.Cosignature
	Note     []byte
	KTOnly   bool
}

// check reads the newest checkpoint, replays up to it and stores it. The result
// is set also beside an unsettled error. A *findingError has been saved.
func (a *auditor) check(ctx context.Context) (*result, error) {
	signed, err := a.src.checkpoint(ctx)
	if err != nil {
		if errors.Is(err, errMissing) {
			err = &unreachableError{errors.New("there is no checkpoint at this address")}
		}
		return nil, err
	}
	return a.checkNote(ctx, signed)
}

// checkNote checks one note that claims to be of the log.
func (a *auditor) checkNote(ctx context.Context, signed []byte) (*result, error) {
	r, err := a.verify(ctx, signed)
	var wrong *findingError
	if errors.As(err, &wrong) {
		// Once more, past caches: a finding must not be a proxy's mistake.
		a.replay = nil
		r, err = a.verify(context.WithValue(ctx, pastCaches{}, true), signed)
	}
	if errors.As(err, &wrong) && !a.signedByLog(signed) {
		// Anybody between here and the log can write a note and spoil tiles.
		err = unsettled("what the server shows is not signed by the log's key, and does not hold: %s", wrong.Detail)
		a.replay = nil
	}
	if err != nil {
		if !isUnsettled(err) {
			a.replay = nil
		}
		return r, a.report(ctx, signed, err)
	}
	return r, nil
}

// signedByLog reports whether the log itself said what a note says, under the name
// that the note has: only then somebody can be accused of it.
func (a *auditor) signedByLog(signed []byte) bool {
	to, err := readCheckpoint(signed)
	if err != nil {
		return false
	}
	keys := a.keys()
	// The CONFIG of a replay is the log's if it was reached from what was verified
	// before; at first contact without a key there is nothing else to go by.
	if a.replay != nil && (a.own || len(keys) == 0) {
		if config, _, ok := a.replay.config(); ok {
			keys = append(keys, config.LogKey)
		}
	}
	return slices.ContainsFunc(keys, func(key ed25519.PublicKey) bool {
		_, err := kt.OpenCheckpoint(signed, to.Origin, key)
		return err == nil
	})
}

// keys are those that the log is known to have, or had: of the state folder, or at
// first contact what --vkey gave.
func (a *auditor) keys() (keys []ed25519.PublicKey) {
	if s := a.folder.state; s != nil {
		for _, line := range append([]string{s.Log}, s.Earlier...) {
			if p, err := parsePin(line); err == nil {
				keys = append(keys, p.key)
			}
		}
	} else if a.pinned != nil {
		keys = append(keys, a.pinned.key)
	}
	return keys
}

// maxLeaves is more than any log has: a server that claims more is not read.
const maxLeaves = 1 << 48

// checkSize refuses sizes that no audit can be made of.
func checkSize(c kt.Checkpoint) error {
	switch {
	case c.Size == 0:
		return finding(kt.StepHead, "a checkpoint of an empty log was signed")
	case c.Size > maxLeaves:
		return unsettled("what the server shows is no checkpoint: it speaks of %d leaves", c.Size)
	}
	return nil
}

// pastCaches marks a context whose requests ask caches to ask the server.
type pastCaches struct{}

func (a *auditor) verify(ctx context.Context, signed []byte) (*result, error) {
	to, err := readCheckpoint(signed)
	if err != nil {
		return nil, unsettled("what the server shows is no checkpoint: %v", err)
	}
	known, err := a.known()
	if err != nil {
		return nil, err
	}
	if known == nil && a.pinned != nil && a.pinned.opens(signed) != nil {
		return nil, unsettled("the checkpoint, of %s, is not signed by the key given with --vkey, of %s: that is another log's key, or what the server shows is not the log's", to.Origin, a.pinned.origin)
	}
	if err := checkSize(to); err != nil {
		return nil, err
	}
	if err := a.load(known); err != nil {
		return nil, err
	}
	if known != nil {
		if done, err := a.against(*known, to, signed); done || err != nil {
			return nil, err
		}
	}
	before := uint64(0)
	if known != nil {
		before = known.Size
	}
	err = a.replay.advance(ctx, a.src, to, known, func(done uint64) { a.progress(done, to.Size) })
	if err != nil {
		return nil, err
	}
	if a.opens(signed) != nil {
		return nil, unsettled("the checkpoint of %d leaves is not signed by the key that its log names", to.Size)
	}
	if err := a.checkPin(); err != nil {
		return nil, err
	}
	if err := a.store(signed); err != nil {
		return nil, err
	}
	head, _, _ := a.replay.head()
	r := &result{
		Checkpoint: to, Head: head, Added: to.Size - before, Note: signed, KTOnly: a.ktOnly,
		Age: a.now().Sub(time.UnixMilli(int64(head.TimeMS))), Cosigned: a.policy.Cosignatures(signed),
	}
	return r, a.settled(r)
}

// checkPin holds --vkey, if there is one, against the keys that the log has and had.
func (a *auditor) checkPin() error {
	if a.pinned == nil {
		return nil
	}
	config, _, _ := a.replay.config()
	name, _, _ := kt.ParseOrigin(config.Origin)
	pinnedName, _, _ := kt.ParseOrigin(a.pinned.origin)
	keys := append(a.keys(), config.LogKey)
	if name != pinnedName || !slices.ContainsFunc(keys, func(key ed25519.PublicKey) bool { return key.Equal(a.pinned.key) }) {
		return unsettled("the log that the state folder %s is of does not have the key given with --vkey: use another --state with it, or the key of %s", a.folder.dir, config.Origin)
	}
	return nil
}

// readCheckpoint reads a note's text; its signatures are not checked.
func readCheckpoint(signed []byte) (kt.Checkpoint, error) {
	text, _, found := bytes.Cut(signed, []byte("\n\n"))
	if !found || len(signed) > kt.MaxNoteSize {
		return kt.Checkpoint{}, kt.ErrNote
	}
	return kt.ParseCheckpoint(signed[:len(text)+1])
}

// known is the checkpoint that was verified before.
func (a *auditor) known() (*kt.Checkpoint, error) {
	if a.folder.state == nil {
		return nil, nil
	}
	if a.folder.state.KTOnly != a.ktOnly {
		return nil, usageError("the state folder %s is of an audit %s: use another --state", a.folder.dir, map[bool]string{true: "with --kt-only", false: "of all leaves"}[a.folder.state.KTOnly])
	}
	c, err := readCheckpoint([]byte(a.folder.state.Newest))
	if err != nil {
		return nil, fmt.Errorf("the note in %s can't be read: put the file back from a copy (%w)", a.folder.path(stateFile), err)
	}
	return &c, nil
}

// load gets the replayer to where it was saved. One that is beyond what is known
// to be signed belongs to another state: the log is read from its beginning.
func (a *auditor) load(known *kt.Checkpoint) error {
	if a.replay != nil {
		return nil
	}
	var r replayer
	if a.ktOnly {
		keys, err := loadReplay(a.folder, kt.ReadKTReplayer, kt.NewKTReplayer)
		if err != nil {
			return err
		}
		if r = (keyReplayer{keys}); known == nil || r.position() > known.Size {
			r = keyReplayer{kt.NewKTReplayer()}
		}
	} else {
		leaves, err := loadReplay(a.folder, kt.ReadReplayer, kt.NewReplayer)
		if err != nil {
			return err
		}
		if r = (fullReplayer{leaves}); known == nil || r.position() > known.Size {
			r = fullReplayer{kt.NewReplayer()}
		}
	}
	a.replay, a.savedAt, a.own = r, r.position(), r.position() > 0
	return nil
}

// against compares a checkpoint with the one that is known, as far as it can be
// done without the log.
func (a *auditor) against(known, to kt.Checkpoint, signed []byte) (done bool, err error) {
	name, generation, _ := kt.ParseOrigin(to.Origin)
	knownName, knownGeneration, _ := kt.ParseOrigin(known.Origin)
	valid := a.signedByLog(signed)
	switch {
	case name != knownName:
		return true, unsettled("this is the log of %s, and the state folder is of %s: use another --state", name, knownName)
	case generation > knownGeneration && !a.signedByKnownKey(to, signed):
		return true, unsettled("what the server shows is of %s, after %s, and not signed by the log's key", to.Origin, known.Origin)
	case generation > knownGeneration:
		return true, finding(kt.StepConfig, "the log was begun anew (%s after %s): its operator says that its newest part was lost and disowns what was signed; to follow the new one, after asking the operator, use another --state",
			to.Origin, known.Origin)
	case to.Size <= known.Size && !valid:
		return true, unsettled("what the server shows is not signed by the log's key")
	case to.Size < known.Size:
		return true, unsettled("the server shows a checkpoint of %d leaves and has signed one of %d before (%s): a cache is stale, or the server was put back to an old copy",
			to.Size, known.Size, a.folder.path(stateFile))
	case to.Size == known.Size && to.Root != known.Root:
		return true, finding(kt.StepConsistency, "two checkpoints of %d leaves with different roots are signed: two histories", to.Size)
	}
	return false, nil
}

// opens checks a note's signature by the log's newest known key.
func (a *auditor) opens(signed []byte) error {
	config, _, ok := a.replay.config()
	if !ok {
		return errors.New("no CONFIG is known yet")
	}
	_, err := kt.OpenCheckpoint(signed, config.Origin, config.LogKey)
	return err
}

// signedByKnownKey checks the signature of a note of another generation by the
// log's newest known key: anybody can write a name on a note.
func (a *auditor) signedByKnownKey(to kt.Checkpoint, signed []byte) bool {
	config, _, ok := a.replay.config()
	if !ok {
		return false
	}
	_, err := kt.OpenCheckpoint(signed, to.Origin, config.LogKey)
	return err == nil
}

// store keeps a verified note, and from time to time the replay state.
func (a *auditor) store(signed []byte) error {
	config, _, _ := a.replay.config()
	vkey, err := kt.VerifierKey(config.Origin, config.LogKey)
	if err != nil {
		return err
	}
	next := state{KTOnly: a.ktOnly}
	if a.folder.state != nil {
		if next = *a.folder.state; next.Log != vkey && !slices.Contains(next.Earlier, next.Log) {
			next.Earlier = append(slices.Clone(next.Earlier), next.Log)
		}
	}
	next.Log, next.Newest, next.Checked = vkey, string(signed), a.now().UTC().Truncate(time.Second)
	if a.policy.Met(signed) == nil {
		next.Cosigned = string(signed)
	}
	if err := a.folder.save(next); err != nil {
		return err
	}
	if a.now().Sub(a.saved) < replayEvery {
		return nil
	}
	return a.saveReplay()
}

// saveReplay writes the replay state if it went on since.
func (a *auditor) saveReplay() error {
	if a.replay == nil || a.replay.position() == a.savedAt {
		return nil
	}
	if err := a.folder.saveReplay(a.replay); err != nil {
		return fmt.Errorf("save the replay state: %w", err)
	}
	a.saved, a.savedAt = a.now(), a.replay.position()
	return nil
}

// maxAhead is how far a HEAD may be in the future: clocks differ.
const maxAhead = 2 * time.Minute

// settled says what is missing although nothing is wrong.
func (a *auditor) settled(r *result) error {
	switch {
	case r.Age > a.freshness:
		return unsettled("stale: the newest HEAD is %v old: the server stands still, does not sign, or hides what is new", r.Age.Round(time.Second))
	case r.Age < -maxAhead:
		return unsettled("the newest HEAD is %v in the future: a clock is wrong", -r.Age.Round(time.Second))
	}
	if err := a.policy.Met(r.Note); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return nil
}

// report saves the evidence of a finding; other errors pass.
func (a *auditor) report(ctx context.Context, signed []byte, err error) error {
	var wrong *findingError
	if !errors.As(err, &wrong) {
		return err
	}
	e := evidence{
		Format: evidenceFormat, Found: a.now().UTC(), Source: a.src.String(), Step: wrong.Step, Detail: wrong.Detail,
		Note: string(signed), Resource: wrong.Path, Body: wrong.Body, Index: wrong.Index, Leaf: wrong.Leaf,
		Beginning: wrong.Beginning, Consistency: wrong.Consistency,
	}
	if a.folder.state != nil {
		e.Log, e.KnownNote = a.folder.state.Log, a.folder.state.Newest
	} else if a.pinned != nil {
		e.Log = a.pinned.line
	}
	if c, err := readCheckpoint(signed); err == nil {
		tree := newTree(ctx, a.src, c)
		e.InclusionPath = tree.pathOf(wrong.Index, wrong.Leaf)
		if path := tree.pathOf(wrong.HeadIndex, wrong.HeadLeaf); path != nil {
			e.HeadIndex, e.HeadLeaf, e.HeadPath = wrong.HeadIndex, wrong.HeadLeaf, path
		}
	}
	file, saveErr := e.save(a.folder.dir)
	if saveErr != nil {
		return fmt.Errorf("%w; it could not be saved: %w", err, saveErr)
	}
	wrong.File = file
	return wrong
}

// close saves what a later run can go on from.
func (a *auditor) close() error {
	err := a.saveReplay()
	a.folder.close()
	return errors.Join(err, a.src.close())
}

// writeReport tells a person what was checked.
func (r *result) writeReport(w io.Writer, src source, log string) {
	fmt.Fprintf(w, "log         %s\n", r.Checkpoint.Origin)
	fmt.Fprintf(w, "read from   %s\n", src)
	fmt.Fprintf(w, "key         %s\n", log)
	fmt.Fprintf(w, "leaves      %d (%d since the last check)\n", r.Checkpoint.Size, r.Added)
	fmt.Fprintf(w, "root        %x\n", r.Checkpoint.Root)
	fmt.Fprintf(w, "heads       %d, the newest %v old\n", r.Head.Epoch+1, r.Age.Round(time.Second))
	fmt.Fprintf(w, "key events  %d\n", r.Head.KTCount)
	for _, c := range r.Cosigned {
		fmt.Fprintf(w, "cosigned by %s at %s\n", c.Name, time.Unix(int64(c.Seconds), 0).UTC().Format(time.RFC3339))
	}
	if r.KTOnly {
		fmt.Fprint(w, `checked     every head and both of its roots, replayed from the deltas of key events; that the
            checkpoint continues those signed before and ends with the last of these heads
NOT SEEN    whether the deltas leave out leaves of the log, heads that were shown to somebody
            and never put into a delta, and the form of all other leaves: run without --kt-only
`)
		return
	}
	fmt.Fprint(w, `checked     every leaf: its class and form, the chain of CONFIGs, that no label stands twice,
            every head with both of its roots, replayed; the root; that it continues what was
            signed before
NOT SEEN    what stands behind commitments (nobody but those it concerns can), and whether
            somebody else is shown another log: compare notes, or ask for witnesses (--witness)
`)
}
