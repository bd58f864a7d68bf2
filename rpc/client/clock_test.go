package client

import (
	"bytes"
	"slices"
	"testing"
	"time"
)

func TestRequestIDs(t *testing.T) {
	var c clock
	seen := make(map[[requestIDSize]byte]bool)
	for range 10_000 {
		id := c.newRequestID()
		checkUUIDv7(t, id[:])
		if seen[id] {
			t.Fatalf("%x came twice", id)
		}
		seen[id] = true
		if off := time.Since(idTime(id[:])); off < -time.Second || off > time.Minute {
			t.Fatalf("%x is %s old", id, off)
		}
	}
}

func TestRequestIDsSortByTime(t *testing.T) {
	var c clock
	var ids [][]byte
	for i := range 5 {
		c.offset.Store(int64(i) * 1000)
		id := c.newRequestID()
		ids = append(ids, id[:])
	}
	if !slices.IsSortedFunc(ids, bytes.Compare) {
		t.Errorf("%x", ids)
	}
}

func TestClockLearns(t *testing.T) {
	start := time.UnixMilli(1_000_000)
	for _, tt := range []struct {
		name   string
		server uint64
		took   time.Duration
		want   int64
	}{
		{"ahead", 1_005_000, 0, 5000},
		{"behind", 900_000, 0, -100_000},
		{"half the round trip", 1_005_000, 200 * time.Millisecond, 4900},
		{"not told", 0, 0, 0},
		{"nonsense", 1 << 60, 0, 0},
	} {
		var c clock
		c.learn(tt.server, start, start.Add(tt.took))
		if got := c.offset.Load(); got != tt.want {
			t.Errorf("%s: offset %d ms, want %d", tt.name, got, tt.want)
		}
	}
}

// A server that claims a time before 1970 can't make the id wrap.
func TestRequestIDBeforeTheEpoch(t *testing.T) {
	var c clock
	c.offset.Store(-1 << 50)
	id := c.newRequestID()
	if got := idTime(id[:]); got.UnixMilli() != 0 {
		t.Errorf("time %s", got)
	}
}
