package log

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// tablesOf lists the table files of a store.
func tablesOf(t testing.TB, fs vfs.FS) (out []string) {
	t.Helper()
	names, err := fs.List(path.Join(testDir, storeDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			out = append(out, path.Join(testDir, storeDir, name))
		}
	}
	return out
}

// wantDamageSaid checks that an error says what is damaged and what to do: not
// that a disk is full which is not.
func wantDamageSaid(t *testing.T, when, file string, err error) {
	t.Helper()
	if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrShorterThanAnchor) && !errors.Is(err, ErrRootMismatch) {
		t.Fatalf("%s: %s: %v", when, file, err)
	}
	var record *CorruptError
	if text := err.Error(); !strings.Contains(text, restoreRemedy) || strings.Contains(text, "make room") {
		t.Fatalf("%s: %s: %v", when, file, err)
	} else if !errors.As(err, &record) && errors.Is(err, ErrCorrupt) && !strings.Contains(text, path.Base(file)) {
		t.Fatalf("%s: %s is not named: %v", when, file, err)
	}
}

// A damaged table is reported as what it is, whoever meets it: the start, a
// reader, or the store's own work, which tries again and again. Pebble may be
// left with goroutines, so this runs in a process of its own.
func TestDamagedTables(t *testing.T) {
	if !leakProcess() {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDamagedTables$", "-test.v", fmt.Sprintf("-seed=%d", *seedFlag))
		cmd.Env = append(os.Environ(), leakVariable+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	rng := seeded(t)
	disk := newCrashDisk(t)
	createLog(t, disk)
	met := map[string]int{}
	damage := func(table string, good []byte) {
		bad := bytes.Clone(good)
		bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		fs := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
		writeFile(t, fs, table, bad)
		met[useDamaged(t, fs, table, rng.IntN(2) == 0)]++
	}
	for range 8 { // the tables of which a start compacts; a start makes one more
		l := openLog(t, disk)
		for range 3 {
			g := l.NewGroup()
			for range 40 {
				g.PutPayload(testPayload(g.Append(testRecord(g.Next()))))
			}
			mustCommit(t, g)
		}
		mustClose(t, l)
		for _, table := range tablesOf(t, disk) {
			good := readFile(t, disk, table)
			for range scaled(6, 60) {
				damage(table, good)
			}
		}
	}
	// The start reads so much that few damages are left for the records: go on until
	// one was, but not for ever.
	all := []string{"start", "records", "payloads", "compaction"}
	for tries := 0; tries < 1000 && slices.ContainsFunc(all, func(when string) bool { return met[when] == 0 }); tries++ {
		tables := tablesOf(t, disk)
		table := tables[rng.IntN(len(tables))]
		damage(table, readFile(t, disk, table))
	}
	t.Log(met)
	for _, when := range all {
		if met[when] == 0 {
			t.Errorf("no damage was met by %s: %v", when, met)
		}
	}
}

// useDamaged uses a log of which a table is damaged until that is met, and tells
// by what.
func useDamaged(t *testing.T, fs vfs.FS, table string, compact bool) string {
	t.Helper()
	l, err := Open(fs, testDir, testOptions())
	if err != nil {
		wantDamageSaid(t, "start", table, err)
		return "start"
	}
	defer l.Close() // it failed
	when := "compaction"
	if compact {
		err = l.Compact(t.Context(), 1<<30)
	}
	if err == nil {
		when, err = "records", l.Iterate(0, l.Size(), func(uint64, Record) error { return nil })
	}
	for i := uint64(1); err == nil && i < l.Size(); i++ {
		when = "payloads"
		k, _ := testPayload(i)
		_, _, err = l.Payload(k)
	}
	if err == nil {
		return "nobody"
	}
	select {
	case <-l.Failed():
	default:
		t.Fatalf("%s: %s: the log goes on after %v", when, table, err)
	}
	wantDamageSaid(t, when, table, l.Err())
	return when
}
