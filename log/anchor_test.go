package log

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/kt"
)

func testHead(size uint64) head { return head{size, kt.Hash{byte(size), byte(size >> 8), 1}} }

func readFile(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFile(t testing.TB, fs vfs.FS, path string, data []byte) {
	t.Helper()
	if err := writeFileSynced(fs, path, data); err != nil {
		t.Fatal(err)
	}
}

// openHead opens the anchor and gives its head.
func openHead(fs vfs.FS) (head, error) {
	a, err := openAnchor(fs, "", testStore)
	if err != nil {
		return head{}, err
	}
	return a.newest, a.file.Close()
}

func TestAnchorAlternates(t *testing.T) {
	fs := vfs.NewCrashableMem()
	if err := createAnchor(fs, "", testStore, testHead(1)); err != nil {
		t.Fatal(err)
	}
	a, err := openAnchor(fs, "", testStore)
	if err != nil {
		t.Fatal(err)
	}
	defer a.file.Close()
	for size := uint64(2); size < 20; size += size%3 + 1 {
		before := a.newest
		if written, err := a.write(testHead(size)); err != nil || !written {
			t.Fatal(written, err)
		}
		if written, err := a.write(testHead(size)); err != nil || written {
			t.Fatalf("the same head again: written %v, %v", written, err)
		}
		data := readFile(t, fs, AnchorFile)
		if len(data) != anchorSlots*anchorStride {
			t.Fatalf("anchor has %d bytes", len(data))
		}
		heads := map[head]bool{}
		for i := range anchorSlots {
			h, err := decodeSlot(data[i*anchorStride:][:anchorSlot], testStore)
			if err != nil {
				t.Fatal(err)
			}
			heads[h] = true
		}
		if !heads[before] || !heads[testHead(size)] {
			t.Fatalf("slots after writing %d: %v", size, heads)
		}
		// A power cut loses nothing that was written: it is synced.
		if h, err := openHead(fs.CrashClone(vfs.CrashCloneCfg{})); err != nil || h != testHead(size) {
			t.Fatalf("after a power cut: %v %v, want %v", h, err, testHead(size))
		}
	}
	if _, err := a.write(testHead(3)); err == nil {
		t.Error("the anchor went back")
	}
	other := a.newest
	other.root[5]++
	if _, err := a.write(other); err == nil {
		t.Error("the anchor took a second root for one size")
	}
}

// While one slot is written, the other stays whole: whatever the torn write leaves, the head is the old or the new one.
func TestAnchorTornWrite(t *testing.T) {
	rng := seeded(t)
	for size := uint64(2); size < 30; size++ {
		fs := vfs.NewMem()
		if err := createAnchor(fs, "", testStore, testHead(size-1)); err != nil {
			t.Fatal(err)
		}
		data := readFile(t, fs, AnchorFile)
		slot := encodeSlot(testStore, testHead(size))
		cut := rng.IntN(len(slot) + 1)
		at := rng.IntN(anchorSlots) * anchorStride
		copy(data[at:], slot[:cut])
		if rng.IntN(2) == 0 {
			copy(data[at:at+anchorStride], make([]byte, cut)) // or the page came out zero
		}
		writeFile(t, fs, AnchorFile, data)
		h, err := openHead(fs)
		if err != nil || (h != testHead(size-1) && h != testHead(size)) {
			t.Fatalf("cut at %d: %v, %v", cut, h, err)
		}
	}
}

// Every flipped bit of a slot makes the slot invalid; the other one counts then. With both damaged, the anchor does.
func TestAnchorBitFlips(t *testing.T) {
	fs := vfs.NewMem()
	if err := createAnchor(fs, "", testStore, testHead(4)); err != nil {
		t.Fatal(err)
	}
	data := readFile(t, fs, AnchorFile)
	copy(data[anchorStride:], encodeSlot(testStore, testHead(5)))
	for bit := range anchorSlot * 8 {
		bad := append([]byte(nil), data...)
		bad[bit/8] ^= 1 << (bit % 8)
		writeFile(t, fs, AnchorFile, bad)
		if h, err := openHead(fs); err != nil || h != testHead(5) {
			t.Fatalf("bit %d of slot 0: %v %v", bit, h, err)
		}
		bad[anchorStride+bit/8] ^= 1 << (bit % 8)
		writeFile(t, fs, AnchorFile, bad)
		if _, err := openHead(fs); !errors.Is(err, ErrNoAnchor) {
			t.Fatalf("bit %d of both slots: %v, want ErrNoAnchor", bit, err)
		}
		copy(bad, data[:anchorSlot])
		writeFile(t, fs, AnchorFile, bad)
		if h, err := openHead(fs); err != nil || h != testHead(4) {
			t.Fatalf("bit %d of slot 1: %v %v", bit, h, err)
		}
	}
}

func TestAnchorRefusals(t *testing.T) {
	var contradiction []byte
	contradiction = append(contradiction, encodeSlot(testStore, testHead(4))...)
	contradiction = append(contradiction, make([]byte, anchorStride-anchorSlot)...)
	contradiction = append(contradiction, encodeSlot(testStore, head{4, kt.Hash{9}})...)
	for name, data := range map[string][]byte{
		"missing":       nil,
		"empty":         {},
		"short":         encodeSlot(testStore, testHead(4))[:anchorSlot-1],
		"zero":          make([]byte, 2*anchorStride),
		"foreign":       encodeSlot([16]byte{'x'}, testHead(4)),
		"contradiction": contradiction,
	} {
		fs := vfs.NewMem()
		if data != nil {
			writeFile(t, fs, AnchorFile, data)
		}
		_, err := openHead(fs)
		var ae *AnchorError
		if !errors.Is(err, ErrNoAnchor) || !errors.As(err, &ae) {
			t.Errorf("%s: %v, want ErrNoAnchor", name, err)
		}
	}
	// One slot is enough, also when the file ends behind it.
	fs := vfs.NewMem()
	writeFile(t, fs, AnchorFile, encodeSlot(testStore, testHead(4)))
	if h, err := openHead(fs); err != nil || h != testHead(4) {
		t.Errorf("one slot: %v %v", h, err)
	}
}

// The start names both sides and a remedy in one sentence.
func TestOpenAgainstAnchor(t *testing.T) {
	root := kt.Hash{0xab, 0xcd}
	for _, c := range []struct {
		name   string
		change func(fs vfs.FS)
		kind   error
		says   []string
	}{
		{"missing", func(fs vfs.FS) { fs.Remove(fs.PathJoin(testDir, AnchorFile)) }, ErrNoAnchor, []string{"missing", AnchorFile, "backup"}},
		{"damaged", func(fs vfs.FS) { writeFile(t, fs, fs.PathJoin(testDir, AnchorFile), make([]byte, 9000)) }, ErrNoAnchor, []string{"checksum", "backup"}},
		{"foreign", func(fs vfs.FS) { replaceAnchor(t, fs, [16]byte{1}, head{21, root}) }, ErrNoAnchor, []string{"belongs to store 01"}},
		{"shorter", func(fs vfs.FS) { replaceAnchor(t, fs, testStore, head{22, root}) }, ErrShorterThanAnchor, []string{"21 records", "22", "abcd", "backup"}},
		{"root", func(fs vfs.FS) { replaceAnchor(t, fs, testStore, head{21, root}) }, ErrRootMismatch, []string{"size 21", "abcd", "backup"}},
		{"older root", func(fs vfs.FS) { replaceAnchor(t, fs, testStore, head{3, root}) }, ErrRootMismatch, []string{"size 3", "abcd", "backup"}},
		{"no store", func(fs vfs.FS) { fs.RemoveAll(fs.PathJoin(testDir, storeDir)) }, ErrShorterThanAnchor, []string{"has 0 records", "backup"}},
		{"emptied store", func(fs vfs.FS) {
			fs.RemoveAll(fs.PathJoin(testDir, storeDir))
			fs.MkdirAll(fs.PathJoin(testDir, storeDir), 0o700)
		}, ErrShorterThanAnchor, []string{"has 0 records", "backup"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			createLog(t, fs)
			l := openLog(t, fs)
			appendRecords(t, l, 20)
			mustClose(t, l)
			c.change(fs)
			l, err := Open(fs, testDir, testOptions())
			if err == nil {
				l.Close()
			}
			if !errors.Is(err, c.kind) {
				t.Fatalf("Open: %v, want %v", err, c.kind)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is not one sentence", err)
			}
		})
	}
}

func replaceAnchor(t testing.TB, fs vfs.FS, store [16]byte, h head) {
	t.Helper()
	if err := createAnchor(fs, testDir, store, h); err != nil {
		t.Fatal(err)
	}
}

// Nothing is anchored that is not durable.
func TestWriteAnchorAboveSynced(t *testing.T) {
	fs := vfs.NewMem()
	createLog(t, fs)
	l := openLog(t, fs)
	g := l.NewGroup()
	g.Append(testRecord(1))
	p := mustCommit(t, g)
	if err := l.WriteAnchor(p.Size()+1, p.Root()); !errors.Is(err, ErrFailed) {
		t.Errorf("anchor beyond what is durable: %v, want ErrFailed", err)
	}
	select {
	case <-l.Failed():
	default:
		t.Error("the log did not fail")
	}
	g = l.NewGroup()
	g.Append(testRecord(2))
	if _, err := g.Commit(); !errors.Is(err, ErrFailed) {
		t.Errorf("commit to a failed log: %v, want ErrFailed", err)
	}
	if size, _ := l.Anchored(); size != 1 {
		t.Errorf("anchored %d", size)
	}
	if err := l.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close of a failed log: %v", err)
	}
	l = openLog(t, fs) // the group was durable, and is anchored now
	defer mustClose(t, l)
	if size, _ := l.Anchored(); size != 2 {
		t.Errorf("anchored %d after a restart, want 2", size)
	}
}

