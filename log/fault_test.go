package log

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quicprochat/kt"
)

func leafHash(i uint64) kt.Hash { return kt.LeafHash(testRecord(i).Leaf) }

// cutBefore wraps a disk so that take is called once, before the n-th operation that writes.
func cutBefore(fs vfs.FS, n int, take func()) vfs.FS {
	var mu sync.Mutex
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			mu.Lock()
			defer mu.Unlock()
			if n--; n == -1 {
				take()
			}
		}
		return nil
	}))
}

// A power cut in the middle of Create leaves a log that opens whole, or one that does not open.
func TestPowerLossDuringCreate(t *testing.T) {
	rng := seeded(t)
	for n := range 1000 {
		fs := newCrashDisk(t)
		var after *vfs.MemFS
		cut := cutBefore(fs, n, func() {
			after = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(rng.Uint64(), 1))})
		})
		if err := Create(cut, testDir, testStore, testRecord(0)); err != nil {
			t.Fatal(err)
		}
		if after == nil {
			if n < 20 {
				t.Fatalf("Create did only %d operations", n)
			}
			return // every operation had its turn
		}
		l, err := Open(after, testDir, testOptions())
		if err != nil {
			continue
		}
		checkRecords(t, l, 0, 1, nil)
		mustClose(t, l)
	}
	t.Error("Create did not come to an end")
}

// fault makes the n-th operation that writes fail, counted from when it is armed, and, when sticky, all that follow.
type fault struct {
	mu     sync.Mutex
	armed  bool
	n      int
	sticky bool
	err    error
	hit    bool
}

func (f *fault) inject(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.armed {
		return nil
	}
	f.n--
	if f.n == -1 || (f.n < -1 && f.sticky) {
		f.hit = true
		return f.err
	}
	return nil
}

// wasHit tells whether an operation failed; the store's own goroutines may still run.
func (f *fault) wasHit() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hit
}

func (f *fault) arm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = true
}

// Whatever write fails, and however: what was acknowledged before is there after a restart, a failed log takes
// nothing more, and nothing hangs or panics.
func TestEveryWriteFails(t *testing.T) {
	rng, step := seeded(t), stride(8, 1)
	for _, c := range []struct {
		name   string
		sticky bool
		err    error
	}{
		{"EIO once", false, syscall.EIO},
		{"EIO for good", true, syscall.EIO},
		{"ENOSPC for good", true, syscall.ENOSPC},
	} {
		t.Run(c.name, func(t *testing.T) {
			for n := rng.IntN(step); ; n += 1 + rng.IntN(2*step-1) {
				fs := newCrashDisk(t)
				createLog(t, fs)
				f := &fault{n: n, sticky: c.sticky, err: c.err}
				acked, committed := runUntilFailure(t, errorfs.Wrap(fs, errorfs.InjectorFunc(f.inject)), f.arm)
				checkAcked(t, fs, n, acked, committed, "process end")
				checkAcked(t, fs.CrashClone(vfs.CrashCloneCfg{}), n, acked, committed, "power cut")
				if !f.wasHit() {
					if n < 20 {
						t.Fatalf("only %d operations", n)
					}
					return
				}
			}
		})
	}
}

// runUntilFailure commits groups and anchors until an error; it gives what was acknowledged and what was committed.
func runUntilFailure(t *testing.T, fs vfs.FS, arm func()) (acked, committed uint64) {
	t.Helper()
	acked, committed = 1, 1
	l := openLog(t, fs)
	defer l.Close() // it may report the failure
	arm()
	for step := range 8 {
		g := l.NewGroup()
		for range 70 {
			g.Append(testRecord(g.Next()))
		}
		committed = g.Next()
		p, err := g.Commit()
		if err == nil {
			err = p.Wait()
		}
		if err == nil {
			acked = p.Size()
			err = l.WriteAnchor(p.Size(), p.Root())
		}
		if err == nil && step == 4 {
			err = l.store.flush()
		}
		if err != nil {
			checkFailed(t, l, err)
			return
		}
		committed = acked
	}
	return
}

func checkFailed(t *testing.T, l *Log, err error) {
	t.Helper()
	if !errors.Is(err, ErrFailed) || !errors.Is(l.Err(), ErrFailed) {
		t.Fatalf("a failed write gave %v; the log says %v", err, l.Err())
	}
	select {
	case <-l.Failed():
	default:
		t.Fatal("Failed is not closed")
	}
	g := l.NewGroup()
	g.Append(testRecord(g.Next()))
	if _, err := g.Commit(); !errors.Is(err, ErrFailed) {
		t.Fatalf("commit to a failed log: %v", err)
	}
	if _, err := l.Erase(t.Context(), []uint64{0}); !errors.Is(err, ErrFailed) {
		t.Fatalf("erasure in a failed log: %v", err)
	}
	if size, root := l.Anchored(); l.WriteAnchor(size, root) == nil {
		t.Fatal("a failed log is anchored")
	}
}

func checkAcked(t *testing.T, fs vfs.FS, n int, acked, committed uint64, after string) {
	t.Helper()
	l, err := Open(fs, testDir, testOptions())
	if err != nil {
		t.Fatalf("operation %d failed, then %s: %v", n, after, err)
	}
	defer mustClose(t, l)
	if l.Size() < acked || l.Size() > committed {
		t.Fatalf("operation %d failed, then %s: %d records, %d acknowledged, %d committed", n, after, l.Size(), acked, committed)
	}
	checkRecords(t, l, 0, l.Size(), nil)
}

// A disk that fails while the log is opened gives an error, however it fails, and the next start finds everything.
// Pebble cannot be stopped while it retries its first flush, so this runs in a process of its own.
func TestOpenFails(t *testing.T) {
	if !leakProcess() {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOpenFails$", "-test.v", fmt.Sprintf("-seed=%d", *seedFlag))
		cmd.Env = append(os.Environ(), leakVariable+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	rng, step := seeded(t), stride(4, 1)
	for _, sticky := range []bool{false, true} {
		for n := rng.IntN(step); ; n += 1 + rng.IntN(2*step-1) {
			fs := newCrashDisk(t)
			createLog(t, fs)
			l := openLog(t, fs)
			appendRecords(t, l, 50)
			fs = fs.CrashClone(vfs.CrashCloneCfg{}) // so that there is something to recover, flush and anchor
			f := &fault{n: n, sticky: sticky, err: syscall.ENOSPC, armed: true}
			l, err := Open(errorfs.Wrap(fs, errorfs.InjectorFunc(f.inject)), testDir, testOptions())
			if err == nil {
				l.Close()
			} else if !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
				t.Fatalf("operation %d: %v does not say why", n, err)
			}
			checkAcked(t, fs.CrashClone(vfs.CrashCloneCfg{}), n, 51, 51, "power cut")
			if !f.wasHit() {
				if n < 10 {
					t.Fatalf("only %d operations", n)
				}
				break
			}
		}
	}
}
