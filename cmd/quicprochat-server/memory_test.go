package main

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestTuneMemory(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64)
	defer func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) }()
	total := memoryTotal()
	if total <= 0 {
		t.Fatal("the machine's memory can't be told")
	}
	for _, c := range []struct {
		env     []string
		percent int
		limit   int64
	}{
		{nil, gcPercent, total / 100 * memoryShare},
		{[]string{"GOGC=50"}, 100, total / 100 * memoryShare},
		{[]string{"GOMEMLIMIT=1GiB"}, gcPercent, math.MaxInt64},
		{[]string{"GOGC=50", "GOMEMLIMIT=1GiB"}, 100, math.MaxInt64},
	} {
		debug.SetGCPercent(100)
		debug.SetMemoryLimit(math.MaxInt64)
		tuneMemory(c.env)
		gotLimit := debug.SetMemoryLimit(-1)
		if got := debug.SetGCPercent(100); got != c.percent || gotLimit != c.limit {
			t.Errorf("%v: GOGC %d and limit %d, want %d and %d", c.env, got, gotLimit, c.percent, c.limit)
		}
	}
}

func TestParseMemInfo(t *testing.T) {
	for text, want := range map[string]int64{
		"MemTotal:       16316412 kB\nMemFree: 1 kB\n": 16316412 << 10,
		"MemFree: 1 kB\nMemTotal: 8 kB\n":              8 << 10,
		"MemTotal: many kB\n":                          0,
		"MemTotal: 5 MB\n":                             0,
		"":                                             0,
	} {
		if got := parseMemInfo(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
