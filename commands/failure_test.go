package commands

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	pb "quicprochat/proto/qpcv1"
)

var errInjected = errors.New("injected: the disk is gone")

// failingFS makes syncs (and writes) of matching files fail while on.
func failingFS(fs vfs.FS, on *atomic.Bool, match func(string) bool) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpCreate:
			if on.Load() && match(op.Path) {
				return errInjected
			}
		}
		return nil
	}))
}

func isViews(name string) bool { return strings.HasPrefix(name, bedDir+"/views/") }

// After a failed commit of unknown outcome nothing is acknowledged any more,
// and a restart recovers all that was.
func TestNothingIsAcknowledgedAfterAFailure(t *testing.T) {
	for name, match := range map[string]func(string) bool{"log": isWAL, "anchor": isAnchor, "views": isViews} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			var on atomic.Bool
			b := newBed(t, failingFS(mem, &on, match))
			alice, bob := b.register(1), b.register(2)
			var mu sync.Mutex
			acked := make(map[string]bool)
			var wg sync.WaitGroup
			var late atomic.Int32
			for w := range 8 {
				wg.Go(func() {
					for i := 0; ; i++ {
						failed := b.engine.Err() != nil
						id, err := b.send(alice, bob, uint64(w<<20+i), "x")
						if err != nil {
							wantRefusal(t, err, pb.Status_Unavailable, pb.Reason_STORAGE)
							return
						}
						if failed {
							late.Add(1)
						}
						mu.Lock()
						acked[string(id)] = true
						mu.Unlock()
					}
				})
			}
			time.Sleep(50 * time.Millisecond)
			on.Store(true)
			if name == "views" {
				b.engine.flushViews() // the views notice only when they flush
			}
			select {
			case <-b.engine.Failed():
			case <-time.After(time.Minute):
				t.Fatal("the engine did not fail")
			}
			wg.Wait()
			if late.Load() > 0 {
				t.Errorf("%d commands were acknowledged after the failure", late.Load())
			}
			if !errors.Is(b.engine.Err(), errInjected) && name != "log" { // Pebble hides the cause of a log failure
				t.Errorf("cause: %v", b.engine.Err())
			}
			crashed := mem.CrashClone(vfs.CrashCloneCfg{})
			b.close()
			on.Store(false)

			again := &bed{t: t, fs: crashed, vrf: b.vrf}
			again.open(Options{})
			defer again.close()
			for _, item := range again.items(bob) {
				delete(acked, string(item.MessageID[:]))
			}
			if len(acked) > 0 {
				t.Errorf("%d acknowledged messages are lost", len(acked))
			}
			again.mustSend(alice, bob, 1<<40, "goes on")
		})
	}
}

// expiring is a context whose deadline comes when expired is closed.
type expiring struct {
	context.Context
	expired chan struct{}
}

func (e expiring) Done() <-chan struct{} { return e.expired }

func (e expiring) Err() error {
	select {
	case <-e.expired:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// A disk that hangs holds back answers, and callers get the truth at their
// deadline; a stop waits with them.
func TestHangingDisk(t *testing.T) {
	gate := newGateFS(vfs.NewMem(), isWAL)
	b := newBed(t, gate)
	alice, bob := b.register(1), b.register(2)
	gate.set(true)
	ctx := expiring{t.Context(), make(chan struct{})}
	go func() {
		gate.waitHeld(1) // the message is decided
		close(ctx.expired)
	}()
	_, err := b.engine.Do(ctx, sending(alice, bob, requestID(b.engine.Now(), 1), []byte("x")))
	wantRefusal(t, err, pb.Status_DeadlineExceeded, pb.Reason_DEADLINE)
	if r := AsRefusal(err); r == nil || !strings.Contains(r.Message, "unknown") {
		t.Errorf("%v does not say that the outcome is unknown", err)
	}
	if err := b.engine.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop: %v", err)
	}
	gate.set(false)
	b.close()
	b.open(Options{})
	defer b.close()
	if n := len(b.items(bob)); n != 1 {
		t.Errorf("%d messages, want the one whose sender gave up", n)
	}
}
