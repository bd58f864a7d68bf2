package datadir

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// createCounting creates a directory on fs with an injector that is told the
// number of each file operation.
func createCounting(fs vfs.FS, at func(op int) error) (*Dir, int, error) {
	var mu sync.Mutex // the store works in the background, too
	count := 0
	wrapped := errorfs.Wrap(fs, errorfs.InjectorFunc(func(errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		count++
		return at(count)
	}))
	d, err := Open(context.Background(), wrapped, "/srv/data", Options{ServerName: "chat.example.org"})
	return d, count, err
}

// checkRecovered opens what a crash left: whatever it was, the next start gives
// a complete server whose parts belong together.
func checkRecovered(t *testing.T, fs vfs.FS) *Dir {
	t.Helper()
	d, err := Open(context.Background(), fs, "/srv/data", Options{ServerName: "chat.example.org"})
	if err != nil {
		t.Fatalf("the start after it: %v", err)
	}
	if config := openLog(t, d); config.Origin != "chat.example.org/1" {
		t.Errorf("origin %q", config.Origin)
	}
	if there, err := exists(fs, "/srv/data/.new"); there || err != nil {
		t.Errorf(".new/ is still there (%v)", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestPowerLossAtEveryOperation cuts the power before each file operation of a
// creation, with none, half and all of the unsynced blocks surviving, and again
// during the start that follows.
func TestPowerLossAtEveryOperation(t *testing.T) {
	_, total, err := createCounting(vfs.NewCrashableMem(), func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a creation has %d file operations", total)
	seed := rand.Uint64()
	step := 1
	if testing.Short() || os.Getenv("QPC_TEST_SCALE") == "race" {
		step = 7
	}
	for op := 1; op <= total; op += step {
		for _, percent := range []int{0, 50, 100} {
			t.Run(fmt.Sprintf("op=%d/unsynced=%d", op, percent), func(t *testing.T) {
				t.Logf("seed %d", seed)
				rng := rand.New(rand.NewPCG(seed, uint64(op*1000+percent)))
				disk := crashAt(t, vfs.NewCrashableMem(), op, percent, rng)
				disk = crashAt(t, disk, 1+rng.IntN(total), percent, rng)
				checkRecovered(t, disk)
			})
		}
	}
}

// crashAt runs a creation and returns the disk as a crash before operation op
// leaves it.
func crashAt(t *testing.T, fs *vfs.MemFS, op, percent int, rng *rand.Rand) *vfs.MemFS {
	t.Helper()
	var crashed *vfs.MemFS
	d, _, err := createCounting(fs, func(count int) error {
		if count == op {
			crashed = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
		}
		return nil
	})
	if err != nil {
		t.Fatalf("the start before the crash: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if crashed == nil { // the start had fewer operations
		crashed = fs.CrashClone(vfs.CrashCloneCfg{})
	}
	return crashed
}

// TestCreationIsDurable: once Open has returned, a power cut loses nothing of
// it, and the server is the same one afterwards.
func TestCreationIsDurable(t *testing.T) {
	disk := vfs.NewCrashableMem()
	d, _, err := createCounting(disk, func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	after := checkRecovered(t, disk.CrashClone(vfs.CrashCloneCfg{}))
	if after.Created || after.StoreID != d.StoreID || !after.Secrets.LogKey.Equal(d.Secrets.LogKey) {
		t.Error("after a power cut it is another server")
	}
}

var errDisk = errors.New("input/output error")

// TestErrorAtEveryOperation fails each file operation of a creation once, but
// for those inside the log's store. Open either bears it or says so; the next
// one, on a healthy disk, succeeds.
func TestErrorAtEveryOperation(t *testing.T) {
	_, total, err := createFailing(vfs.NewMem(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a creation has %d file operations outside of the store", total)
	failed := 0
	for op := 1; op <= total; op++ {
		fs := vfs.NewCrashableMem()
		d, _, err := createFailing(fs, op)
		switch {
		case err == nil:
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		case !errors.Is(err, errDisk):
			t.Errorf("operation %d failed, but the error is another one: %v", op, err)
		default:
			failed++
		}
		// A copy, because a store that could not be opened keeps its lock for as
		// long as its process lives.
		disk := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
		t.Run(fmt.Sprintf("op=%d", op), func(t *testing.T) { checkRecovered(t, disk) })
	}
	if failed < total/2 {
		t.Errorf("of %d failing operations only %d were noticed", total, failed)
	}
}

// createFailing creates a directory while one file operation fails, and counts
// them.
func createFailing(fs vfs.FS, fail int) (d *Dir, count int, err error) {
	var mu sync.Mutex
	wrapped := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(op.Path+"/", "/log/") {
			return nil
		}
		if count++; count == fail {
			return errDisk
		}
		return nil
	}))
	d, err = Open(context.Background(), wrapped, "/srv/data", Options{ServerName: "chat.example.org"})
	return d, count, err
}
