package log

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"path"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// damagedStore is a store to be damaged: what it holds is acknowledged and anchored.
type damagedStore struct {
	name string
	disk *vfs.MemFS
	size uint64
}

// buildStores makes one store whose records stand in the write-ahead log, as after a killed process, and one whose
// records stand in tables.
func buildStores(t testing.TB) []damagedStore {
	var out []damagedStore
	for _, name := range []string{"write-ahead log", "tables"} {
		fs := newCrashDisk(t)
		createLog(t, fs)
		l := openLog(t, fs)
		for range 12 {
			g := l.NewGroup()
			for range 5 {
				i := g.Append(testRecord(g.Next()))
				g.PutPayload(testPayload(i))
			}
			p := mustCommit(t, g)
			if err := l.WriteAnchor(p.Size(), p.Root()); err != nil {
				t.Fatal(err)
			}
		}
		size := l.Size()
		if name == "tables" {
			if err := l.store.flush(); err != nil {
				t.Fatal(err)
			}
		}
		disk := fs.CrashClone(vfs.CrashCloneCfg{})
		mustClose(t, l)
		out = append(out, damagedStore{name, disk, size})
	}
	return out
}

func (d damagedStore) files(t testing.TB) []string {
	var out []string
	names, err := d.disk.List(path.Join(testDir, storeDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		out = append(out, path.Join(testDir, storeDir, name))
	}
	return append(out, path.Join(testDir, AnchorFile))
}

// One flipped bit anywhere in a store is detected or harmless: never is anything missing or different in silence.
func TestBitFlips(t *testing.T) {
	rng := seeded(t)
	for _, d := range buildStores(t) {
		t.Run(d.name, func(t *testing.T) {
			detected, harmless := 0, 0
			for _, file := range d.files(t) {
				data := readFile(t, d.disk, file)
				for at := rng.IntN(stride(60, 1)); at < len(data); at += 1 + rng.IntN(stride(120, 1)) {
					bit := byte(1) << rng.IntN(8)
					if d.survives(t, rng, file, data, at, bit) {
						harmless++
					} else {
						detected++
					}
				}
			}
			t.Logf("%d flips detected, %d harmless", detected, harmless)
			if detected < 1200/stride(60, 60) {
				t.Errorf("only %d flips detected", detected)
			}
		})
	}
}

// survives flips bits of one byte and tells whether the log still opens and holds all.
func (d damagedStore) survives(t *testing.T, rng *rand.Rand, file string, data []byte, at int, bit byte) bool {
	t.Helper()
	fs := d.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
	bad := bytes.Clone(data)
	bad[at] ^= bit
	writeFile(t, fs, file, bad)
	l, err := Open(fs, testDir, testOptions())
	if err != nil {
		return false
	}
	defer l.Close() // it may have failed meanwhile
	if l.Size() != d.size {
		t.Fatalf("%s: bit %#x of byte %d: opened with %d records, not %d", file, bit, at, l.Size(), d.size)
	}
	var next uint64
	err = l.Iterate(0, d.size, func(i uint64, r Record) error {
		next = i + 1
		if !equalRecords(testRecord(i), r) {
			t.Fatalf("%s: bit %#x of byte %d: record %d is another", file, bit, at, i)
		}
		return nil
	})
	if err != nil {
		var ce *CorruptError
		if !errors.As(err, &ce) || ce.Index < next || ce.Index > d.size {
			t.Fatalf("%s: bit %#x of byte %d: after record %d: %v", file, bit, at, next, err)
		}
		return false
	}
	if next != d.size {
		t.Fatalf("%s: bit %#x of byte %d: iteration ended at %d", file, bit, at, next)
	}
	for i := uint64(1); i < d.size; i++ {
		k, want := testPayload(i)
		got, ok, err := l.Payload(k)
		if err != nil {
			return false
		}
		if !ok || !bytes.Equal(got, want) {
			t.Fatalf("%s: bit %#x of byte %d: payload %d is missing or another", file, bit, at, i)
		}
	}
	return true
}

// The tail of the write-ahead log is what Pebble cannot miss on its own: cut anywhere, in a way that looks like a
// clean end, the anchor misses it.
func TestLostTail(t *testing.T) {
	rng := seeded(t)
	d := buildStores(t)[0]
	refused := 0
	for _, file := range d.files(t) {
		if !isWAL(d.disk, file) {
			continue
		}
		data := readFile(t, d.disk, file)
		end := len(bytes.TrimRight(data, "\x00"))
		for cut := end - 1; cut > 0; cut -= 1 + rng.IntN(stride(100, 2)) {
			for _, zeros := range []bool{false, true} {
				fs := d.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
				bad := bytes.Clone(data[:cut])
				if zeros {
					bad = append(bad, make([]byte, len(data)-cut)...)
				}
				writeFile(t, fs, file, bad)
				l, err := Open(fs, testDir, testOptions())
				if err == nil { // only an end mark was cut off, or an older log that holds no record
					if l.Size() != d.size {
						t.Fatalf("%s cut to %d of %d bytes: opened with %d of %d records", file, cut, end, l.Size(), d.size)
					}
					checkRecords(t, l, 0, d.size, nil)
					mustClose(t, l)
					continue
				}
				refused++
				if !errors.Is(err, ErrShorterThanAnchor) && !errors.Is(err, ErrCorrupt) {
					t.Errorf("%s cut to %d of %d bytes: %v", file, cut, end, err)
				}
			}
		}
	}
	if refused < 5000/stride(100, 100) {
		t.Errorf("only %d cuts were refused", refused)
	}
}

// A damaged value inside the store, which no checksum of Pebble covers, is an error with the index for every reader.
func TestDamagedSegmentValue(t *testing.T) {
	fs := vfs.NewMem()
	createLog(t, fs)
	l := openLog(t, fs)
	for range 5 {
		appendRecords(t, l, 10)
	}
	appendRecords(t, l, 300)
	const first = 21 // of the segment that is damaged
	key := appendSegmentKey(nil, first)
	value, closer, err := l.store.db.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	good := bytes.Clone(value)
	closer.Close()
	damage := map[string]func(){
		"flipped": func() {
			bad := bytes.Clone(good)
			bad[len(bad)/2] ^= 4
			l.store.db.Set(key, bad, nil)
		},
		"truncated": func() { l.store.db.Set(key, good[:len(good)-1], nil) },
		"empty":     func() { l.store.db.Set(key, nil, nil) },
		"missing":   func() { l.store.db.Delete(key, nil) },
		"elsewhere": func() {
			l.store.db.Delete(key, nil)
			l.store.db.Set(appendSegmentKey(nil, first+1), good, nil)
		},
	}
	for name, do := range damage {
		t.Run(name, func(t *testing.T) {
			do()
			defer func() {
				l.store.db.Delete(appendSegmentKey(nil, first+1), nil)
				l.store.db.Set(key, good, nil)
			}()
			var seen uint64
			err := l.Iterate(0, l.Size(), func(i uint64, _ Record) error { seen = i + 1; return nil })
			wantCorrupt(t, "Iterate", err, seen, first+10)
			if seen > first {
				t.Errorf("iteration went on to %d", seen)
			}
			_, err = l.Record(first + 5)
			wantCorrupt(t, "Record", err, first, first+10)
			_, err = l.Erase(t.Context(), []uint64{first + 5})
			wantCorrupt(t, "Erase", err, first, first+10)
			if _, err := l.Record(first - 1); err != nil {
				t.Errorf("the record before: %v", err)
			}
			if _, err := l.Record(first + 10); err != nil {
				t.Errorf("the record behind: %v", err)
			}
		})
	}
	checkRecords(t, l, 0, l.Size(), nil)

	// At the start, damage that is needed for the root stops it.
	if err := l.store.db.Set(appendSegmentKey(nil, 51), good, nil); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	_, err = Open(fs, testDir, testOptions())
	wantCorrupt(t, "Open", err, 51, 51)
}

func wantCorrupt(t *testing.T, what string, err error, from, to uint64) {
	t.Helper()
	var ce *CorruptError
	if !errors.Is(err, ErrCorrupt) || !errors.As(err, &ce) || ce.Index < from || ce.Index > to {
		t.Errorf("%s: %v, want a CorruptError of index %d to %d", what, err, from, to)
	}
}
