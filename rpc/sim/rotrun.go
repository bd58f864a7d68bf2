package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/log"
	"quicprochat/projections"
)

// RotRun is a run of the script on a good disk. What it leaves is damaged and
// started again, as often as one likes.
type RotRun struct {
	w     *World
	disks map[string]*vfs.MemFS // see rotDisks
}

// Ways in which a start goes on damaged files.
const (
	rotRefused  = "refused"      // with cause and remedy
	rotHarmless = "harmless"     // nothing that was promised is missing
	rotRebuilt  = "built anew"   // the views were, or a snapshot was passed over
	rotUnsigned = "unsigned"     // no checkpoint is signed, and it is said why
	rotNoticed  = "met in use"   // reading it ended the server, with cause and remedy
	rotMetViews = "views in use" // reading the views ended the server; the next start built them anew
)

// NewRotRun lives through the script. It must be called in a synctest bubble.
func NewRotRun(seed uint64) (*RotRun, error) {
	r := newFaultRun(seed, Fault{Kind: NoFault})
	defer r.cancel()
	run := &RotRun{w: r.w, disks: map[string]*vfs.MemFS{}}
	if err := run.live(r); err != nil {
		return nil, fmt.Errorf("the script on a good disk: %w\n%s", err, r.w.logs)
	}
	return run, nil
}

func (run *RotRun) live(r *faultRun) error {
	w := r.w
	if err := r.life(nil, r.firstLife); err != nil {
		return err
	}
	run.note("stop", w.disk.fs)
	// The views are gone: the second start builds them anew.
	if err := w.disk.fs.RemoveAll(DataDir + "/views"); err != nil {
		return err
	}
	err := r.life(w.disk.fs, func() []func(context.Context) {
		return append(r.secondLife(), func(context.Context) { run.disks["killed"] = copyOf(w.disk.fs) })
	})
	for _, p := range w.People {
		p.client.Close()
	}
	w.ghosts.Wait()
	if err == nil {
		err = w.check()
	}
	if err != nil {
		return err
	}
	run.note("stop", w.disk.fs)
	run.disks["stopped"], run.disks["viewless"] = w.disk.fs, copyOf(w.disk.fs)
	return removeDurably(run.disks["viewless"], DataDir, "views")
}

