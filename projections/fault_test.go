package projections

import (
	"errors"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	pb "quicprochat/proto/qpcv1"
)

// faultVariable is set for the process that suffers: an opening that fails in the
// middle leaves goroutines of Pebble's behind.
const faultVariable = "QPC_VIEWS_FAULTS"

// Whichever write of the views fails, once or for good: nothing panics, nothing
// hangs, somebody is told, and the next start has good views.
func TestEveryViewsWriteFails(t *testing.T) {
	if os.Getenv(faultVariable) == "" {
		command := exec.Command(os.Args[0], "-test.run=^TestEveryViewsWriteFails$", "-test.timeout=2m")
		command.Env = append(os.Environ(), faultVariable+"=1")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for _, sticky := range []bool{false, true} {
		for n := int64(1); suffer(t, n, sticky); n++ {
			if n > 500 {
				t.Fatal("it does not come to an end")
			}
		}
	}
	os.Exit(0) // without a look for goroutines
}

// suffer builds, fills, flushes and closes views on a disk whose n-th write fails;
// false when there are not so many.
func suffer(t *testing.T, n int64, sticky bool) (hit bool) {
	t.Helper()
	mem := vfs.NewMem()
	var ops atomic.Int64
	var off, met atomic.Bool
	disk := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || off.Load() {
			return nil
		}
		if at := ops.Add(1); at == n || at > n && sticky {
			met.Store(true)
			return syscall.EIO
		}
		return nil
	}))
	told := make(chan error, 1)
	v, _, err := OpenOrRecreate(disk, "data", Options{OnError: func(err error) { told <- err }})
	if err == nil {
		w := &world{t: t, fs: disk, views: v, now: testStart}
		w.do(&pb.ServerConfigured{Config: testConfig()})
		w.register("alice", "bob")
		w.commit()
		v.MarkSynced(uint64(len(w.entries)))
		done, flushErr := v.Flush()
		if flushErr == nil {
			select {
			case <-done:
			case err = <-told:
			case <-time.After(time.Minute):
				t.Fatalf("write %d failed: the flush neither ended nor failed", n)
			}
		}
		err = errors.Join(err, flushErr, v.Close())
	}
	if err != nil && !errors.Is(err, syscall.EIO) {
		t.Fatalf("write %d failed: %v does not say why", n, err)
	}
	off.Store(true)
	again, _, err := OpenOrRecreate(mem, "data", Options{LogSize: 100})
	if err != nil {
		t.Fatalf("write %d failed, then a start: %v", n, err)
	}
	if err := again.Close(); err != nil {
		t.Fatalf("write %d failed, then a start and a stop: %v", n, err)
	}
	return met.Load()
}
