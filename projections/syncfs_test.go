package projections

import (
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestSyncMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newSyncMark(10)
		if err := m.wait(10); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- m.wait(12) }()
		synctest.Wait()
		m.raise(11)
		m.raise(3) // never back
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("did not wait for 12: %v", err)
		default:
		}
		m.raise(12)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		broken := errors.New("disk gone")
		go func() { done <- m.wait(13) }()
		synctest.Wait()
		m.fail(broken)
		m.fail(errors.New("later"))
		if err := <-done; err != broken {
			t.Errorf("waiting: %v", err)
		}
		if err := m.wait(99); err != broken {
			t.Errorf("after the failure: %v", err)
		}
		if err := m.wait(12); err != nil {
			t.Errorf("what was durable before: %v", err)
		}
	})
}

// TestTableFilesWaitForTheLog: a table holds what was applied when it was
// begun, and its sync waits for that much of the log and no more.
func TestTableFilesWaitForTheLog(t *testing.T) {
	mark := newSyncMark(5)
	fs := &syncFS{FS: vfs.NewMem(), mark: mark}
	create := func(name string) vfs.File {
		t.Helper()
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	mark.applying(7)
	table, values, manifest := create("000004.sst"), create("000005.blob"), create("MANIFEST-000001")
	mark.applying(9)
	if err := manifest.Sync(); err != nil {
		t.Errorf("bookkeeping: %v", err)
	}
	synced := make(chan error, 2)
	go func() { synced <- errors.Join(table.Sync(), values.SyncData()) }()
	mark.raise(6)
	select {
	case <-synced:
		t.Error("the table was synced before the log")
	default:
	}
	mark.raise(7) // not 9
	if err := <-synced; err != nil {
		t.Error(err)
	}
	late := create("000006.sst")
	broken := errors.New("disk gone")
	mark.fail(broken)
	if err := errors.Join(late.Sync(), late.SyncData()); !errors.Is(err, broken) {
		t.Errorf("after a failure: %v", err)
	}
	for _, f := range []vfs.File{table, values, manifest, late} {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if fs.Unwrap() != fs.FS {
		t.Error("Unwrap gives something else")
	}
}

// TestFlushWaitsForTheLog on a real store.
func TestFlushWaitsForTheLog(t *testing.T) {
	w := storyWorld(t)
	if w.views.Unflushed() != uint64(len(w.entries)) {
		t.Errorf("%d events unflushed, want %d", w.views.Unflushed(), len(w.entries))
	}
	if rows := w.views.UnflushedRows(); rows < w.views.Unflushed() {
		t.Errorf("%d rows unflushed of %d events", rows, w.views.Unflushed())
	}
	w.views.MarkSynced(uint64(len(w.entries)) - 1)
	done, err := w.views.Flush()
	if err != nil {
		t.Fatal(err)
	}
	if rows := w.views.UnflushedRows(); rows != 0 {
		t.Errorf("%d rows unflushed behind a flush", rows)
	}
	// Writing and reading go on meanwhile.
	w.now++
	seq := w.send(1000, "alice", "bob")
	w.commit()
	if q := w.queue("bob"); q.Tail() != seq || w.views.Unflushed() != 1 {
		t.Errorf("queue %+v, %d events unflushed, want 1", q, w.views.Unflushed())
	}
	w.commit()
	select {
	case <-done:
		t.Fatal("the views were durable before the log")
	default:
	}
	w.views.MarkSynced(uint64(len(w.entries)))
	<-done
	w.close()
}

// TestAFailedLogEndsTheWait: nothing hangs, the failure is reported once, and
// the next start finds views that are not ahead.
func TestAFailedLogEndsTheWait(t *testing.T) {
	w := storyWorld(t)
	w.views.MarkSynced(3)
	reported := make(chan error, 9)
	w.views.onError = func(err error) { reported <- err }
	if _, err := w.views.Flush(); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("disk gone")
	w.views.Fail(broken)
	if err := <-reported; !errors.Is(err, broken) {
		t.Errorf("reported: %v", err)
	}
	if err := w.views.Close(); err != nil {
		t.Error(err)
	}
	if len(reported) != 0 {
		t.Errorf("reported again: %v", <-reported)
	}
	v, why, err := OpenOrRecreate(w.fs, "data", Options{LogSize: 3})
	if err != nil || why != nil || v.Cursor() > 3 {
		t.Fatalf("next start: %v, %v", why, err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// TestPowerCut lets the power fail at many moments: unsynced writes survive or
// not, by chance, and the views are never ahead of what was synced of the log.
// Those that survive are brought to the end and equal to all others.
func TestPowerCut(t *testing.T) {
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, seed))
	story := storyWorld(t)
	want := story.digest()
	story.close()
	kept := 0
	for run := range 30 {
		fs := vfs.NewCrashableMem()
		if err := fs.MkdirAll("data", 0o700); err != nil {
			t.Fatal(err)
		}
		v, err := DropAndRecreate(fs, "data", Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(syncDir(fs, "data"), syncDir(fs, "/")); err != nil {
			t.Fatal(err)
		}
		cut, clone := rng.IntN(len(story.entries)), (*vfs.MemFS)(nil)
		synced := uint64(0)
		for i := 0; i < len(story.entries) && clone == nil; {
			b := v.NewBatch()
			for range 1 + rng.IntN(9) {
				if i < len(story.entries) {
					if err := Apply(b, reread(t, story.entries[i])); err != nil {
						t.Fatalf("seed %d run %d: %v", seed, run, err)
					}
					i++
				}
			}
			if err := b.Commit(); err != nil {
				t.Fatal(err)
			}
			synced = max(synced, uint64(rng.IntN(i+1)))
			if wait := rng.IntN(4) == 0; wait || rng.IntN(3) == 0 {
				if wait {
					synced = uint64(i)
				}
				v.MarkSynced(synced)
				done, err := v.Flush()
				if err != nil {
					t.Fatal(err)
				}
				if wait {
					<-done
				}
			}
			v.MarkSynced(synced)
			if i >= cut {
				clone = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 25 * rng.IntN(5), RNG: rand.New(rand.NewPCG(seed, uint64(run)))})
			}
		}
		v.Fail(errors.New("the power is gone"))
		_ = v.Close()
		after, err := Open(clone, "data", Options{LogSize: synced})
		var rebuild *RebuildError
		if errors.As(err, &rebuild) && rebuild.Reason == Ahead {
			t.Fatalf("seed %d run %d: the views are at %d, the log at %d", seed, run, rebuild.Cursor, synced)
		}
		if err != nil {
			t.Fatalf("seed %d run %d: %v", seed, run, err)
		}
		if after.Cursor() > 0 {
			kept++
		}
		story.replayInto(after, after.Cursor(), 10)
		if got := digestOf(t, after); got != want {
			t.Fatalf("seed %d run %d: another digest after the replay", seed, run)
		}
		if err := after.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if kept == 0 {
		t.Error("no run kept anything: the test shows nothing")
	}
}
