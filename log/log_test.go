package log

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

func equalRecords(a, b Record) bool {
	return a.Erased == b.Erased && a.Opening == b.Opening && bytes.Equal(a.Leaf, b.Leaf) && bytes.Equal(a.Event, b.Event)
}

// checkRecords compares records from..to with the test records; erased tells which must be blank.
func checkRecords(t testing.TB, l *Log, from, to uint64, erased func(uint64) bool) {
	t.Helper()
	next := from
	err := l.Iterate(from, to, func(index uint64, r Record) error {
		if index != next {
			t.Fatalf("got record %d, want %d", index, next)
		}
		next++
		want := testRecord(index)
		if erased != nil && erased(index) {
			want = Record{Leaf: want.Leaf, Erased: true}
		}
		if !equalRecords(want, r) {
			t.Fatalf("record %d (-want +got):\n%s", index, cmp.Diff(want, r))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if next != to {
		t.Fatalf("iteration ended at %d, want %d", next, to)
	}
}

func TestCreateOpen(t *testing.T) {
	fs := vfs.NewMem()
	createLog(t, fs)
	l := openLog(t, fs)
	defer mustClose(t, l)
	if l.Size() != 1 {
		t.Errorf("size of a new log: %d, want 1", l.Size())
	}
	if size, root := l.Anchored(); size != 1 || root != l.Root() {
		t.Errorf("anchored %d %x, want 1 %x", size, root, l.Root())
	}
	checkRecords(t, l, 0, 1, nil)
	if got := l.store.db.FormatMajorVersion(); got != pebble.FormatNewest || storeFormat != pebble.FormatNewest {
		t.Errorf("store has format %d, storeFormat is %d, the newest is %d", got, storeFormat, pebble.FormatNewest)
	}
}

func TestCreateRefusesWhatExists(t *testing.T) {
	for _, leave := range []string{storeDir, AnchorFile} {
		fs := vfs.NewMem()
		createLog(t, fs)
		for _, remove := range []string{storeDir, AnchorFile} {
			if remove != leave {
				if err := fs.RemoveAll(fs.PathJoin(testDir, remove)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := Create(fs, testDir, testStore, testRecord(0)); err == nil {
			t.Errorf("Create over an existing %s succeeded", leave)
		}
	}
}

func TestCommitIterate(t *testing.T) {
	fs := vfs.NewMem()
	createLog(t, fs)
	l := openLog(t, fs)
	size := uint64(1)
	for _, n := range []int{1, 2, 300, 1, 512, 256} {
		g := l.NewGroup()
		if g.First() != size || !g.Empty() {
			t.Fatalf("new group starts at %d, want %d; empty: %v", g.First(), size, g.Empty())
		}
		for range n {
			if got := g.Append(testRecord(size)); got != size {
				t.Fatalf("appended at %d, want %d", got, size)
			}
			size++
		}
		if g.Next() != size || g.Empty() || g.Bytes() < n*50 {
			t.Fatalf("group: next %d, want %d; empty %v; %d bytes", g.Next(), size, g.Empty(), g.Bytes())
		}
		root := g.Root()
		p := mustCommit(t, g)
		if p.Size() != size || p.Root() != root || l.Size() != size || l.Root() != root {
			t.Fatalf("commit at %d: pending %d %x, log %d %x, want %x", size, p.Size(), p.Root(), l.Size(), l.Root(), root)
		}
	}
	check := func(l *Log) {
		t.Helper()
		for _, from := range []uint64{0, 1, 2, 3, 4, 303, 304, 305, 700, size - 1, size} {
			for _, to := range []uint64{from, from + 1, 304, size} {
				if from <= to && to <= size {
					checkRecords(t, l, from, to, nil)
				}
			}
		}
		for _, i := range []uint64{0, 3, 303, size - 1} {
			r, err := l.Record(i)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(testRecord(i), r); diff != "" {
				t.Errorf("record %d (-want +got):\n%s", i, diff)
			}
		}
	}
	check(l)
	root := l.Root()
	mustClose(t, l)
	l = openLog(t, fs)
	defer mustClose(t, l)
	if l.Size() != size || l.Root() != root {
		t.Fatalf("reopened: %d %x, want %d %x", l.Size(), l.Root(), size, root)
	}
	if s, r := l.Anchored(); s != size || r != root {
		t.Errorf("a longer log was not anchored at its start: %d %x", s, r)
	}
	check(l)
}

func TestOutOfRange(t *testing.T) {
	l := newLogForTest(t)
	appendRecords(t, l, 9)
	_, e1 := l.Record(10)
	_, e2 := l.LeafHash(10)
	_, e3 := l.RootAt(11)
	_, e4 := l.InclusionProof(0, 11)
	_, e5 := l.InclusionProof(5, 5)
	_, e6 := l.ConsistencyProof(5, 11)
	_, e7 := l.ConsistencyProof(6, 5)
	_, e8 := l.Tile(0, 0, 11)
	_, e9 := l.Tile(8, 0, 1)
	_, e10 := l.Tile(-1, 0, 1)
	_, e11 := l.EntryBundle(0, 0)
	_, e12 := l.EntryBundle(1<<60, 1)
	_, e13 := l.Tile(0, 1<<63, 256)
	e14 := l.Iterate(3, 11, nil)
	e15 := l.Iterate(3, 2, nil)
	for i, err := range []error{e1, e2, e3, e4, e5, e6, e7, e8, e9, e10, e11, e12, e13, e14, e15} {
		if !errors.Is(err, ErrOutOfRange) {
			t.Errorf("case %d: %v, want ErrOutOfRange", i+1, err)
		}
	}
}

func TestIterateStopsWithTheCallersError(t *testing.T) {
	l := newLogForTest(t)
	appendRecords(t, l, 9)
	stop := errors.New("stop")
	calls := 0
	err := l.Iterate(0, 10, func(uint64, Record) error {
		if calls++; calls == 4 {
			return stop
		}
		return nil
	})
	if err != stop || calls != 4 {
		t.Errorf("%d calls and error %v, want 4 and the caller's", calls, err)
	}
}

func TestPayloads(t *testing.T) {
	l := newLogForTest(t)
	const n = 60
	g := l.NewGroup()
	for i := range uint64(n) {
		g.PutPayload(testPayload(i))
	}
	g.PutPayload(PayloadKey{ID: [16]byte{0xff}}, nil)
	mustCommit(t, g)

	g = l.NewGroup()
	if !g.Empty() {
		t.Error("new group is not empty")
	}
	for i := range uint64(n / 2) {
		k, _ := testPayload(i)
		g.ReleasePayload(k)
	}
	g.ReleasePayload(PayloadKey{Owner: [16]byte{9}}) // there is none
	g.DeletePayloads([16]byte{2})
	if g.Empty() {
		t.Error("group with releases is empty")
	}
	p := mustCommit(t, g)
	if p.Size() != 1 {
		t.Errorf("payloads changed the size to %d", p.Size())
	}

	want := func(i uint64) []byte {
		k, data := testPayload(i)
		if i < n/2 || k.Owner[0] == 2 {
			return nil
		}
		return data
	}
	var keys []PayloadKey
	for i := range uint64(n) {
		k, _ := testPayload(i)
		keys = append(keys, k)
		data, ok, err := l.Payload(k)
		if err != nil || ok != (want(i) != nil) || !bytes.Equal(data, want(i)) {
			t.Errorf("payload %d: %x %v %v, want %x", i, data, ok, err, want(i))
		}
	}
	next := 0
	err := l.Payloads(keys, func(i int, data []byte) error {
		if i != next || (data == nil) != (want(uint64(i)) == nil) || !bytes.Equal(data, want(uint64(i))) {
			t.Errorf("payloads: call %d for key %d: %x, want %x", next, i, data, want(uint64(i)))
		}
		next++
		return nil
	})
	if err != nil || next != n {
		t.Errorf("payloads: %d calls, error %v", next, err)
	}
	if data, ok, err := l.Payload(PayloadKey{ID: [16]byte{0xff}}); err != nil || !ok || data == nil || len(data) != 0 {
		t.Errorf("empty payload: %v %v %v", data, ok, err)
	}
	stop := errors.New("stop")
	if err := l.Payloads(keys, func(int, []byte) error { return stop }); err != stop {
		t.Errorf("payloads: %v, want the caller's error", err)
	}
}

func TestOwnerRangeAtTheEndOfTheKeyspace(t *testing.T) {
	last := [16]byte(bytes.Repeat([]byte{0xff}, 16))
	r := ownerRange(last)
	key := appendPayloadKey(nil, PayloadKey{Owner: last, ID: last})
	if bytes.Compare(key, r.lower) < 0 || bytes.Compare(key, r.upper) >= 0 {
		t.Errorf("key %x is not in [%x, %x)", key, r.lower, r.upper)
	}
	if !bytes.Equal(r.upper[:1], payloadRange().upper) {
		t.Errorf("upper bound %x reaches other keys", r.upper)
	}
}

func TestGroupOrder(t *testing.T) {
	l := newLogForTest(t)
	a, b := l.NewGroup(), l.NewGroup()
	a.Append(testRecord(1))
	b.Append(testRecord(1))
	mustCommit(t, a)
	if _, err := b.Commit(); !errors.Is(err, ErrGroupOrder) {
		t.Errorf("overtaken group: %v, want ErrGroupOrder", err)
	}
	if _, err := a.Commit(); !errors.Is(err, ErrGroupOrder) {
		t.Errorf("second commit: %v, want ErrGroupOrder", err)
	}
	b.Discard()
	b.Discard() // harmless
	if err := l.Err(); err != nil {
		t.Errorf("a misused group failed the log: %v", err)
	}
	appendRecords(t, l, 3)
	checkRecords(t, l, 0, 5, nil)
}

// An empty group has no batch, but it still takes its turn.
func TestEmptyGroup(t *testing.T) {
	l := newLogForTest(t)
	before := l.Counters()
	p := mustCommit(t, l.NewGroup())
	if p.Size() != 1 || p.Root() != l.Root() || l.Counters() != before {
		t.Errorf("empty group: size %d, counters %+v, before %+v", p.Size(), l.Counters(), before)
	}
}

func TestLocked(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": vfs.Default} {
		dir := testDir
		if name == "disk" {
			dir = t.TempDir()
		} else if err := fs.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := Create(fs, dir, testStore, testRecord(0)); err != nil {
			t.Fatal(err)
		}
		l, err := Open(fs, dir, testOptions())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(fs, dir, testOptions()); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: second Open: %v, want ErrLocked", name, err)
		}
		mustClose(t, l)
		if l, err = Open(fs, dir, testOptions()); err != nil {
			t.Errorf("%s: Open after Close: %v", name, err)
		} else {
			mustClose(t, l)
		}
	}
}
