package main

import (
	"os"
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

// TestKTOnlyAtSize audits a log of many key events, each among others, by its
// deltas, stops and goes on. How long it takes is told, not asserted.
func TestKTOnlyAtSize(t *testing.T) {
	a := newAudited(t, "--kt-only")
	n := keyEvents()
	for i := range n {
		a.add(ktLeaf(uint64(i) << 20))
		if i%100 == 0 {
			a.add(opaqueLeaf(uint64(i)))
			a.seal()
		}
	}
	a.seal()
	a.publish()
	begin := time.Now()
	a.want(exitSatisfied)
	t.Logf("%d key events, %d leaves: first audit in %v", n, a.size(), time.Since(begin))
	a.grow(10)
	begin = time.Now()
	a.want(exitSatisfied)
	t.Logf("the next run, from the stored state: %v", time.Since(begin))
}
