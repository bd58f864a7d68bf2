package log

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// tableBytes is the size of all table files of a store.
func tableBytes(t testing.TB, fs vfs.FS) (sum int64) {
	t.Helper()
	names, err := fs.List(fs.PathJoin(testDir, storeDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		info, err := fs.Stat(fs.PathJoin(testDir, storeDir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed in the background since it was listed
		}
		if err != nil {
			t.Fatal(err)
		}
		sum += info.Size()
	}
	return sum
}

// Released payloads give their room back without new data coming in, and
// nothing else goes.
func TestReclaim(t *testing.T) {
	fs := vfs.NewMem()
	createLog(t, fs)
	l := openLog(t, fs)
	defer mustClose(t, l)
	const n, size = 200, 20_000
	key := func(i int) PayloadKey { // owners all over the key space
		return PayloadKey{Owner: [16]byte{byte(i * 256 / n), 1}, ID: [16]byte{byte(i)}}
	}
	g := l.NewGroup()
	for i := range n {
		g.Append(testRecord(g.Next()))
		g.PutPayload(key(i), bytes.Repeat([]byte{byte(i)}, size))
	}
	mustCommit(t, g)
	if err := l.store.flush(); err != nil {
		t.Fatal(err)
	}
	before := tableBytes(t, fs)
	if before < n*size {
		t.Fatalf("%d bytes of tables", before)
	}
	g = l.NewGroup()
	for i := range n {
		if i%10 != 0 {
			g.ReleasePayload(key(i))
		}
	}
	g.Append(testRecord(g.Next()))
	mustCommit(t, g)
	for _, room := range []uint64{50 * size, 1, 1 << 30} {
		if err := l.Reclaim(t.Context(), room); err != nil {
			t.Fatal(err)
		}
		// Pebble removes the files that it needs no more in the background.
		for deadline := time.Now().Add(time.Minute); tableBytes(t, fs) > n*size/5; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("room %d: %d bytes of tables, %d before nine of ten payloads were released", room, tableBytes(t, fs), before)
			}
		}
	}
	for i := range n {
		data, found, err := l.Payload(key(i))
		if err != nil || found != (i%10 == 0) || found && !bytes.Equal(data, bytes.Repeat([]byte{byte(i)}, size)) {
			t.Fatalf("payload %d: %v, %v", i, found, err)
		}
	}
	checkRecords(t, l, 0, l.Size(), nil)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Reclaim(ended, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that ended: %v", err)
	}
}

// The parts cover the whole range without a gap.
func TestSliced(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 100, maxSlices} {
		parts := sliced(payloadRange(), n)
		if uint64(len(parts)) != n || !bytes.Equal(parts[0].lower, payloadRange().lower) || !bytes.Equal(parts[n-1].upper, payloadRange().upper) {
			t.Fatalf("%d parts: %x", n, parts)
		}
		for i, p := range parts {
			if bytes.Compare(p.lower, p.upper) >= 0 || (i > 0 && !bytes.Equal(parts[i-1].upper, p.lower)) {
				t.Fatalf("part %d of %d: %x to %x", i, n, p.lower, p.upper)
			}
		}
	}
}
