package commands

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/kt"
	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// busyBed is a data directory with people, messages and receipts in it.
func busyBed(t *testing.T, fs vfs.FS) (b *bed, alice, bob persona) {
	b = newBed(t, fs)
	alice, bob = b.register(1), b.register(2)
	for i := range 40 {
		b.mustSend(alice, bob, uint64(i), "message")
	}
	if _, err := b.do(bob.token, pb.Auth_SESSION, ackFake(bob, 10)); err != nil {
		t.Fatal(err)
	}
	return b, alice, bob
}

func (b *bed) dropViews() {
	b.t.Helper()
	if err := b.fs.RemoveAll(bedDir + "/views"); err != nil {
		b.t.Fatal(err)
	}
}

func TestViewsAreOnlyACache(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, b *bed){
		"untouched": func(*testing.T, *bed) {},
		"deleted":   func(t *testing.T, b *bed) { b.dropViews() },
		"damaged": func(t *testing.T, b *bed) {
			names, err := b.fs.List(bedDir + "/views")
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range names {
				if strings.HasPrefix(n, "MANIFEST") || strings.HasSuffix(n, ".sst") {
					overwrite(t, b.fs, bedDir+"/views/"+n, bytes.Repeat([]byte{0xa5}, 4096))
				}
			}
		},
		"behind": func(t *testing.T, b *bed) {
			// Views of an earlier moment, as after a crash before their flush.
			if err := b.fs.RemoveAll(bedDir + "/views"); err != nil {
				t.Fatal(err)
			}
			if _, err := vfs.Clone(b.fs, b.fs, "early", bedDir+"/views"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			b := newBed(t, fs)
			b.register(7)
			b.close()
			if _, err := vfs.Clone(fs, fs, bedDir+"/views", "early"); err != nil {
				t.Fatal(err)
			}
			b.open(Options{})
			alice, bob := b.register(1), b.register(2)
			for i := range 30 {
				b.mustSend(alice, bob, uint64(i), "message")
			}
			digest, size := b.digest(), b.log.Size()
			b.close()
			harm(t, b)
			b.open(Options{})
			defer b.close()
			if err := b.sameViews(size, digest); err != nil {
				t.Error(err)
			}
			b.mustSend(alice, bob, 99, "goes on")
		})
	}
}