func TestWriteAnchor(t *testing.T) {
	fs := vfs.NewMem()
	createLog(t, fs)
	l := openLog(t, fs)
	for i := range 5 {
		g := l.NewGroup()
		g.Append(testRecord(g.Next()))
		p := mustCommit(t, g)
		if err := l.WriteAnchor(p.Size(), p.Root()); err != nil {
			t.Fatal(err)
		}
		if size, root := l.Anchored(); size != p.Size() || root != p.Root() {
			t.Fatalf("anchored %d %x", size, root)
		}
		if n := l.Counters().AnchorSyncs; n != uint64(i+1) {
			t.Fatalf("%d anchor syncs after %d anchors", n, i+1)
		}
	}
	if err := l.WriteAnchor(6, l.Root()); err != nil || l.Counters().AnchorSyncs != 5 {
		t.Errorf("the same head again: %v, %d syncs", err, l.Counters().AnchorSyncs)
	}
	mustClose(t, l)
	l = openLog(t, fs)
	defer mustClose(t, l)
	if size, _ := l.Anchored(); size != 6 || l.Counters().AnchorSyncs != 0 {
		t.Errorf("start with an up-to-date anchor: size %d, %d syncs", size, l.Counters().AnchorSyncs)
	}
}

func ExampleAnchorError() {
	fmt.Println(&AnchorError{Kind: ErrNoAnchor, Detail: "the file is missing"})
	// Output:
	// log has no valid head anchor (the file is missing): put back the file anchor that belongs to this log, or restore the data directory from a backup
}
