package log

import (
	"bytes"
	"errors"
	"io"
	"path"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// manifestOf is the newest MANIFEST of a store.
func manifestOf(t *testing.T, fs vfs.FS) (newest string) {
	t.Helper()
	names, err := fs.List(path.Join(testDir, storeDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "MANIFEST-") && name > newest {
			newest = name
		}
	}
	return path.Join(testDir, storeDir, newest)
}

// recordEnds are the offsets at which the records of a MANIFEST end.
func recordEnds(t *testing.T, data []byte) (ends []int64) {
	t.Helper()
	r := record.NewReader(bytes.NewReader(data), 0)
	for {
		next, err := r.Next()
		if errors.Is(err, io.EOF) {
			return ends
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, next); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, r.Offset())
	}
}

// A MANIFEST that ends too early still lists the tables, but the number of the next
// write stood behind that end: writes would get numbers below those in the tables, be
// acknowledged, and not be seen. Such a store is not opened.
//
//	MANIFEST: [ all tables ][ number of the next write ] …
//	                        ^ one bit of this is flipped: Pebble takes it for the end
func TestStoreThatWouldNumberWritesAnewIsRefused(t *testing.T) {
	fs := newCrashDisk(t)
	createLog(t, fs)
	l := openLog(t, fs)
	appendRecords(t, l, 50)
	if err := l.store.flush(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	mustClose(t, openLog(t, fs)) // begins a MANIFEST with all tables in its first record
	manifest := manifestOf(t, fs)
	data := readFile(t, fs, manifest)
	ends := recordEnds(t, data)
	if len(ends) < 2 {
		t.Fatalf("the MANIFEST has %d records", len(ends))
	}
	whole := fs.CrashClone(vfs.CrashCloneCfg{})
	bad := bytes.Clone(data)
	bad[ends[0]] ^= 1 // of the second record's checksum
	writeFile(t, fs, manifest, bad)
	for _, when := range []string{"first", "second"} { // Pebble has written another MANIFEST meanwhile
		l, err := Open(fs, testDir, testOptions())
		if err == nil {
			t.Fatalf("%s start: a store was opened whose MANIFEST ends too early (%v)", when, l.Close())
		}
		var damage *FileError
		if !errors.As(err, &damage) || !strings.Contains(err.Error(), "as the next, and table") {
			t.Fatalf("%s start: %v", when, err)
		}
	}
	l = openLog(t, whole)
	defer mustClose(t, l)
	if l.Size() != 51 {
		t.Errorf("%d records of 51 are in the store that was not damaged", l.Size())
	}
}
