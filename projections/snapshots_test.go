package projections

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSnapshotAndTailEqualTheWholeLog(t *testing.T) {
	w := storyWorld(t)
	size := uint64(len(w.entries))
	w.views.MarkSynced(size)
	got, digest, err := w.views.WriteSnapshot(w.fs, "data")
	if err != nil || got != size || digest != w.digest() {
		t.Fatalf("snapshot of %d, want %d: %v", got, size, err)
	}
	if again, err := VerifySnapshot(w.fs, "data", size); err != nil || again != digest {
		t.Fatalf("verify: %v", err)
	}
	w.now += 1000
	w.send(900, "alice", "bob")
	w.do(confirmed(deviceKey("bob"), w.queue("bob").Tail()))
	want := w.digest()
	w.close()

	v, err := DropAndRecreate(w.fs, "data", Options{LogSize: uint64(len(w.entries))})
	if err != nil || v.Cursor() != size || digestOf(t, v) != digest {
		t.Fatalf("restored to %d, want %d: %v", v.Cursor(), size, err)
	}
	w.replayInto(v, size, 1)
	if digestOf(t, v) != want {
		t.Error("snapshot and tail differ from the live views")
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSnapshotWaitsForTheLog: a snapshot of events that a crash takes away
// would be of another log.
func TestSnapshotWaitsForTheLog(t *testing.T) {
	w := storyWorld(t)
	broken := errors.New("disk gone")
	w.views.Fail(broken)
	if _, _, err := w.views.WriteSnapshot(w.fs, "data"); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if sizes, err := ListSnapshots(w.fs, "data"); err != nil || len(sizes) != 0 {
		t.Errorf("snapshots: %v, %v", sizes, err)
	}
	if err := w.views.Close(); err != nil {
		t.Error(err)
	}
}

func TestNewestGoodSnapshotIsUsed(t *testing.T) {
	w := storyWorld(t)
	var sizes []uint64
	for n := range 4 {
		w.now++
		w.send(2000+n, "alice", "bob")
		w.commit()
		w.views.MarkSynced(uint64(len(w.entries)))
		size, _, err := w.views.WriteSnapshot(w.fs, "data")
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, size)
	}
	logSize := uint64(len(w.entries)) - 1 // the newest is beyond the log
	w.close()
	if got, err := ListSnapshots(w.fs, "data"); err != nil || !cmp.Equal(got, sizes) {
		t.Fatalf("snapshots: %v, %v, want %v", got, err, sizes)
	}
	path := snapshotPath(w.fs, "data", sizes[2])
	content := readFile(t, w.fs, path)
	content[len(content)/2] ^= 4
	writeFile(t, w.fs, path, content)

	recreate := func() uint64 {
		t.Helper()
		v, err := DropAndRecreate(w.fs, "data", Options{LogSize: logSize})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		return v.Cursor()
	}
	if got := recreate(); got != sizes[1] {
		t.Errorf("restored to %d, want %d", got, sizes[1])
	}
	for _, size := range sizes[:3] {
		if err := RemoveSnapshot(w.fs, "data", size); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveSnapshot(w.fs, "data", sizes[0]); err == nil {
		t.Error("a snapshot was removed twice")
	}
	if got := recreate(); got != 0 {
		t.Errorf("restored to %d, want nothing", got)
	}
	writeFile(t, w.fs, "data/snapshots/007", nil)
	writeFile(t, w.fs, "data/snapshots/unfinished", nil)
	if got, err := ListSnapshots(w.fs, "data"); err != nil || !cmp.Equal(got, sizes[3:]) {
		t.Errorf("snapshots: %v, %v", got, err)
	}
}

// TestEveryDamageOfASnapshotIsFound: each byte, each length.
func TestEveryDamageOfASnapshotIsFound(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	w.commit()
	s := w.views.Snapshot()
	defer s.Close()
	var file bytes.Buffer
	digest, err := writeSnapshot(&file, s, s.Size())
	if err != nil {
		t.Fatal(err)
	}
	ignore := func(_, _ []byte) error { return nil }
	size, got, err := readSnapshot(bytes.NewReader(file.Bytes()), ignore)
	if err != nil || size != s.Size() || got != digest {
		t.Fatalf("read: %v", err)
	}
	good := file.Bytes()
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1 << (i % 8)
		if _, _, err := readSnapshot(bytes.NewReader(bad), ignore); !errors.Is(err, ErrBadSnapshot) {
			t.Fatalf("byte %d of %d changed: %v", i, len(good), err)
		}
		if _, _, err := readSnapshot(bytes.NewReader(good[:i]), ignore); !errors.Is(err, ErrBadSnapshot) {
			t.Fatalf("cut at %d of %d: %v", i, len(good), err)
		}
	}
	if _, _, err := readSnapshot(bytes.NewReader(append(good[:len(good):len(good)], 0)), ignore); !errors.Is(err, ErrBadSnapshot) {
		t.Errorf("a byte too many: %v", err)
	}
}

// TestDigestDoesNotDependOnGroups: nor on what the writer keeps in memory.
func TestDigestDoesNotDependOnGroups(t *testing.T) {
	w := storyWorld(t)
	want := w.digest()
	for _, group := range []int{1, 7, 1000} {
		v, err := DropAndRecreate(w.fs, "copy", Options{LogSize: uint64(len(w.entries))})
		if err != nil {
			t.Fatal(err)
		}
		w.replayInto(v, 0, group)
		if digestOf(t, v) != want {
			t.Errorf("groups of %d: another digest", group)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b := w.reader()
	if got, err := Digest(b); err != nil || got != want {
		t.Errorf("digest of an empty batch: %v", err)
	}
	w.now++
	w.send(5000, "alice", "bob")
	inBatch, err := Digest(w.reader())
	if err != nil || inBatch == want || inBatch != w.digest() {
		t.Errorf("digest of a batch before and after its commit differ: %v", err)
	}
	w.close()
}

// TestPointCacheAges: more rows than it keeps, all still right.
func TestPointCacheAges(t *testing.T) {
	c := newPointCache()
	for n := range 3 * pointCacheRows {
		key := bytesOf(n)
		if c.find(key) != nil {
			t.Fatal("found before it was added")
		}
		c.add(key).value = key
		if n%100 == 0 {
			c.age()
		}
		if row := c.find(bytesOf(0)); n < pointCacheRows && row == nil {
			t.Fatalf("a row was dropped with %d in memory", n)
		}
	}
	if rows := len(c.young) + len(c.old); rows > 2*pointCacheRows+200 {
		t.Errorf("%d rows in memory", rows)
	}
	c.drop()
	if len(c.young)+len(c.old) != 0 {
		t.Error("rows are left after drop")
	}
}