// removeDurably removes a folder of dir so that no copy brings it back.
func removeDurably(fs *vfs.MemFS, dir, name string) error {
	if err := fs.RemoveAll(path.Join(dir, name)); err != nil {
		return err
	}
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// note ends a life in the history.
func (run *RotRun) note(cause string, fs *vfs.MemFS) {
	w := run.w
	w.life.Cause = cause
	w.life.finish()
	w.life.Anchored = anchorSize(fs)
	w.History.lives = append(w.History.lives, w.life)
}

// copyOf is a file system as it is when its process ends.
func copyOf(fs *vfs.MemFS) *vfs.MemFS {
	return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

// fork is another world of the same people and history.
func (run *RotRun) fork() *World {
	old := run.w
	w := &World{
		Seed: old.Seed, plan: old.plan, rng: rand.New(rand.NewPCG(old.Seed, 7)), keysets: maps.Clone(old.keysets),
		Net: NewNetwork(rand.New(rand.NewPCG(old.Seed, 8))), History: old.History.fork(), logs: &journal{}, begun: time.Now(), ca: old.ca,
	}
	w.Net.SetWeather(Weather{Delay: time.Millisecond})
	for i, was := range old.People {
		p := newPerson(w, i)
		p.registered, p.passwords, p.changes = was.registered, slices.Clone(was.passwords), was.changes
		p.keyset, p.confirmed, p.sends = was.keyset, was.confirmed, was.sends
		w.People = append(w.People, p)
	}
	return w
}

// fork is a history that goes on by itself.
func (h *History) fork() *History {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &History{
		sent: slices.Clone(h.sent), reads: slices.Clone(h.reads), acks: slices.Clone(h.acks), facts: slices.Clone(h.facts),
		lives: slices.Clone(h.lives), clock: slices.Clone(h.clock), sizes: slices.Clone(h.sizes), marks: maps.Clone(h.marks),
		wrong: slices.Clone(h.wrong),
	}
}

// RotResult is how a start on damaged files went.
type RotResult struct {
	Outcome string
	Said    string // the sentence of a server that refused to start or ended
}

// Suffer starts the server on damaged files and says how that went. With talk,
// people come and use it. An error is a broken promise: something is missing,
// another, or wrong in silence.
func (run *RotRun) Suffer(rot Rot, talk bool) (result RotResult, err error) {
	if run.disks[rot.Disk] == nil {
		return result, fmt.Errorf("there is no disk %q", rot.Disk)
	}
	fs := copyOf(run.disks[rot.Disk])
	if err := rot.apply(fs); err != nil {
		return result, err
	}
	w := run.fork()
	result, err = w.startOnRot(fs, rot, talk)
	if err == nil && result.Outcome == rotMetViews {
		// The process has ended; the views are built anew by its next start.
		next := run.fork()
		var again RotResult
		if again, err = next.startOnRot(copyOf(fs), rot, true); err == nil && again.Outcome != rotRebuilt {
			err = fmt.Errorf("after views that were damaged in use: %v", again)
		}
		w.logs.lines = append(w.logs.lines, next.logs.lines...)
	}
	if err != nil {
		err = fmt.Errorf("%v: %w\n%s", rot, err, w.logs)
	}
	return result, err
}

// startOnRot is one start, use and stop.
func (w *World) startOnRot(fs *vfs.MemFS, rot Rot, talk bool) (r RotResult, err error) {
	if err := w.start(fs, false); err != nil {
		return RotResult{rotRefused, err.Error()}, explained(err)
	}
	use := w.useOnRot(talk)
	for _, p := range w.People {
		if p.client != nil {
			p.client.Close()
		}
	}
	if use != nil {
		return w.metInUse(use)
	}
	r.Outcome = rotHarmless
	switch stopped := w.node.Engine().SigningStopped(); {
	case stopped != nil && rot.File != "guard":
		return r, fmt.Errorf("nothing is signed any more: %w", stopped)
	case stopped != nil:
		r = RotResult{rotUnsigned, stopped.Error()}
	case w.logs.has("views are built anew"), w.logs.has("passed over"):
		r.Outcome = rotRebuilt
	}
	if err := w.stop(); err != nil {
		return r, err
	}
	w.ghosts.Wait()
	return r, w.check()
}

// useOnRot looks at everything that a server holds, and lets people come.
func (w *World) useOnRot(talk bool) error {
	if err := w.checkStart(ending{}); err != nil {
		return err
	}
	m := NewModel()
	if err := replay(w.node.Log(), w.node.Log().Size(), m); err != nil {
		return err
	}
	if err := checkPayloads(w.node.Log(), m); err != nil {
		return err
	}
	if !talk {
		return nil
	}
	before := w.History.promises()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	alice, bob := w.People[0], w.People[1]
	for _, step := range []func(context.Context){enter(alice), enter(bob), alice.sendTo(bob), bob.confirm, alice.uploadHybridKey} {
		step(ctx)
	}
	if w.History.promises() < before+4 {
		return errors.New("people can't use it")
	}
	return nil
}

// metInUse judges a server that ended because of what it read: everybody must
// have been told, and nobody something wrong.
func (w *World) metInUse(use error) (r RotResult, err error) {
	select {
	case <-w.node.Failed():
	case <-time.After(failBound):
		return r, fmt.Errorf("the node goes on: %w", use)
	}
	cause := w.node.Engine().Err()
	w.bury(ending{fs: w.disk.fs})
	w.ghosts.Wait()
	damaged := (*projections.RebuildError)(nil)
	switch {
	case errors.As(cause, &damaged):
		return RotResult{rotMetViews, cause.Error()}, w.told()
	case !errors.Is(cause, log.ErrCorrupt):
		return r, fmt.Errorf("%w; the node failed: %w", use, cause)
	}
	return RotResult{rotNoticed, cause.Error()}, errors.Join(explained(cause), w.told())
}

// told checks that what people were handed was sent by somebody.
func (w *World) told() error {
	sent := map[[32]byte]bool{}
	for _, s := range w.History.sent {
		sent[s.Hash] = true
	}
	for _, r := range w.History.reads {
		for _, seen := range r.Seen {
			if !sent[seen.Hash] {
				return fmt.Errorf("%x was handed out and never sent", seen.Message)
			}
		}
	}
	return nil
}

// remedies are what a refusal to start tells to do.
var remedies = []string{"restore", "put back", "move it away", "move both away", "and a new pair is made", "use the newer", "go on with the"}

// explained checks that an error of a start is fit for an operator: it says what
// is wrong with what, and what to do.
func explained(err error) error {
	text := err.Error()
	told := slices.ContainsFunc(remedies, func(remedy string) bool { return strings.Contains(text, remedy) })
	if !told || !strings.Contains(text, ": ") || strings.Contains(text, "make room") || strings.Contains(text, "panic") {
		return fmt.Errorf("the start says neither what is wrong nor what to do: %w", err)
	}
	return nil
}
