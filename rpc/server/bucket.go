package server

import (
	"hash/maphash"
	"sync"
	"time"
)

// budget is the shape of a token bucket: burst calls at once, then one per
// interval.
type budget struct {
	burst    int
	interval time.Duration
}

// tolerance is how far ahead of the clock a bucket's time may run.
func (b budget) tolerance() int64 { return int64(b.burst) * int64(b.interval) }

// bucketKey names one bucket: its kind, and who or what is charged, in as many
// of the two parts as that needs.
type bucketKey struct {
	kind uint8
	a    [16]byte
	b    [32]byte
}

const (
	bucketShards = 16
	// shardCapacity bounds memory: beyond it, and when nothing has run full
	// again, some bucket is forgotten for each new one. An attacker who fills
	// the table gains that a few strangers get a new budget, and locks nobody
	// out.
	shardCapacity = 1 << 15
)

// buckets are token buckets in the form of the generic cell rate algorithm
// (ITU-T I.371): of each only the time is kept at which it will be full again.
// A bucket that is full needs no memory.
type buckets struct {
	seed   maphash.Seed
	shards [bucketShards]bucketShard
}

type bucketShard struct {
	mu   sync.Mutex
	full map[bucketKey]int64 // monotonic nanoseconds
	next int64               // when sweeping makes sense again
}

func newBuckets() *buckets {
	b := &buckets{seed: maphash.MakeSeed()}
	for i := range b.shards {
		b.shards[i].full = make(map[bucketKey]int64)
	}
	return b
}

// charge is one price to be paid from one bucket.
type charge struct {
	key    bucketKey
	budget budget
	tokens int
}

// take pays all charges or none. When one bucket lacks tokens it returns how
// long to wait. A price above a bucket's burst is paid by a full bucket, which
// then is in debt. now is a monotonic time.
func (b *buckets) take(now time.Duration, charges ...charge) (wait time.Duration, ok bool) {
	for i, c := range charges {
		if wait, ok = b.shard(c.key).take(int64(now), c); !ok {
			for _, paid := range charges[:i] {
				b.shard(paid.key).give(paid)
			}
			return wait, false
		}
	}
	return 0, true
}

func (b *buckets) shard(k bucketKey) *bucketShard {
	return &b.shards[maphash.Comparable(b.seed, k)%bucketShards]
}

func (s *bucketShard) take(now int64, c charge) (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	full, known := s.full[c.key]
	full = max(full, now)
	needed := int64(min(c.tokens, c.budget.burst)) * int64(c.budget.interval)
	if wait := full + needed - now - c.budget.tolerance(); wait > 0 {
		return time.Duration(wait), false
	}
	if !known {
		s.makeRoom(now)
	}
	s.full[c.key] = full + int64(c.tokens)*int64(c.budget.interval)
	return 0, true
}

func (s *bucketShard) give(c charge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if full, known := s.full[c.key]; known {
		s.full[c.key] = full - int64(c.tokens)*int64(c.budget.interval)
	}
}

// makeRoom forgets full buckets, at most once a second, and one more when that
// did not help.
func (s *bucketShard) makeRoom(now int64) {
	if len(s.full) < shardCapacity {
		return
	}
	if now >= s.next {
		s.next = now + int64(time.Second)
		for k, full := range s.full {
			if full <= now {
				delete(s.full, k)
			}
		}
	}
	for k := range s.full {
		if len(s.full) < shardCapacity {
			return
		}
		delete(s.full, k)
	}
}
