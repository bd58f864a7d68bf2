package log

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"quicprochat/kt"
)

// references are two trees that nobody here wrote: the log must agree with both in everything.
type references struct {
	merkle *testonly.Tree
	stored []tlog.Hash // tlog's own storage order
}

func newReferences() *references {
	return &references{merkle: testonly.New(rfc6962.DefaultHasher)}
}

func (r *references) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, at := range indexes {
		out[i] = r.stored[at]
	}
	return out, nil
}

func (r *references) add(t testing.TB, leaf []byte) {
	hashes, err := tlog.StoredHashes(int64(r.merkle.Size()), leaf, r)
	if err != nil {
		t.Fatal(err)
	}
	r.stored = append(r.stored, hashes...)
	r.merkle.AppendData(leaf)
}

// fill commits records up to size in groups of the given length, to the log and to the references.
func (r *references) fill(t testing.TB, l *Log, size uint64, group int) {
	t.Helper()
	for i := r.merkle.Size(); i < size; i++ {
		r.add(t, testRecord(i).Leaf)
	}
	for l.Size() < size {
		appendRecords(t, l, min(group, int(size-l.Size())))
	}
}

func flatten(hashes [][]byte) []byte { return bytes.Join(hashes, nil) }

type fatalf interface{ Fatalf(string, ...any) }

// checkPair compares roots, inclusion of index and consistency for sizes m ≤ n and index < n, and verifies the proofs.
func (r *references) checkPair(t fatalf, l *Log, index, m, n uint64) {
	root, err := l.RootAt(n)
	if err != nil {
		t.Fatalf("root at %d: %v", n, err)
	}
	want, err := tlog.TreeHash(int64(n), r)
	if n > 0 && (err != nil || root != kt.Hash(want)) {
		t.Fatalf("root at %d: %x, want %x (%v)", n, root, want, err)
	}
	if !bytes.Equal(root[:], r.merkle.HashAt(n)) {
		t.Fatalf("root at %d: %x, want %x", n, root, r.merkle.HashAt(n))
	}
	con, err := l.ConsistencyProof(m, n)
	if err != nil {
		t.Fatalf("consistency %d to %d: %v", m, n, err)
	}
	if want, err := r.merkle.ConsistencyProof(m, n); err != nil || !bytes.Equal(flatten(con), flatten(want)) {
		t.Fatalf("consistency %d to %d: %x, want %x (%v)", m, n, con, want, err)
	}
	if m > 0 {
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, m, n, con, r.merkle.HashAt(m), root[:]); err != nil {
			t.Fatalf("consistency %d to %d is not accepted: %v", m, n, err)
		}
		tree, err := tlog.ProveTree(int64(n), int64(m), r)
		if err != nil || len(tree) != len(con) {
			t.Fatalf("consistency %d to %d: %d hashes, tlog has %d (%v)", m, n, len(con), len(tree), err)
		}
		for i := range tree {
			if !bytes.Equal(tree[i][:], con[i]) {
				t.Fatalf("consistency %d to %d: hash %d is %x, tlog has %x", m, n, i, con[i], tree[i])
			}
		}
	}
	if index >= n {
		return
	}
	r.checkInclusion(t, l, index, n, root)
}

func (r *references) checkInclusion(t fatalf, l *Log, index, n uint64, root kt.Hash) {
	inc, err := l.InclusionProof(index, n)
	if err != nil {
		t.Fatalf("inclusion of %d in %d: %v", index, n, err)
	}
	if want, err := r.merkle.InclusionProof(index, n); err != nil || !bytes.Equal(flatten(inc), flatten(want)) {
		t.Fatalf("inclusion of %d in %d: %x, want %x (%v)", index, n, inc, want, err)
	}
	record, err := tlog.ProveRecord(int64(n), int64(index), r)
	if err != nil || len(record) != len(inc) {
		t.Fatalf("inclusion of %d in %d: %d hashes, tlog has %d (%v)", index, n, len(inc), len(record), err)
	}
	for i := range record {
		if !bytes.Equal(record[i][:], inc[i]) {
			t.Fatalf("inclusion of %d in %d: hash %d is %x, tlog has %x", index, n, i, inc[i], record[i])
		}
	}
	leaf, err := l.LeafHash(index)
	if err != nil {
		t.Fatalf("leaf hash %d: %v", index, err)
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, n, leaf[:], inc, root[:]); err != nil {
		t.Fatalf("inclusion of %d in %d is not accepted: %v", index, n, err)
	}
}

// Every pair of small sizes and every index, while all of it is at the edge.
func TestProofsSmall(t *testing.T) {
	l := newLogForTest(t)
	refs := newReferences()
	const size = 70
	refs.fill(t, l, size, 7)
	for n := range uint64(size + 1) {
		for m := range n + 1 {
			refs.checkPair(t, l, m, m, n)
		}
	}
}

// Random sizes of a log with tiles of three levels, some stored and some at the edge, before and after a restart.
func TestProofsLarge(t *testing.T) {
	fs := vfs.NewMem()
	createLog(t, fs)
	l := openLog(t, fs)
	refs := newReferences()
	const size = 66_000 // 257 full tiles: one of level 1, and a hash of level 2
	refs.fill(t, l, size, 500)
	interesting := []uint64{0, 1, 255, 256, 257, 511, 512, 65535, 65536, 65537, 65792, size - 1, size}
	check := func(t *rapid.T) {
		pick := func(name string, most uint64) uint64 {
			return min(most, rapid.OneOf(rapid.SampledFrom(interesting), rapid.Uint64Range(0, size)).Draw(t, name))
		}
		n := pick("n", size)
		refs.checkPair(t, l, pick("index", size), pick("m", n), n)
	}
	rapid.Check(t, check)
	mustClose(t, l)
	l = openLog(t, fs)
	defer mustClose(t, l)
	if full := l.edge.full(); full != 0 || l.edge.levels[0].base != size&^255 || l.edge.levels[1].base != 256 {
		t.Errorf("edge after a restart: %d full bundles, bases %d and %d", full, l.edge.levels[0].base, l.edge.levels[1].base)
	}
	rapid.Check(t, check)
	refs.fill(t, l, size+300, 100)
	for _, m := range interesting {
		refs.checkPair(t, l, m, m, size+300)
	}
}

