package bench

import (
	"os"
	"runtime"
	"testing"
	"time"
)

func TestStatOfAProcess(t *testing.T) {
	const line = "42 (a) name (b)) S 1 42 42 0 -1 4194304 900 0 0 0 150 25 7 3 20 0 9 0 12345 1000000 321 18446744073709551615 1 1"
	got, err := parseStat([]byte(line))
	want := Usage{CPU: 1750 * time.Millisecond, Resident: 321 * int64(os.Getpagesize())}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "42 (name) S 1 2 3", "42 (name) S 1 42 42 0 -1 4194304 900 0 0 0 x 25 7 3 20 0 9 0 1 1 1 1"} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		if _, err := UsageOf(os.Getpid()); err == nil {
			t.Error("a usage without /proc")
		}
		return
	}
	before, err := UsageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	end := before.CPU + 2*clockTick
	for now := before; now.CPU < end; { // until time was counted
		if now, err = UsageOf(os.Getpid()); err != nil || now.Resident < 1<<20 {
			t.Fatalf("%+v, %v", now, err)
		}
	}
	if _, err := UsageOf(1 << 30); err == nil {
		t.Error("a usage of no process")
	}
}
