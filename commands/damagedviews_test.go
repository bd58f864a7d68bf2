package commands

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/projections"
)

// syncedBuffer takes what several goroutines log.
type syncedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncedBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), text)
}

// readBytes reads a file whole.
func readBytes(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Damaged views never prevent a start, whatever part of it reads them first: they
// are built anew within that start. Damage that only a reader meets later ends
// the engine, and the next start builds them anew.
func TestDamagedViewsNeedOneStart(t *testing.T) {
	disk := vfs.NewMem()
	b := newBed(t, disk)
	alice, bob := b.register(1), b.register(2)
	for i := range 40 {
		b.mustSend(alice, bob, uint64(i), "message")
	}
	b.close()
	names, err := disk.List(bedDir + "/views")
	if err != nil {
		t.Fatal(err)
	}
	var opening, midst, later, unmet int // who met the damage first
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		name = bedDir + "/views/" + name
		good := readBytes(t, disk, name)
		for at := 0; at < len(good); at += max(1, len(good)/25) {
			fs := vfs.NewMem()
			if _, err := vfs.Clone(disk, fs, bedDir, bedDir); err != nil {
				t.Fatal(err)
			}
			bad := bytes.Clone(good)
			bad[at] ^= 1
			overwrite(t, fs, name, bad)
			logged := &syncedBuffer{}
			harmed := &bed{t: t, fs: fs, vrf: b.vrf}
			o := Options{Logger: slog.New(slog.NewTextHandler(logged, nil))}
			harmed.open(o)
			switch ended, anew := logged.count("engine failed") > 0, logged.count("the views are built anew") > 0; {
			case ended:
				midst++
			case anew:
				opening++
			case !harmed.metDamage():
				unmet++
			default:
				later++
				harmed.close()
				harmed.open(o)
				if logged.count("the views are built anew") != 1 {
					t.Fatal("damage that was met is not cured by the next start")
				}
			}
			size := harmed.log.Size()
			if want, err := DigestOf(harmed.log, size); err != nil || harmed.digest() != want {
				t.Errorf("byte %d of %s: the views are not those of the log (%v)", at, name, err)
			}
			harmed.close()
		}
	}
	t.Logf("met by the opening %d times, later in the start %d, in use %d, by nobody %d", opening, midst, later, unmet)
	if opening+midst+later == 0 {
		t.Error("no damage was met: the test proves nothing")
	}
}

// metDamage reads all views, and tells whether that ended the engine.
func (b *bed) metDamage() bool {
	b.t.Helper()
	v, err := b.engine.View()
	if err != nil {
		b.t.Fatal(err)
	}
	defer v.Release()
	_, err = projections.Digest(v.Reader)
	damaged := (*projections.RebuildError)(nil)
	switch {
	case err == nil:
		return false
	case !errors.As(err, &damaged):
		b.t.Fatal(err)
	}
	select {
	case <-b.engine.Failed():
	default:
		b.t.Errorf("the engine goes on with damaged views: %v", err)
	}
	if text := b.engine.Err().Error(); !strings.Contains(text, "start again") {
		b.t.Errorf("%q does not say what to do", text)
	}
	return true
}
