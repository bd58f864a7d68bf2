package commands_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/commands"
	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// backUp copies what lies in the stopped server's directory, without the names
// left out.
func (w *world) backUp(without ...string) vfs.FS {
	w.t.Helper()
	copied := vfs.NewMem()
	w.copyAll(w.fs, copied, without)
	return copied
}

// putBack replaces the directory by a copy; the names in keep stay as they are.
func (w *world) putBack(from vfs.FS, keep ...string) {
	w.t.Helper()
	names, err := w.fs.List(w.dir)
	w.check(err)
	for _, name := range names {
		if !slices.Contains(keep, name) {
			w.check(w.fs.RemoveAll(w.fs.PathJoin(w.dir, name)))
		}
	}
	w.copyAll(from, w.fs, keep)
}

func (w *world) copyAll(from, to vfs.FS, without []string) {
	w.t.Helper()
	w.check(to.MkdirAll(w.dir, 0o700))
	names, err := from.List(w.dir)
	w.check(err)
	for _, name := range names {
		if slices.Contains(without, name) {
			continue
		}
		path := from.PathJoin(w.dir, name)
		_, err := vfs.Clone(from, to, path, path)
		w.check(err)
	}
}

func (w *world) shut() {
	w.stop()
	w.check(w.log.Close())
}

func (w *world) startUp() {
	w.open()
	w.boot()
}

// stillServes checks that what needs no signature works, and that there are no
// proofs.
func (w *world) stillServes(t *testing.T, newcomer string) {
	t.Helper()
	if err := w.engine.SigningStopped(); err == nil {
		t.Fatal("signing goes on")
	} else if !strings.Contains(err.Error(), "put") {
		t.Errorf("no remedy in %q", err)
	}
	w.join(newcomer)
	_, err := w.skeptic().ask(kt.Query{Username: newcomer})
	wantReason(t, err, pb.Reason_SIGNING_STOPPED)
	own, err := w.engine.ProveOwn(t.Context(), &pb.ProofRequest{}, func(p *commands.Proofs) error { return p.Person(newcomer) })
	if own != nil || err != nil {
		t.Errorf("a mutation's proof while nothing is signed: %v, %v", own, err)
	}
	if shown := w.engine.Checkpoint(); shown != nil {
		shown.Release()
		t.Error("a checkpoint is shown while nothing is signed")
	}
}

func TestRollbackIsSeenByTheGuard(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.join("alice")
		w.shut()
		old := w.backUp()
		w.startUp()
		w.join("bob")
		w.skeptic().mustAsk(kt.Query{Username: "bob"}) // signed
		w.shut()
		right := w.backUp()
		w.putBack(old, "guard")
		w.startUp()
		w.stillServes(t, "carol")
		w.join("dave") // the log grows past what the guard knows: still another one
		w.shut()
		w.startUp()
		w.stillServes(t, "erin")
		w.shut()
		w.putBack(right)
		w.startUp()
		if err := w.engine.SigningStopped(); err != nil {
			t.Errorf("with the right files: %v", err)
		}
		w.skeptic().mustAsk(kt.Query{Username: "bob"})
	})
}

func TestRollbackIsSeenByAClient(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.join("alice")
		w.shut()
		old := w.backUp()
		w.startUp()
		w.join("bob")
		c := w.skeptic()
		c.mustAsk(kt.Query{Username: "bob"})
		w.shut()
		right := w.backUp()
		w.putBack(old) // the guard, too: nothing here remembers bob
		w.startUp()
		if err := w.engine.SigningStopped(); err != nil {
			t.Fatalf("before anybody came: %v", err)
		}
		w.skeptic().mustAsk(kt.Query{Username: "alice"})
		_, err := c.ask(kt.Query{Username: "alice"})
		wantReason(t, err, pb.Reason_SIGNING_STOPPED)
		w.stillServes(t, "carol")
		if note, err := w.fs.Open(w.fs.PathJoin(w.dir, "guard.evidence")); err != nil {
			t.Errorf("the client's note was not kept: %v", err)
		} else {
			w.check(note.Close())
		}
		w.shut()
		w.startUp()
		w.stillServes(t, "dave") // a restart forgets nothing
		w.shut()
		w.putBack(right, "guard.evidence")
		w.startUp()
		c.mustAsk(kt.Query{Username: "bob"})
	})
}

