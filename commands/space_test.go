package commands

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"google.golang.org/protobuf/proto"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

const MiB = 1 << 20

// diskOf sets how full a file system in memory says that it is, and lets the
// engine look.
func diskOf(mem *vfs.MemFS, free, total uint64) {
	mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: total, UsedBytes: total - free})
	time.Sleep(spaceEvery + time.Millisecond)
	synctest.Wait()
}

// onDisk runs a test in a bubble with an engine on a disk of so many bytes.
func onDisk(t *testing.T, free, total uint64, o Options, test func(t *testing.T, b *bed, mem *vfs.MemFS)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: total, UsedBytes: total - free})
		b := newBed(t, mem)
		b.close()
		if o.MinFree == 0 {
			o.MinFree = 8
		}
		b.open(o)
		defer b.close()
		synctest.Wait()
		test(t, b, mem)
	})
}

func TestReserve(t *testing.T) {
	for _, c := range []struct{ percent, total, want uint64 }{
		{8, 100 << 30, (100 << 30) / 100 * 8},
		{8, 125 << 30, 10 << 30},
		{8, 10 << 40, 10 << 30}, // a large disk needs no more
		{8, 1000, 80},
		{90, 100, 90},
	} {
		if got := reserve(c.percent, c.total); got != c.want {
			t.Errorf("%d %% of %d: %d, want %d", c.percent, c.total, got, c.want)
		}
	}
}

// Below the reserve only those pass that free space; the gate opens again a
// quarter above it, and each change is logged once.
func TestDiskFullGate(t *testing.T) {
	var logged strings.Builder
	o := Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	onDisk(t, 50*MiB, 100*MiB, o, func(t *testing.T, b *bed, mem *vfs.MemFS) {
		alice, bob := b.register(1), b.register(2)
		retried := sending(alice, bob, requestID(b.engine.Now(), 1), []byte("before"))
		first, err := b.engine.Do(t.Context(), retried)
		if err != nil {
			t.Fatal(err)
		}
		for _, free := range []uint64{8*MiB - 1, 0, 9 * MiB} { // 9 %: closed, but not yet open again
			diskOf(mem, free, 100*MiB)
			_, err := b.send(alice, bob, free+2, "refused")
			wantRefusal(t, err, pb.Status_Unavailable, pb.Reason_DISK_FULL)
			wantRefusal(t, b.engine.Ready(), pb.Status_Unavailable, pb.Reason_DISK_FULL)
			if s := b.engine.Space(); !s.Full || s.Free != free {
				t.Errorf("%d bytes are free: %+v", free, s)
			}
		}
		if again, err := b.engine.Do(t.Context(), retried); err != nil || again.(*pb.EnqueueResponse).String() != first.(*pb.EnqueueResponse).String() {
			t.Errorf("what was decided before is told as %v, %v", again, err)
		}
		ack := &Command{Method: 204, Auth: pb.Auth_SESSION, Token: bob.token, WorksWhenFull: true, Decide: ackFake(bob, 1)}
		if _, err := b.engine.Do(t.Context(), ack); err != nil || len(b.items(bob)) != 0 {
			t.Errorf("Ack on a full disk: %v, %d items", err, len(b.items(bob)))
		}
		diskOf(mem, 10*MiB, 100*MiB)
		b.mustSend(alice, bob, 100, "there is room again")
		if err := b.engine.Ready(); err != nil {
			t.Error(err)
		}
		diskOf(mem, 8*MiB, 100*MiB) // at the reserve, not below
		b.mustSend(alice, bob, 101, "still")
	})
	for _, line := range []string{"the disk is nearly full", "the disk has room again"} {
		if n := strings.Count(logged.String(), line); n != 1 {
			t.Errorf("%q was logged %d times:\n%s", line, n, &logged)
		}
	}
}

// The gate is where it belongs before the first command, and nobody watches
// when nobody asked for it.
func TestDiskFullAtStart(t *testing.T) {
	onDisk(t, 5*MiB, 100*MiB, Options{}, func(t *testing.T, b *bed, mem *vfs.MemFS) {
		_, err := b.engine.Do(t.Context(), &Command{Method: 101, Auth: pb.Auth_NONE, Decide: nothing})
		wantRefusal(t, err, pb.Status_Unavailable, pb.Reason_DISK_FULL)
		if _, err := mem.Stat(bedDir + "/" + BallastFile); err == nil {
			t.Error("a ballast was made on a full disk")
		}
		b.close()
		b.open(Options{}) // --min-free 0
		b.register(1)
		if s := b.engine.Space(); s != (Space{}) {
			t.Errorf("%+v", s)
		}
	})
}