// Tiles of every width are what tlog makes of the same leaves, entry bundles what C2SP tlog-tiles says.
func TestTilesAndBundles(t *testing.T) {
	fs := vfs.NewMem()
	createLog(t, fs)
	l := openLog(t, fs)
	refs := newReferences()
	const size = 66_100
	refs.fill(t, l, size, 500)
	check := func() {
		t.Helper()
		for level := range 3 {
			have := uint64(size) >> (8 * level)
			for _, n := range []uint64{0, 1, 100, have/256 - 1, have / 256} {
				for _, width := range []int{1, 2, 52, 255, 256} {
					got, err := l.Tile(level, n, width)
					if n > have/256 || n*256+uint64(width) > have {
						if err == nil {
							t.Fatalf("tile %d/%d of width %d of a log of %d records", level, n, width, size)
						}
						continue
					}
					want, err2 := tlog.ReadTileData(tlog.Tile{H: 8, L: level, N: int64(n), W: width}, refs)
					if err != nil || err2 != nil || !bytes.Equal(got, want) {
						t.Fatalf("tile %d/%d of width %d: %v %v, or other bytes", level, n, width, err, err2)
					}
				}
			}
		}
		for _, n := range []uint64{0, 1, 100, size/256 - 1, size / 256} {
			for _, width := range []int{1, 2, 52, 255, 256} {
				got, err := l.EntryBundle(n, width)
				if n*256+uint64(width) > size {
					if err == nil {
						t.Fatalf("bundle %d of width %d of a log of %d records", n, width, size)
					}
					continue
				}
				if err != nil || !bytes.Equal(got, wantBundle(n, width)) {
					t.Fatalf("bundle %d of width %d: %v, or other bytes", n, width, err)
				}
			}
		}
	}
	check()
	mustClose(t, l)
	l = openLog(t, fs)
	defer mustClose(t, l)
	check()
}

func wantBundle(n uint64, width int) []byte {
	var b []byte
	for i := range uint64(width) {
		leaf := testRecord(n*256 + i).Leaf
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(leaf))), leaf...)
	}
	return b
}

// Tiles whose root is not the anchor's are derived anew when the segments are right: they are the truth.
func TestTilesAreRebuilt(t *testing.T) {
	fs := vfs.NewMem()
	createLog(t, fs)
	l := openLog(t, fs)
	refs := newReferences()
	refs.fill(t, l, 9000, 500)
	mustClose(t, l)
	l = openLog(t, fs)
	for n := range uint64(3) {
		if err := l.store.db.Set(appendTileKey(nil, 0, n), make([]byte, 256*32), nil); err != nil {
			t.Fatal(err)
		}
	}
	root := l.Root()
	mustClose(t, l)
	l = openLog(t, fs)
	defer mustClose(t, l)
	if l.Root() != root {
		t.Fatalf("root %x, want %x", l.Root(), root)
	}
	for i := uint64(0); i < 9000; i += 37 {
		refs.checkPair(t, l, i, i, 9000)
	}
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
}

// A log whose tiles were not stored completes them at its start.
func TestTilesAreCompleted(t *testing.T) {
	fs := vfs.NewMem()
	createLog(t, fs)
	l := openLog(t, fs)
	refs := newReferences()
	refs.fill(t, l, 2000, 100)
	mustClose(t, l)
	l = openLog(t, fs)
	if err := l.store.db.DeleteRange(appendTileKey(nil, 0, 3), tileRange().upper, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.store.db.DeleteRange(appendBundleKey(nil, 3), bundleRange().upper, nil); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	l = openLog(t, fs)
	defer mustClose(t, l)
	if n, err := l.storedTiles(2000); err != nil || n != 2000/256 {
		t.Errorf("%d tiles are stored (%v)", n, err)
	}
	for n := range uint64(2000 / 256) {
		if got, err := l.EntryBundle(n, 256); err != nil || !bytes.Equal(got, wantBundle(n, 256)) {
			t.Errorf("bundle %d: %v, or other bytes", n, err)
		}
	}
	refs.checkPair(t, l, 1000, 900, 2000)
}

func TestTreeCacheEvicts(t *testing.T) {
	var c treeCache
	for i := range uint64(3 * treeCacheSize) {
		id := tileID{n: i}
		if c.lookup(id) != nil {
			t.Fatalf("tile %d is there before it was inserted", i)
		}
		c.insert(id, &tileTree{1: kt.Hash{byte(i)}})
		c.insert(id, &tileTree{1: kt.Hash{99}}) // a slower reader's: the first one stays
		if got := c.lookup(id); got == nil || got[1] != (kt.Hash{byte(i)}) {
			t.Fatalf("tile %d is not there after it was inserted", i)
		}
		if len(c.at) != len(c.ring) || len(c.ring) > treeCacheSize {
			t.Fatalf("%d names for %d tiles", len(c.at), len(c.ring))
		}
	}
}
