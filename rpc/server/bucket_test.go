package server

import (
	"math/rand/v2"
	"testing"
	"time"
)

func key(n byte) bucketKey { return bucketKey{kind: 1, a: [16]byte{n}} }

func TestBucketBurstAndRefill(t *testing.T) {
	b := newBuckets()
	budget := budget{burst: 3, interval: time.Second}
	take := func(now time.Duration) (time.Duration, bool) {
		return b.take(now, charge{key(1), budget, 1})
	}
	now := 10 * time.Second
	for i := range 3 {
		if _, ok := take(now); !ok {
			t.Fatalf("call %d of the burst refused", i)
		}
	}
	if wait, ok := take(now); ok || wait != time.Second {
		t.Errorf("fourth: %v, wait %v", ok, wait)
	}
	if wait, ok := take(now + 400*time.Millisecond); ok || wait != 600*time.Millisecond {
		t.Errorf("too early: %v, wait %v", ok, wait)
	}
	if _, ok := take(now + time.Second); !ok {
		t.Error("after the wait it was refused")
	}
	if _, ok := take(now + time.Second); ok {
		t.Error("one interval gave two tokens")
	}
	for i := range 3 { // a long silence fills no more than the burst
		if _, ok := take(now + time.Hour); !ok {
			t.Errorf("call %d after an hour refused", i)
		}
	}
	if _, ok := take(now + time.Hour); ok {
		t.Error("the bucket holds more than its burst")
	}
}

// TestBucketAllOrNothing: a charge that fails gives back those before it.
func TestBucketAllOrNothing(t *testing.T) {
	b := newBuckets()
	small, large := budget{1, time.Second}, budget{2, time.Second}
	if _, ok := b.take(0, charge{key(1), large, 1}, charge{key(2), small, 1}); !ok {
		t.Fatal("refused")
	}
	for range 5 {
		if _, ok := b.take(0, charge{key(1), large, 1}, charge{key(2), small, 1}); ok {
			t.Fatal("the small bucket gave a second token")
		}
	}
	if _, ok := b.take(0, charge{key(1), large, 1}); !ok {
		t.Error("the refused calls were charged to the large bucket")
	}
}

// TestBucketDebt: a price above the burst needs a full bucket and leaves debt.
func TestBucketDebt(t *testing.T) {
	b := newBuckets()
	budget := budget{burst: 60, interval: time.Second}
	if _, ok := b.take(0, charge{key(1), budget, 1000}); !ok {
		t.Fatal("a full bucket refused")
	}
	if wait, ok := b.take(0, charge{key(1), budget, 1}); ok || wait != 941*time.Second {
		t.Errorf("after it: %v, wait %v, want 941 s", ok, wait)
	}
	if _, ok := b.take(941*time.Second, charge{key(1), budget, 1}); !ok {
		t.Error("after the debt was paid it was refused")
	}
}

// TestBucketAgainstModel compares with the textbook's token bucket.
func TestBucketAgainstModel(t *testing.T) {
	const seed = 7
	random := rand.New(rand.NewPCG(seed, 1))
	b := newBuckets()
	budget := budget{burst: 5, interval: 100 * time.Millisecond}
	tokens, last, now := 5.0, time.Duration(0), time.Duration(0)
	for i := range 10_000 {
		now += time.Duration(random.IntN(200)) * time.Millisecond
		tokens = min(5, tokens+float64(now-last)/float64(budget.interval))
		last = now
		_, got := b.take(now, charge{key(1), budget, 1})
		want := tokens >= 1-1e-9
		if want {
			tokens--
		}
		if got != want {
			t.Fatalf("seed %d, call %d at %v: %v, the model says %v", seed, i, now, got, want)
		}
	}
}

// TestBucketMemory charges more keys than a shard holds, none of which is full
// again.
func TestBucketMemory(t *testing.T) {
	s := bucketShard{full: make(map[bucketKey]int64)}
	budget := budget{burst: 1, interval: time.Hour}
	for i := range shardCapacity + 10_000 {
		k := bucketKey{kind: 2}
		k.b[0], k.b[1], k.b[2] = byte(i), byte(i>>8), byte(i>>16)
		if _, ok := s.take(0, charge{k, budget, 1}); !ok {
			t.Fatalf("new key %d refused", i)
		}
	}
	if len(s.full) > shardCapacity {
		t.Errorf("the shard holds %d", len(s.full))
	}
	// Once they are full again they are forgotten.
	s.take(int64(2*time.Hour), charge{key(1), budget, 1})
	if len(s.full) != 1 {
		t.Errorf("after two hours the shard holds %d", len(s.full))
	}
}
