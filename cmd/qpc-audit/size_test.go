package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// keyEvents is how many key events the audit of key events alone reads.
func keyEvents() int {
	switch os.Getenv("QPC_TEST_SCALE") {
	case "race":
		return 5_000
	case "nightly", "release":
		return 1_000_000
	}
	return 100_000
}

// addKeys appends n key events, a head after so many of them and another event
// before each head, and publishes.
func (l *fakeLog) addKeys(n, perHead int) {
	l.t.Helper()
	for i := range n {
		l.add(ktLeaf(uint64(i) << 20))
		if i%perHead == 0 {
			l.add(opaqueLeaf(uint64(i)))
			l.seal()
		}
	}
	l.seal()
	l.publish()
}

// TestKTOnlyAtSize audits a log of many key events, each among others, by its
// deltas, stops and goes on. How long it takes is told, not asserted.
func TestKTOnlyAtSize(t *testing.T) {
	a := newAudited(t, "--kt-only")
	n := keyEvents()
	a.addKeys(n, 100)
	begin := time.Now()
	a.want(exitSatisfied)
	t.Logf("%d key events, %d leaves: first audit in %v", n, a.size(), time.Since(begin))
	a.grow(10)
	begin = time.Now()
	a.want(exitSatisfied)
	t.Logf("the next run, from the stored state: %v", time.Since(begin))
}

// BenchmarkAudit is a first audit of QPC_BENCH_KEY_EVENTS key events, from the
// first request to the report, with the state and what was verified on the disk.
// A head after each key event is what a server writes whose people come one by
// one; one after many, what it writes when they come together.
func BenchmarkAudit(b *testing.B) {
	n := 2_000
	if text := os.Getenv("QPC_BENCH_KEY_EVENTS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	for _, perHead := range []int{1, 100} {
		a := newAudited(b)
		a.addKeys(n, perHead)
		folder, runs := b.TempDir(), 0
		for _, mode := range []struct {
			name  string
			flags []string
		}{{"kt-only", []string{"--kt-only"}}, {"all", nil}} {
			b.Run(fmt.Sprintf("%s/keys-per-head=%d", mode.name, perHead), func(b *testing.B) {
				a.flags = mode.flags
				for b.Loop() {
					runs++
					a.state = filepath.Join(folder, strconv.Itoa(runs))
					a.want(exitSatisfied)
				}
				b.ReportMetric(float64(a.size()), "leaves")
			})
		}
	}
}
