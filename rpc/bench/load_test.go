package bench

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestQuantilesAreCloseToSorted(t *testing.T) {
	seed := rand.Uint64()
	source := rand.New(rand.NewPCG(seed, 1))
	var h Histogram
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(math.Exp(source.Float64()*14)) * time.Microsecond
		all = append(all, d)
		h.Note(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
		want := float64(all[min(int(q*float64(len(all))), len(all)-1)])
		if got := float64(h.Quantile(q)); got < want || got > want*1.04+2000 {
			t.Errorf("seed %d: quantile %v is %v, want %v", seed, q, time.Duration(got), time.Duration(want))
		}
	}
}

func TestBucketsAreMonotoneAndTight(t *testing.T) {
	for _, us := range []uint64{0, 1, 31, 32, 33, 63, 64, 65, 1000, 1 << 20, 1<<40 + 12345, math.MaxUint64 >> 1} {
		i := bucket(us)
		if upper(i) < us || (i > 0 && upper(i-1) >= us) {
			t.Errorf("%d µs lies in bucket %d, which ends at %d (the one before at %d)", us, i, upper(i), upper(i-1))
		}
	}
	if (&Histogram{}).Quantile(0.99) != 0 {
		t.Error("an empty histogram has a quantile")
	}
}

// TestClosedLoop: with virtual time the numbers are exact.
func TestClosedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		load := Load{Connections: 4, InFlight: 32, Payload: 64}
		got := load.Run(t.Context(), time.Second, func(context.Context, int, []byte) error {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(10 * time.Millisecond)
			now.Add(-1)
			return nil
		})
		if got.Answered != 32*100 || got.Failed != 0 || most.Load() != 32 {
			t.Errorf("answered %d, failed %d, at most %d in flight", got.Answered, got.Failed, most.Load())
		}
		if rate := got.PerSecond(); rate != 3200 {
			t.Errorf("rate %v", rate)
		}
		if p99 := got.Latencies.Quantile(0.99); p99 < 10*time.Millisecond || p99 > 11*time.Millisecond {
			t.Errorf("p99 %v", p99)
		}
	})
}

func TestFailuresEndTheLoad(t *testing.T) {
	refused := errors.New("refused")
	load := Load{Connections: 1, InFlight: 8, Payload: 8}
	got := load.Run(t.Context(), time.Hour, func(context.Context, int, []byte) error { return refused })
	if got.Answered != 0 || got.Failed < maxFailures || !errors.Is(got.FirstError, refused) {
		t.Errorf("answered %d, failed %d, first error %v", got.Answered, got.Failed, got.FirstError)
	}
}

func TestPayloadsDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lock sync.Mutex
		seen := map[string]bool{}
		load := Load{Connections: 1, InFlight: 4, Payload: 32}
		got := load.Run(t.Context(), time.Second, func(_ context.Context, _ int, payload []byte) error {
			time.Sleep(time.Millisecond)
			lock.Lock()
			defer lock.Unlock()
			if seen[string(payload)] {
				t.Error("a payload came twice")
			}
			seen[string(payload)] = true
			return nil
		})
		if len(seen) != 4*1000 || uint64(len(seen)) != got.Answered {
			t.Errorf("%d payloads in %d calls", len(seen), got.Answered)
		}
	})
}