// On a full disk what expires goes, and snapshots, which take room, wait.
func TestFullDiskIsCleaned(t *testing.T) {
	onDisk(t, 50*MiB, 100*MiB, Options{SnapshotEvery: 1}, func(t *testing.T, b *bed, mem *vfs.MemFS) {
		alice, bob := b.register(1), b.register(2)
		const ttl = 5 * time.Minute // short: each second of it the disk is looked at
		_, err := b.do(alice.token, pb.Auth_SESSION, func(tx *Tx) (proto.Message, error) {
			return sendFakeFor(tx, bob, []byte("expires soon"), uint64(ttl.Milliseconds()))
		})
		if err != nil {
			t.Fatal(err)
		}
		diskOf(mem, 1*MiB, 100*MiB)
		time.Sleep(2 * snapshotCheckEvery)
		if sizes, err := projections.ListSnapshots(mem, bedDir); err != nil || len(sizes) > 0 {
			t.Errorf("snapshots on a full disk: %v, %v", sizes, err)
		}
		time.Sleep(ttl + 2*housekeepingEvery)
		if n := len(b.items(bob)); n != 0 {
			t.Errorf("%d expired messages take room on a full disk", n)
		}
		diskOf(mem, 50*MiB, 100*MiB)
		time.Sleep(2 * snapshotCheckEvery)
		if sizes, err := projections.ListSnapshots(mem, bedDir); err != nil || len(sizes) == 0 {
			t.Errorf("no snapshot when there is room again: %v", err)
		}
	})
}

// The ballast is a hundredth of a small disk, of bytes that take room; a half one
// is made anew.
func TestBallast(t *testing.T) {
	onDisk(t, 11*MiB, 100*MiB, Options{}, func(t *testing.T, b *bed, mem *vfs.MemFS) {
		path := bedDir + "/" + BallastFile
		check := func(when string) {
			t.Helper()
			info, err := mem.Stat(path)
			if err != nil || info.Size() != MiB || b.engine.Space().Ballast != MiB {
				t.Fatalf("%s: %v, %v, %+v", when, info, err, b.engine.Space())
			}
		}
		check("start")
		f, err := mem.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil || strings.Count(string(content), "\x00") > MiB/128 {
			t.Errorf("the ballast can be compressed: %v", err)
		}
		b.close()
		half, err := mem.Create(path, "")
		if err != nil {
			t.Fatal(err)
		}
		half.Write(make([]byte, MiB/2))
		half.Close()
		b.open(Options{MinFree: 8})
		synctest.Wait()
		check("after a half one")
		b.close()
		mem.Remove(path)
		mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 11*MiB - 1, TotalBytes: 100 * MiB})
		b.open(Options{MinFree: 8})
		synctest.Wait()
		if _, err := mem.Stat(path); err == nil {
			t.Error("the ballast was made where it closes the gate")
		}
		diskOf(mem, 11*MiB, 100*MiB)
		check("when there is room")
	})
}

// A write that finds the disk full ends the engine and gives the ballast's room
// back; other failures leave it.
func TestBallastGoesWithoutSpace(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		t.Run(cause.Error(), func(t *testing.T) {
			mem := vfs.NewMem()
			mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 50 * MiB, TotalBytes: 100 * MiB})
			var on atomic.Bool
			b := newBed(t, errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if on.Load() && isWAL(op.Path) && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
					return fmt.Errorf("write %s: %w", op.Path, cause)
				}
				return nil
			})))
			b.close()
			b.open(Options{MinFree: 8})
			defer b.close()
			for b.engine.Space().Ballast == 0 {
				time.Sleep(time.Millisecond)
			}
			alice, bob := b.register(1), b.register(2)
			on.Store(true)
			_, err := b.send(alice, bob, 1, "x")
			wantRefusal(t, err, pb.Status_Unavailable, pb.Reason_STORAGE)
			<-b.engine.Failed()
			if !errors.Is(b.engine.Err(), cause) {
				t.Errorf("cause: %v", b.engine.Err())
			}
			_, err = mem.Stat(bedDir + "/" + BallastFile)
			if gone := errors.Is(err, fs.ErrNotExist); gone != (cause == syscall.ENOSPC) {
				t.Errorf("after %v the ballast is gone: %v", cause, gone)
			}
			on.Store(false)
		})
	}
}