func TestOtherHistoryOfTheSameSize(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.join("alice")
		c := w.skeptic()
		head := c.mustAsk(kt.Query{}).Head
		other := head.Checkpoint
		other.Root[5] ^= 1
		note, err := kt.SignCheckpoint(other, w.key("log"))
		w.check(err)
		_, err = w.engine.ProofView(t.Context(), commands.Caller{}, &pb.ProofRequest{KnownNote: note})
		wantReason(t, err, pb.Reason_SIGNING_STOPPED)
		w.stillServes(t, "bob")
	})
}

func TestDamagedGuardStopsSigning(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.join("alice")
		w.shut()
		w.damageGuard()
		w.startUp()
		if err := w.engine.SigningStopped(); err == nil {
			t.Error("signing goes on with a damaged guard")
		}
	})
}

// damageGuard leaves no slot of the stopped server's guard whole.
func (w *world) damageGuard() {
	w.t.Helper()
	file, err := w.fs.OpenReadWrite(w.fs.PathJoin(w.dir, "guard"), vfs.WriteCategoryUnspecified)
	w.check(err)
	for _, at := range []int64{20, 4096 + 20} {
		_, err := file.WriteAt([]byte{0xff, 0xff, 0xff, 0xff}, at)
		w.check(err)
	}
	w.check(file.Close())
}

func TestAnotherKeyDoesNotSign(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.shut()
		right := w.keys["log"]
		w.keys["log"] = w.key("another")
		w.startUp()
		w.settle()
		if err := w.engine.SigningStopped(); err == nil || !strings.Contains(err.Error(), "another key") {
			t.Errorf("signing with a key that the log does not name: %v", err)
		}
		w.keys["log"] = right
	})
}

// The guard is durable before a signature is shown: whatever a crash leaves, it
// names what was shown last.
func TestGuardComesBeforeTheSignature(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		gate := &guardGate{FS: w.fs}
		w.shut()
		w.fs = gate
		w.startUp()
		w.settle()
		before := w.engine.Checkpoint()
		before.Release()
		gate.hold(true)
		w.join("alice") // does not wait for the signer
		w.settle()
		now := w.engine.Checkpoint()
		now.Release()
		if now.Size != before.Size {
			t.Errorf("a checkpoint of %d was shown before the guard was durable", now.Size)
		}
		done := make(chan error, 1)
		go func() { _, err := w.skeptic().ask(kt.Query{Username: "alice"}); done <- err }()
		w.settle()
		select {
		case err := <-done:
			t.Errorf("a proof did not wait for the guard: %v", err)
		default:
		}
		gate.hold(false)
		w.settle()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// guardGate holds syncs of the guard file back.
type guardGate struct {
	vfs.FS
	held chan struct{} // nil: open
}

func (g *guardGate) hold(on bool) {
	if on {
		g.held = make(chan struct{})
		return
	}
	close(g.held)
}

func (g *guardGate) Unwrap() vfs.FS { return g.FS }

func (g *guardGate) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.OpenReadWrite(name, c, o...)
	if err != nil || !strings.HasSuffix(name, "/guard") {
		return f, err
	}
	return &gatedGuard{f, g}, nil
}

type gatedGuard struct {
	vfs.File
	gate *guardGate
}

func (f *gatedGuard) SyncData() error {
	if f.gate.held != nil {
		<-f.gate.held
	}
	return f.File.SyncData()
}

// A guard that can't be written ends the process: what of it is durable is not
// known.
func TestFailingGuardIsFatal(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.shut()
		broken := &brokenGuard{FS: w.fs}
		w.fs = broken
		w.startUp()
		w.settle()
		broken.broken = true
		w.engine.Do(t.Context(), w.registration("alice", "alice", "alice/1"))
		w.settle()
		if err := w.engine.Err(); err == nil || !strings.Contains(err.Error(), "guard") {
			t.Errorf("failed with %v", err)
		}
		_ = w.engine.Stop(t.Context())
		w.check(w.log.Close())
		w.fs = broken.FS
		w.startUp()
		w.skeptic().mustAsk(kt.Query{})
	})
}

type brokenGuard struct {
	vfs.FS
	broken bool
}

func (g *brokenGuard) Unwrap() vfs.FS { return g.FS }

func (g *brokenGuard) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.OpenReadWrite(name, c, o...)
	if err != nil || !strings.HasSuffix(name, "/guard") {
		return f, err
	}
	return &unsyncable{f, g}, nil
}

type unsyncable struct {
	vfs.File
	fs *brokenGuard
}

func (f *unsyncable) SyncData() error {
	if f.fs.broken {
		return errors.New("the disk is gone")
	}
	return f.File.SyncData()
}
