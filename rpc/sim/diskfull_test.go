package sim

import (
	"errors"
	"io/fs"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/server"
)

// fullWorld is a world with two people whose server's disk fills up.
type fullWorld struct {
	*World
	t *testing.T
}

const diskSize = 100 << 20

// free sets how much of the disk is free and lets the server look.
func (w *fullWorld) free(bytes uint64) {
	w.disk.fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: bytes, TotalBytes: diskSize, UsedBytes: diskSize - bytes})
	time.Sleep(2 * time.Second)
}

// send has the first person send to the second one, and wants an outcome.
func (w *fullWorld) send(want Outcome) {
	w.t.Helper()
	w.People[0].sendOne(w.t.Context(), w.People[1])
	if got := w.History.sent[len(w.History.sent)-1].Outcome; got != want {
		w.t.Fatalf("outcome %v, want %v\n%s", got, want, w.logs)
	}
}

func (w *fullWorld) refused() {
	w.t.Helper()
	w.send(Refused)
	_, err := w.People[0].client.Enqueue(w.t.Context(), &pb.EnqueueRequest{
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: slice(w.People[1].IdentityKey())}, Payload: []byte("x"),
	})
	if client.ReasonOf(err) != pb.Reason_DISK_FULL {
		w.t.Fatalf("refused with %v", err)
	}
}

// emptied has the second person log in, fetch and acknowledge everything.
func (w *fullWorld) emptied() {
	w.t.Helper()
	bob := w.People[1]
	bob.client.SetSession(client.Session{})
	if !bob.ready(w.t.Context()) {
		w.t.Fatalf("no login on a full disk: %v", bob.lastError)
	}
	before := w.History.promises()
	bob.ack(w.t.Context())
	if w.History.promises() == before {
		w.t.Fatal("no acknowledgement on a full disk")
	}
	if err := bob.collect(w.t.Context()); err != nil {
		w.t.Fatalf("no mail on a full disk: %v", err)
	}
}

func (w *fullWorld) hasBallast() bool {
	_, err := w.disk.fs.Stat(DataDir + "/" + commands.BallastFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
	return err == nil
}

// A disk fills up under a whole server: nothing new is taken, people empty their
// queues, and when there is room again all goes on. Then it fills to the last
// byte: the server ends, the ballast's room lets it start again, and people can
// empty their queues once more.
func TestDiskFillsUp(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	synctest.Test(t, func(t *testing.T) {
		w := &fullWorld{NewWorld(1), t}
		w.plan = plan{people: 2, limits: server.LimitsOff}
		w.People = w.People[:2]
		w.MinFree = 8
		var full atomic.Bool // to the last byte, but for the ballast
		w.Prepare = func(_ int, d *Disk) {
			d.fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: diskSize / 2, TotalBytes: diskSize})
			d.Fail = func(_ int, op errorfs.Op) error {
				if op.Kind == errorfs.OpRemove && within(op.Path, commands.BallastFile) {
					full.Store(false)
				}
				if op.Kind == errorfs.OpFileWrite && full.Load() {
					return syscall.ENOSPC
				}
				return nil
			}
		}
		if err := w.start(nil, false); err != nil {
			t.Fatal(err)
		}
		for _, p := range w.People {
			enter(p)(t.Context())
		}
		for range 3 {
			w.send(Done)
		}
		w.free(diskSize * 5 / 100)
		w.refused()
		w.emptied()
		w.refused()
		w.free(diskSize / 2)
		w.send(Done)
		w.send(Done)
		if !w.hasBallast() {
			t.Fatal("no ballast")
		}

		full.Store(true)
		began := time.Now()
		w.People[0].sendOne(t.Context(), w.People[1]) // tries again for a while
		if got := w.History.sent[len(w.History.sent)-1].Outcome; got != Unknown {
			t.Fatalf("outcome %v on a disk without a byte left", got)
		}
		select {
		case <-w.node.Failed():
		case <-time.After(failBound):
			t.Fatalf("the node has not failed %v after the write", time.Since(began))
		}
		if w.hasBallast() {
			t.Fatalf("the ballast is still there\n%s", w.logs)
		}
		end := ending{fs: w.disk.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: w.rng})}
		w.Net.Vanish(serverAddr)
		w.probe.dead.Store(true)
		w.bury(end)

		w.Prepare = func(_ int, d *Disk) {
			d.fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: diskSize / 100, TotalBytes: diskSize})
		}
		if err := w.start(end.fs, false); err != nil {
			t.Fatalf("start in the ballast's room: %v\n%s", err, w.logs)
		}
		for range 10 { // until the old connection is given up
			w.People[0].peek(t.Context())
		}
		w.emptied()
		w.refused()
		w.free(diskSize / 2)
		w.send(Done)
		if time.Sleep(2 * time.Second); !w.hasBallast() {
			t.Error("the ballast was not made again")
		}
		if err := w.settle(); err != nil {
			t.Error(err)
		}
		for _, p := range w.People {
			p.client.Close()
		}
		if err := w.stop(); err != nil {
			t.Error(err)
		}
		w.ghosts.Wait()
		if err := w.check(); err != nil {
			t.Errorf("%v\n%s", err, w.logs)
		}
	})
}
