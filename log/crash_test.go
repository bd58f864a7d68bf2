package log

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// oracle is what a simple log would hold after the operations that a test did: it judges every recovery.
type oracle struct {
	acked     uint64 // size that a Wait reported durable
	anchored  uint64
	committed uint64 // size that was committed, durable or not
	payloads  map[uint64]uint64
	released  map[uint64]uint64 // payload id → size at which its release was committed
}

func newOracle() *oracle {
	return &oracle{acked: 1, anchored: 1, committed: 1, payloads: map[uint64]uint64{}, released: map[uint64]uint64{}}
}

// step commits one random group; it may leave it unsynced and may write the anchor.
func (o *oracle) step(t testing.TB, l *Log, rng *rand.Rand) {
	t.Helper()
	g := l.NewGroup()
	for range 1 + rng.IntN(rng.IntN(120)+1) {
		i := g.Append(testRecord(g.Next()))
		if rng.IntN(2) == 0 {
			g.PutPayload(testPayload(i))
			o.payloads[i] = g.Next()
		}
	}
	for i, at := range o.payloads {
		if at <= o.acked && rng.IntN(4) == 0 && o.released[i] == 0 {
			k, _ := testPayload(i)
			g.ReleasePayload(k)
			o.released[i] = g.Next()
		}
	}
	p, err := g.Commit()
	if err != nil {
		t.Fatal(err)
	}
	o.committed = p.Size()
	if rng.IntN(4) == 0 {
		return // never waited for: it may be durable or not
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	o.acked = p.Size()
	if rng.IntN(3) == 0 {
		if err := l.WriteAnchor(p.Size(), p.Root()); err != nil {
			t.Fatal(err)
		}
		o.anchored = p.Size()
	}
}

// check tells what is wrong with a recovered log: it must hold everything that was acknowledged, be a prefix of what
// was committed that ends at a group, and have root, payloads, tiles and anchor that belong to it.
func (o *oracle) check(t testing.TB, l *Log) {
	t.Helper()
	size := l.Size()
	if size < o.acked || size > o.committed {
		t.Fatalf("recovered %d records; %d were acknowledged and %d committed", size, o.acked, o.committed)
	}
	if s, r := l.Anchored(); s != size || r != l.Root() {
		t.Fatalf("anchored %d %x, recovered %d %x", s, r, size, l.Root())
	}
	checkRecords(t, l, 0, size, nil)
	var c compactRange
	var nodes newNodes
	for i := range size {
		c.add(leafHash(i), &nodes)
	}
	if c.root() != l.Root() {
		t.Fatalf("root %x at size %d, want %x", l.Root(), size, c.root())
	}
	for n := range size / tileWidth {
		got, err := l.EntryBundle(n, tileWidth)
		if err != nil || !bytes.Equal(got, wantBundle(n, tileWidth)) {
			t.Fatalf("bundle %d of %d records: %v, or other bytes", n, size, err)
		}
	}
	for i, at := range o.payloads {
		k, want := testPayload(i)
		data, ok, err := l.Payload(k)
		there := at <= size && (o.released[i] == 0 || o.released[i] > size)
		if err != nil || ok != there || (ok && !bytes.Equal(data, want)) {
			t.Fatalf("payload %d, put at %d, released at %d, in a log of %d: %v %v", i, at, o.released[i], size, ok, err)
		}
	}
}

// forget drops what a crash took, so that the test can go on with the recovered log.
func (o *oracle) forget(size uint64) {
	o.acked, o.anchored, o.committed = size, size, size
	for i, at := range o.payloads {
		if at > size {
			delete(o.payloads, i)
		}
	}
	for i, at := range o.released {
		if at > size {
			delete(o.released, i)
		}
	}
}

// A power cut at any moment, whatever share of the unsynced blocks reaches the disk, loses nothing that was
// acknowledged, and the recovered log goes on.
func TestPowerLoss(t *testing.T) {
	rng := seeded(t)
	for _, percent := range []int{0, 10, 50, 90, 100} {
		t.Run(fmt.Sprintf("%d%%", percent), func(t *testing.T) {
			for range scaled(3, 100) {
				fs := newCrashDisk(t)
				createLog(t, fs)
				fs = fs.CrashClone(vfs.CrashCloneCfg{}) // what Create returned from is durable
				o := newOracle()
				for range 4 {
					fs = crashOnce(t, fs, o, rng, percent)
				}
			}
		})
	}
}

// crashOnce works on the log for a while and gives the disk after a power cut. The cut happens while groups are
// pending; the old log is closed afterwards only to free its memory.
func crashOnce(t testing.TB, fs *vfs.MemFS, o *oracle, rng *rand.Rand, percent int) *vfs.MemFS {
	t.Helper()
	l := openLog(t, fs)
	o.check(t, l)
	o.forget(l.Size())
	for range rng.IntN(15) {
		o.step(t, l, rng)
	}
	after := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(rng.Uint64(), 1))})
	mustClose(t, l)
	check := openLog(t, after)
	o.check(t, check)
	o.forget(check.Size())
	mustClose(t, check)
	return after
}

// The log agrees with a slice under any sequence of groups, waits, anchors and restarts.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		fs := vfs.NewMem()
		createLog(t, fs)
		o := newOracle()
		l := openLog(t, fs)
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			if rng.IntN(5) == 0 {
				mustClose(t, l)
				o.acked = o.committed // a clean stop loses nothing
				l = openLog(t, fs)
				o.check(t, l)
			}
			o.step(t, l, rng)
		}
		mustClose(t, l)
		o.acked = o.committed
		l = openLog(t, fs)
		o.check(t, l)
		mustClose(t, l)
	})
}