// A start on a disk with less room than the ballast holds takes it.
func TestMakeRoom(t *testing.T) {
	mem := vfs.NewMem()
	if released, err := MakeRoom(mem, "/"); released || err != nil {
		t.Errorf("no disk: %v, %v", released, err)
	}
	if err := makeBallast(mem, "/", MiB); err != nil {
		t.Fatal(err)
	}
	for _, free := range []uint64{MiB, MiB - 1, 0} {
		mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 100 * MiB})
		released, err := MakeRoom(mem, "/")
		if err != nil || released != (free == MiB-1) {
			t.Errorf("%d bytes are free: %v, %v", free, released, err)
		}
	}
}

// While a sync hangs longer than the deadline, later commands are refused at
// once and are not executed; when it returns, all goes on.
func TestHangingSyncRefusesLaterCommands(t *testing.T) {
	for name, match := range map[string]func(string) bool{"log": isWAL, "anchor": isAnchor} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := newGateFS(vfs.NewMem(), match)
				b := newBed(t, gate)
				defer b.close()
				alice, bob := b.register(1), b.register(2)
				gate.set(true)
				var r replies
				r.start("hangs", func() error { _, err := b.send(alice, bob, 1, "x"); return err })
				time.Sleep((commitDeadlineTicks - 1) * spaceEvery)
				if err := b.engine.Ready(); err != nil {
					t.Errorf("refused too early: %v", err)
				}
				time.Sleep(3 * spaceEvery)
				_, err := b.send(alice, bob, 2, "y")
				wantRefusal(t, err, pb.Status_Unavailable, pb.Reason_OVERLOADED)
				wantRefusal(t, b.engine.Ready(), pb.Status_Unavailable, pb.Reason_OVERLOADED)
				if got := r.list(); len(got) > 0 {
					t.Errorf("answered without a sync: %v", got)
				}
				gate.set(false)
				if err := r.wait(1)["hangs"]; err != nil {
					t.Errorf("the one that hung: %v", err)
				}
				time.Sleep(2 * spaceEvery)
				b.mustSend(alice, bob, 3, "goes on")
				if n := len(b.items(bob)); n != 2 {
					t.Errorf("%d messages, want 2: the refused one was executed", n)
				}
			})
		})
	}
}

// What people acknowledge on a full disk gives its room back, although nothing
// new comes in.
func TestFullDiskIsReclaimed(t *testing.T) {
	onDisk(t, 50*MiB, 100*MiB, Options{}, func(t *testing.T, b *bed, mem *vfs.MemFS) {
		stored := func() (sum int64) {
			names, err := mem.List(bedDir + "/log")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				if info, err := mem.Stat(bedDir + "/log/" + name); err == nil && strings.HasSuffix(name, ".sst") {
					sum += info.Size()
				}
			}
			return sum
		}
		alice, bob := b.register(1), b.register(2)
		for i := range 100 {
			b.mustSend(alice, bob, uint64(i), fmt.Sprint(i)+strings.Repeat("x", 50_000))
		}
		diskOf(mem, 7*MiB, 100*MiB)
		time.Sleep(2 * reclaimEvery)
		before := stored()
		if before < 100*50_000 {
			t.Fatalf("%d bytes of messages are in tables", before)
		}
		ack := &Command{Method: 204, Auth: pb.Auth_SESSION, Token: bob.token, WorksWhenFull: true, Decide: ackFake(bob, 90)}
		if _, err := b.engine.Do(t.Context(), ack); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * reclaimEvery)
		if after := stored(); after > before/5 {
			t.Errorf("%d bytes before 90 of 100 messages were acknowledged, %d after", before, after)
		}
		if n := len(b.items(bob)); n != 10 {
			t.Errorf("%d messages are left", n)
		}
	})
}