func overwrite(t *testing.T, fs vfs.FS, name string, data []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// Views ahead of the log (the log was put back from a backup, say) are dropped,
// and so are snapshots that the log does not reach.
func TestViewsAheadOfTheLogAreDropped(t *testing.T) {
	fs := vfs.NewMem()
	b, alice, bob := busyBed(t, fs)
	digest, size := b.digest(), b.log.Size()
	b.close()
	for _, name := range []string{"log", "anchor"} {
		if _, err := vfs.Clone(fs, fs, bedDir+"/"+name, "backup-"+name); err != nil {
			t.Fatal(err)
		}
	}
	b.open(Options{})
	for i := range 10 {
		b.mustSend(alice, bob, uint64(100+i), "to be lost")
	}
	if err := b.engine.TakeSnapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.close()
	for _, name := range []string{"log", "anchor"} {
		if err := fs.RemoveAll(bedDir + "/" + name); err != nil {
			t.Fatal(err)
		}
		if _, err := vfs.Clone(fs, fs, "backup-"+name, bedDir+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	b.open(Options{})
	defer b.close()
	if err := b.sameViews(size, digest); err != nil {
		t.Error(err)
	}
	if sizes, err := projections.ListSnapshots(fs, bedDir); err != nil || len(sizes) != 0 {
		t.Errorf("snapshots beyond the log: %v, %v", sizes, err)
	}
}

// A rebuild starts at the newest snapshot: what lies below may be erased.
func TestRebuildStartsAtASnapshot(t *testing.T) {
	b, alice, bob := busyBed(t, vfs.NewMem())
	covered := b.log.Size()
	if err := b.engine.TakeSnapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.mustSend(alice, bob, 100, "after the snapshot")
	records, err := recordsOf(b.log, b.log.Size())
	if err != nil {
		t.Fatal(err)
	}
	erase := make([]uint64, 0, covered)
	for i := uint64(1); i < covered; i++ {
		erase = append(erase, i)
	}
	if n, err := b.log.Erase(context.Background(), erase); err != nil || n != len(erase) {
		t.Fatalf("erased %d: %v", n, err)
	}
	b.close()
	b.dropViews()
	b.open(Options{})
	head, err := b.log.Record(uint64(len(records)))
	if err != nil {
		t.Fatal(err)
	}
	if want, err := digestOfRecords(append(records, head)); err != nil || b.digest() != want {
		t.Errorf("another digest after a rebuild from the snapshot (%v)", err)
	}
	b.mustSend(alice, bob, 101, "goes on")
	b.close()

	// Without the snapshot nothing can be built on an erased body.
	b.dropViews()
	if err := b.fs.RemoveAll(bedDir + "/snapshots"); err != nil {
		t.Fatal(err)
	}
	if err := b.tryOpen(Options{}); !errors.Is(err, errErased) || !strings.Contains(err.Error(), "record 1") {
		t.Errorf("replay over an erased body: %v", err)
	}
}

// A snapshot whose digest is not the recorded one, or whose bytes are damaged,
// is passed over.
func TestRebuildPassesOverBadSnapshots(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, b *bed, path string){
		"damaged": func(t *testing.T, b *bed, path string) {
			overwrite(t, b.fs, path, bytes.Repeat([]byte("x"), 1000))
		},
		"of another history": func(t *testing.T, b *bed, path string) {
			other, _, _ := busyBed(t, vfs.NewMem())
			if err := other.engine.TakeSnapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
			other.close()
			if err := b.fs.Remove(path); err != nil {
				t.Fatal(err)
			}
			if ok, err := vfs.Clone(other.fs, b.fs, path, path); err != nil || !ok {
				t.Fatalf("no snapshot of the same size in another history: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, alice, bob := busyBed(t, vfs.NewMem())
			if err := b.engine.TakeSnapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.mustSend(alice, bob, 100, "after the snapshot")
			size, digest := b.log.Size(), b.digest()
			b.close()
			sizes, err := projections.ListSnapshots(b.fs, bedDir)
			if err != nil || len(sizes) != 1 {
				t.Fatalf("snapshots %v, %v", sizes, err)
			}
			harm(t, b, bedDir+"/snapshots/"+slog.Uint64Value(sizes[0]).String())
			b.dropViews()
			b.open(Options{})
			defer b.close()
			if err := b.sameViews(size, digest); err != nil {
				t.Error(err)
			}
		})
	}
}

// An event that is not what its leaf committed to stops the start with its index.
func TestReplayComparesLeaves(t *testing.T) {
	fs := vfs.NewMem()
	b := newBed(t, fs)
	b.register(1)
	records, err := recordsOf(b.log, b.log.Size())
	if err != nil {
		t.Fatal(err)
	}
	b.close()
	for name, harm := range map[string]func(r *log.Record){
		"event":   func(r *log.Record) { r.Event = append(r.Event, r.Event...) },
		"opening": func(r *log.Record) { r.Opening[3]++ },
		"leaf":    func(r *log.Record) { r.Leaf[len(r.Leaf)-1]++ },
		"class":   func(r *log.Record) { r.Leaf = append([]byte{byte(kt.ClassOpaque)}, r.Leaf[33:]...) },
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			if err := fs.MkdirAll(bedDir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := log.Create(fs, bedDir, bedStore, records[0]); err != nil {
				t.Fatal(err)
			}
			l, err := log.Open(fs, bedDir, log.Options{StoreID: bedStore})
			if err != nil {
				t.Fatal(err)
			}
			g := l.NewGroup()
			for i, r := range records[1:] {
				r.Leaf, r.Event = bytes.Clone(r.Leaf), bytes.Clone(r.Event)
				if i == 1 {
					harm(&r)
				}
				g.Append(r)
			}
			p, err := g.Commit()
			if err == nil {
				err = p.Wait()
			}
			if err = errors.Join(err, l.Close()); err != nil {
				t.Fatal(err)
			}
			b := &bed{t: t, fs: fs}
			if err := b.tryOpen(Options{}); err == nil || !strings.Contains(err.Error(), "record 2") {
				t.Errorf("start: %v, want an error that names record 2", err)
			}
		})
	}
}

func TestStartCanBeCancelled(t *testing.T) {
	b, _, _ := busyBed(t, vfs.NewMem())
	b.close()
	b.dropViews()
	l, err := log.Open(b.fs, bedDir, log.Options{StoreID: bedStore})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Start(ctx, Options{Log: l, FS: b.fs, Dir: bedDir, Logger: quietLogger()}); !errors.Is(err, context.Canceled) {
		t.Errorf("start: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b.open(Options{}) // what was replayed so far does no harm
	b.close()
}
