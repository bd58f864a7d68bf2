package projections

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// storyWorld has some of everything, committed in several groups.
func storyWorld(t testT) *world {
	w := newWorld(t)
	w.register("alice", "bob", "carol")
	w.commit()
	for n := range 60 {
		w.now += 1000
		w.send(n, "alice", "bob")
		if n%7 == 0 {
			w.do(sessionStarted("carol", n, w.now+dayMS))
		}
		if n%13 == 12 {
			w.do(confirmed(deviceKey("bob"), uint64(n-5)))
			w.commit()
		}
	}
	w.commit()
	return w
}

func wantRebuild(t *testing.T, err error, reason RebuildReason) *RebuildError {
	t.Helper()
	var rebuild *RebuildError
	if !errors.As(err, &rebuild) || rebuild.Reason != reason {
		t.Fatalf("got %v, want views that are %v", err, reason)
	}
	return rebuild
}

func TestViewsComeBackAfterClose(t *testing.T) {
	w := storyWorld(t)
	size := uint64(len(w.entries))
	digest := w.digest()
	w.close()
	v, err := Open(w.fs, "data", Options{LogSize: size})
	if err != nil {
		t.Fatal(err)
	}
	if v.Cursor() != size || v.Unflushed() != 0 || digestOf(t, v) != digest {
		t.Errorf("cursor %d of %d, %d unflushed, or another digest", v.Cursor(), size, v.Unflushed())
	}
	if _, err := Open(w.fs, "data", Options{LogSize: size}); err == nil || strings.Contains(err.Error(), "damaged") {
		t.Errorf("opened twice: %v", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestMissingViews(t *testing.T) {
	fs := vfs.NewMem()
	_, err := Open(fs, "data", Options{})
	wantRebuild(t, err, Missing)
	v, why, err := OpenOrRecreate(fs, "data", Options{})
	if err != nil || why == nil || why.Reason != Missing || v.Cursor() != 0 {
		t.Fatalf("recreate: %v, %v", why, err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v, why, err = OpenOrRecreate(fs, "data", Options{})
	if err != nil || why != nil {
		t.Fatalf("open empty views: %v, %v", why, err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestStoreWithoutACursorIsMissing: the creation was cut short.
func TestStoreWithoutACursorIsMissing(t *testing.T) {
	fs := vfs.NewMem()
	v, err := openStore(fs, "data/views", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.closeStore(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(fs, "data", Options{})
	wantRebuild(t, err, Missing)
}

func TestViewsAheadOfTheLog(t *testing.T) {
	w := storyWorld(t)
	size := uint64(len(w.entries))
	w.close()
	_, err := Open(w.fs, "data", Options{LogSize: size - 1})
	if rebuild := wantRebuild(t, err, Ahead); rebuild.Cursor != size {
		t.Errorf("cursor in the error: %d, want %d", rebuild.Cursor, size)
	}
	v, why, err := OpenOrRecreate(w.fs, "data", Options{LogSize: size - 1})
	if err != nil || why == nil || v.Cursor() != 0 {
		t.Fatalf("recreate: %v, %v", why, err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestViewsOfAnotherFormat(t *testing.T) {
	w := storyWorld(t)
	meta := appendMeta(nil, uint64(len(w.entries)), w.now)
	meta[3]++
	for _, row := range [][]byte{meta, meta[:7], append(appendMeta(nil, 1, 1), 0)} {
		if err := w.views.db.Set([]byte{prefixMeta}, row, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		w.close()
		_, err := Open(w.fs, "data", Options{LogSize: 1 << 20})
		wantRebuild(t, err, Damaged)
		w.views = w.mustOpen(uint64(len(w.entries)))
		w.replayInto(w.views, 0, 100)
	}
	w.close()
}

// TestDamagedFiles changes one bit of the store at a time: every one of the
// MANIFEST, 40 of each other file. Whatever happens, the views say so,
// are as they were, or are at an earlier cursor (a damaged end of the MANIFEST
// looks like a torn one) from which the replay makes them what they were: they
// never hold something else.
func TestDamagedFiles(t *testing.T) {
	w := storyWorld(t)
	size := uint64(len(w.entries))
	digest := w.digest()
	w.close()
	rng := rand.New(rand.NewPCG(1, 2))
	names, err := w.fs.List("data/views")
	if err != nil {
		t.Fatal(err)
	}
	good := map[string][]byte{}
	for _, name := range names {
		good[name] = readFile(t, w.fs, "data/views/"+name)
	}
	found := 0
	earlier := 0
	for _, name := range slices.Sorted(maps.Keys(good)) {
		content := good[name]
		every := strings.HasPrefix(name, "MANIFEST")
		flips := min(len(content), 40)
		if every {
			flips = 8 * len(content)
		}
		for i := range flips {
			at, bit := i/8, i%8
			if !every {
				at, bit = rng.IntN(len(content)), rng.IntN(8)
			}
			bad := bytes.Clone(content)
			bad[at] ^= 1 << bit
			for other := range good {
				writeFile(t, w.fs, "data/views/"+other, good[other])
			}
			writeFile(t, w.fs, "data/views/"+name, bad)
			cursor, ok := intact(w, digest)
			if !ok {
				found++
				wantOpensAsDamaged(t, w.fs, size)
			} else if cursor < size {
				earlier++
			}
			if err := w.fs.RemoveAll("data/views"); err != nil {
				t.Fatal(err)
			}
			if err := w.fs.MkdirAll("data/views", 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	if found == 0 {
		t.Error("no damage was found at all")
	}
	t.Logf("damage was found %d times, and took events away that the replay brought back %d times", found, earlier)
}

// intact opens the views, replays what they lack, and reads everything; it fails
// the test on a silent change. It returns the cursor that they opened at, and
// false when they said that they are damaged.
func intact(w *world, digest Hash) (cursor uint64, ok bool) {
	w.t.Helper()
	v, err := Open(w.fs, "data", Options{LogSize: uint64(len(w.entries))})
	if err != nil {
		var rebuild *RebuildError
		if !errors.As(err, &rebuild) {
			w.t.Fatalf("open: %v", err)
		}
		return 0, false
	}
	cursor = v.Cursor()
	w.replayInto(v, cursor, 10)
	s := v.Snapshot()
	got, err := Digest(s)
	if closeErr := errors.Join(s.Close(), v.Close()); closeErr != nil && err == nil {
		w.t.Fatalf("close: %v", closeErr)
	}
	if err != nil {
		if rebuild := (*RebuildError)(nil); !errors.As(err, &rebuild) || rebuild.Reason != Damaged {
			w.t.Fatalf("read: %v", err)
		}
		return cursor, false
	}
	if got != digest {
		w.t.Fatalf("a flipped bit changed the views silently (opened at %d)", cursor)
	}
	return cursor, true
}

// wantOpensAsDamaged: what was found once is found again at the next start.
func wantOpensAsDamaged(t *testing.T, fs vfs.FS, size uint64) {
	t.Helper()
	_, err := Open(fs, "data", Options{LogSize: size})
	var rebuild *RebuildError
	if !errors.As(err, &rebuild) {
		t.Fatalf("damage was found and then forgotten: %v", err)
	}
}

func readFile(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return content
}

func writeFile(t *testing.T, fs vfs.FS, name string, content []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(append([]byte(nil), content...))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestMalformedRow: a row that no checksum could have caught.
func TestMalformedRow(t *testing.T) {
	w := storyWorld(t)
	size := uint64(len(w.entries))
	for _, key := range [][]byte{
		keyOf32(nil, prefixQueue, deviceKey("bob")),
		keyOfID(nil, prefixAccount, accountID("bob")),
		itemKey(nil, deviceKey("bob"), 60),
	} {
		if err := w.views.db.Set(key, []byte("short"), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	s := w.views.Snapshot()
	_, _, err := Queue(s, deviceKey("bob"))
	wantRebuild(t, err, Damaged)
	_, _, err = AccountByName(s, "bob")
	wantRebuild(t, err, Damaged)
	_, _, err = DevicesOf(s, nil, accountID("bob"))
	wantRebuild(t, err, Damaged)
	_, _, err = itemAt(s, deviceKey("bob"), &QueueState{}, 60)
	wantRebuild(t, err, Damaged)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	w.close()
	wantOpensAsDamaged(t, w.fs, size)
	w.views = w.mustOpen(size)
	if got := w.views.Cursor(); got != 0 {
		t.Errorf("cursor of recreated views: %d", got)
	}
	w.close()
}

func TestOneBatchAtATime(t *testing.T) {
	w := newWorld(t)
	w.commit()
	b := w.views.NewBatch()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a second batch was started")
			}
		}()
		w.views.NewBatch()
	}()
	if err := w.views.Close(); err == nil {
		t.Error("closed with an open batch")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	if err := b.Commit(); err == nil {
		t.Error("committed after Close")
	}
	if err := Apply(b, w.entry(registered("alice"), nil)); err == nil {
		t.Error("applied after Close")
	}
	if _, _, err := Queue(b, deviceKey("alice")); err == nil {
		t.Error("read after Close")
	}
	if _, err := Digest(b); err == nil {
		t.Error("read everything after Close")
	}
	w.close()
}

// TestADroppedBatchLeavesNothing: also not in the rows kept in memory.
func TestADroppedBatchLeavesNothing(t *testing.T) {
	w := queueWorld(t)
	w.send(1, "alice", "bob")
	before := w.digest()
	entries := w.entries
	for range 3 {
		w.send(2, "alice", "bob")
		w.do(confirmed(deviceKey("bob"), 1))
		if err := w.reader().Close(); err != nil {
			t.Fatal(err)
		}
		w.batch, w.entries = nil, entries
		if w.digest() != before {
			t.Fatal("a dropped batch changed the views")
		}
		w.wantSeqs("bob", 1)
		if q := w.queue("bob"); q.NextSeq != 2 || q.Count != 1 {
			t.Fatalf("queue: %+v", q)
		}
	}
	w.close()
}

// Damage in a MANIFEST, of which Pebble takes the last record for its end, does
// not make later rows disappear behind those of before.
func TestDamagedEndOfManifest(t *testing.T) {
	w := storyWorld(t)
	entries, digest := w.entries, w.digest()
	w.close()
	disk, o := vfs.NewMem(), Options{LogSize: uint64(len(entries))}
	for _, size := range []int{len(entries) - 3, len(entries) - 2} { // the second begins another MANIFEST
		v, _, err := OpenOrRecreate(disk, "data", o)
		if err != nil {
			t.Fatal(err)
		}
		w.entries = entries[:size]
		w.replayInto(v, v.Cursor(), 10)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w.entries = entries
	var manifest string
	names, err := disk.List("data/views")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "MANIFEST") {
			manifest = max(manifest, "data/views/"+name) // the newest; the one before is kept
		}
	}
	content := readFile(t, disk, manifest)
	noticed := 0
	for at := range content {
		w.fs = vfs.NewMem()
		if _, err := vfs.Clone(disk, w.fs, "data", "data"); err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(content)
		bad[at] ^= 1
		writeFile(t, w.fs, manifest, bad)
		v, err := Open(w.fs, "data", o)
		var rebuild *RebuildError
		switch {
		case errors.As(err, &rebuild):
			noticed++
			continue
		case err != nil:
			t.Fatal(err)
		}
		w.replayInto(v, v.Cursor(), 1)
		s := v.Snapshot()
		if got, err := Digest(s); err != nil || got != digest {
			t.Errorf("byte %d of the MANIFEST: the views are others than the log says (%v)", at, err)
		}
		if err := errors.Join(s.Close(), v.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if noticed == 0 {
		t.Errorf("none of %d damaged bytes was noticed", len(content))
	}
}
