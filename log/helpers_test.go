package log

import (
	"encoding/binary"
	"flag"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"quicprochat/kt"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0: a new one")

// leakVariable marks a child process of a test that cannot help leaving goroutines behind.
const leakVariable = "QPC_LOG_TEST_LEAKS"

func leakProcess() bool { return os.Getenv(leakVariable) != "" }

func TestMain(m *testing.M) {
	fewerUnderRace()
	flag.Parse()
	if leakProcess() {
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}

// scaled picks a number by QPC_TEST_SCALE: few in every run, many at night and before a release.
func scaled(few, many int) int {
	switch os.Getenv("QPC_TEST_SCALE") {
	case "nightly", "release":
		return many
	}
	return few
}

// stride is how far apart sampled places lie: with the race detector, which makes each several times as dear and is
// after other faults, eight times as far.
func stride(usual, dense int) int {
	if os.Getenv("QPC_TEST_SCALE") == "race" {
		return 8 * usual
	}
	return scaled(usual, dense)
}

// fewerUnderRace lets rapid draw 10 cases instead of 100 there, unless the command line says how many.
func fewerUnderRace() {
	if os.Getenv("QPC_TEST_SCALE") == "race" {
		flag.Set("rapid.checks", "10")
	}
}

const testDir = "data"

var testStore = [16]byte{'s', 't', 'o', 'r', 'e'}

// seeded gives randomness whose seed is printed when the test fails.
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed: -args -seed=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// testRecord derives a record from its index, so that every reader can check what it reads.
func testRecord(i uint64) Record {
	leaf := make([]byte, 33)
	leaf[0] = byte(kt.ClassOpaque)
	binary.BigEndian.PutUint64(leaf[1:], i)
	event := make([]byte, 16+i%50)
	for j := range event {
		event[j] = byte(i) + byte(j)
	}
	r := Record{Leaf: leaf, Event: event}
	binary.BigEndian.PutUint64(r.Opening[:], ^i)
	if i%97 == 0 {
		r.Leaf = append(r.Leaf, make([]byte, 32)...) // leaves of other classes are longer
	}
	return r
}

func testPayload(i uint64) (PayloadKey, []byte) {
	var k PayloadKey
	k.Owner[0] = byte(i % 3)
	binary.BigEndian.PutUint64(k.ID[:], i)
	data := make([]byte, 10+i%200)
	for j := range data {
		data[j] = byte(i * 7)
	}
	return k, data
}

// newCrashDisk gives a disk with a durable, empty data directory, as Create expects one.
func newCrashDisk(t testing.TB) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewCrashableMem()
	if err := fs.MkdirAll(testDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syncDir(fs, "/"); err != nil {
		t.Fatal(err)
	}
	return fs
}

func createLog(t testing.TB, fs vfs.FS) {
	t.Helper()
	if err := fs.MkdirAll(testDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Create(fs, testDir, testStore, testRecord(0)); err != nil {
		t.Fatal(err)
	}
}

func testOptions() Options {
	return Options{StoreID: testStore, CacheBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler)}
}

func openLog(t testing.TB, fs vfs.FS) *Log {
	t.Helper()
	l, err := Open(fs, testDir, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newLogForTest creates and opens a log in memory and closes it at the end of the test.
func newLogForTest(t testing.TB) *Log {
	t.Helper()
	fs := vfs.NewMem()
	createLog(t, fs)
	l := openLog(t, fs)
	t.Cleanup(func() { mustClose(t, l) })
	return l
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// appendRecords commits the next n test records as one group and waits.
func appendRecords(t testing.TB, l *Log, n int) {
	t.Helper()
	g := l.NewGroup()
	for range n {
		g.Append(testRecord(g.Next()))
	}
	mustCommit(t, g)
}

func mustCommit(t testing.TB, g *Group) *Pending {
	t.Helper()
	p, err := g.Commit()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	return p
}
