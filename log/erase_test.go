package log

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"path"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func eraseAll(t testing.TB, l *Log, indexes []uint64, want int) {
	t.Helper()
	n, err := l.Erase(t.Context(), indexes)
	if err != nil || n != want {
		t.Fatalf("erased %d (%v), want %d", n, err, want)
	}
}

func TestErase(t *testing.T) {
	fs := vfs.NewMem()
	createLog(t, fs)
	l := openLog(t, fs)
	refs := newReferences()
	refs.fill(t, l, 1500, 100)
	root := l.Root()
	proof, err := l.InclusionProof(700, 1500)
	if err != nil {
		t.Fatal(err)
	}
	erased := map[uint64]bool{}
	isErased := func(i uint64) bool { return erased[i] }

	eraseAll(t, l, nil, 0)
	for _, indexes := range [][]uint64{{700}, {1499, 0, 3, 3, 0}, {5, 6, 7, 8, 100, 101, 102, 1498}} {
		fresh := 0
		for _, i := range indexes {
			if !erased[i] {
				erased[i] = true
				fresh++
			}
		}
		before := slices.Clone(indexes)
		eraseAll(t, l, indexes, fresh)
		if !slices.Equal(indexes, before) {
			t.Error("the caller's list was changed")
		}
		eraseAll(t, l, indexes, 0) // again: nothing to do
		checkRecords(t, l, 0, 1500, isErased)
	}
	r, err := l.Record(700)
	if err != nil || !r.Erased || r.Event != nil || r.Opening != [16]byte{} || !bytes.Equal(r.Leaf, testRecord(700).Leaf) {
		t.Errorf("erased record: %+v %v", r, err)
	}
	check := func() {
		t.Helper()
		again, err := l.InclusionProof(700, 1500)
		if err != nil || l.Root() != root || !bytes.Equal(flatten(again), flatten(proof)) {
			t.Errorf("erasing changed the root or a proof (%v)", err)
		}
		refs.checkPair(t, l, 700, 5, 1500)
		checkRecords(t, l, 0, 1500, isErased)
	}
	check()
	mustClose(t, l)
	l = openLog(t, fs)
	defer mustClose(t, l)
	check()

	n, err := l.Erase(t.Context(), []uint64{2, 1500})
	if n != 0 || !errors.Is(err, ErrOutOfRange) {
		t.Errorf("erasure beyond the end: %d %v", n, err)
	}
	check() // and nothing of it was done
}

// Erased bytes are gone from the disk after Compact, while what was not erased stays.
func TestEraseIsPhysical(t *testing.T) {
	fs := vfs.NewMem()
	createLog(t, fs)
	l := openLog(t, fs)
	secret, other := []byte("the secret that must go"), []byte("the secret that may stay")
	payload := []byte("the payload that must go")
	g := l.NewGroup()
	for i := range 50 {
		r := testRecord(g.Next())
		r.Event = other
		if i == 20 {
			r.Event = secret
		}
		g.Append(r)
	}
	g.PutPayload(PayloadKey{}, payload)
	mustCommit(t, g)
	eraseAll(t, l, []uint64{21}, 1)
	g = l.NewGroup()
	g.ReleasePayload(PayloadKey{})
	mustCommit(t, g)
	if err := l.Compact(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	mustClose(t, openLog(t, fs)) // a start does away with old write-ahead logs
	found := map[string]int{}
	names, _ := fs.List(path.Join(testDir, storeDir))
	for _, name := range names {
		data := readFile(t, fs, path.Join(testDir, storeDir, name))
		for _, s := range [][]byte{secret, other, payload} {
			if bytes.Contains(data, s) {
				found[string(s)]++
			}
		}
	}
	if found[string(secret)] != 0 || found[string(payload)] != 0 || found[string(other)] == 0 {
		t.Errorf("files that hold the texts: %v", found)
	}
}

// The pass takes many batches; cancelled between them it goes on with the same call.
func TestEraseResumesAfterCancel(t *testing.T) {
	l := newLogForTest(t)
	const groups, perGroup = 12, 20
	for range groups {
		g := l.NewGroup()
		for range perGroup {
			r := testRecord(g.Next())
			r.Event = make([]byte, eraseBatchBytes/perGroup) // a segment fills a batch
			g.Append(r)
		}
		mustCommit(t, g)
	}
	var indexes []uint64
	for i := range l.Size() {
		indexes = append(indexes, i)
	}
	ctx := &countdownContext{Context: t.Context(), left: 5}
	first, err := l.Erase(ctx, indexes)
	if !errors.Is(err, context.Canceled) || first < 4*perGroup || first >= len(indexes) {
		t.Fatalf("cancelled pass: %d of %d, %v", first, len(indexes), err)
	}
	eraseAll(t, l, indexes, len(indexes)-first)
	if got := l.Counters().EraseBatches; got < groups {
		t.Errorf("%d batches for %d large segments", got, groups)
	}
}

// countdownContext is cancelled after it was asked left times.
type countdownContext struct {
	context.Context
	left int
}

func (c *countdownContext) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// A power cut in the pass leaves every record whole or blank; the same call after the restart completes the pass.
func TestEraseResumesAfterPowerLoss(t *testing.T) {
	rng := seeded(t)
	for range scaled(8, 300) {
		fs := newCrashDisk(t)
		createLog(t, fs)
		l := openLog(t, fs)
		for range 20 {
			appendRecords(t, l, 1+rng.IntN(40))
		}
		size := l.Size()
		wanted := map[uint64]bool{}
		var indexes []uint64
		for range 60 {
			i := rng.Uint64N(size)
			wanted[i] = true
			indexes = append(indexes, i)
		}
		mustClose(t, l)
		var after *vfs.MemFS
		cut := cutBefore(fs, rng.IntN(60), func() {
			after = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(rng.Uint64(), 1))})
		})
		l, err := Open(cut, testDir, testOptions())
		if err != nil {
			t.Fatal(err)
		}
		for len(indexes) > 0 { // several small passes, so that the cut falls between batches too
			n := min(len(indexes), 7)
			if _, err := l.Erase(t.Context(), indexes[:n]); err != nil {
				t.Fatal(err)
			}
			indexes = indexes[n:]
		}
		mustClose(t, l)
		if after == nil {
			continue // the cut would have come later
		}
		l = openLog(t, after)
		for i := range size {
			r, err := l.Record(i)
			if err != nil || (r.Erased && !wanted[i]) {
				t.Fatalf("record %d of %d: erased %v, wanted %v, %v", i, size, r.Erased, wanted[i], err)
			}
			indexes = append(indexes, i)
		}
		indexes = slices.DeleteFunc(indexes, func(i uint64) bool { return !wanted[i] })
		if _, err := l.Erase(t.Context(), indexes); err != nil {
			t.Fatal(err)
		}
		checkRecords(t, l, 0, size, func(i uint64) bool { return wanted[i] })
		mustClose(t, l)
	}
}
