package bench

import (
	"math/bits"
	"time"
)

// Histogram counts latencies in buckets of 1/32 of a power of two, so that a
// quantile is exact to about 3 %. The zero Histogram is empty and ready; it is
// not safe for concurrent use.
type Histogram struct {
	counts [64 * steps]uint64
	total  uint64
}

// steps is the number of buckets per power of two of microseconds.
const steps = 32

// Note counts one latency, in steps of a microsecond.
func (h *Histogram) Note(latency time.Duration) {
	h.counts[bucket(uint64(max(latency.Microseconds(), 0)))]++
	h.total++
}

// Add counts everything that other counted.
func (h *Histogram) Add(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
}

// Quantile returns the latency that a share q (0 … 1) of the calls did not
// exceed; 0 when nothing was counted.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.total))
	var seen uint64
	for i, n := range h.counts {
		seen += n
		if n > 0 && (seen > rank || seen == h.total) {
			return time.Duration(upper(i)) * time.Microsecond
		}
	}
	return 0
}

// bucket: values below steps have a bucket each; above, the five bits after the
// leading one choose the bucket within the power of two.
func bucket(us uint64) int {
	if us < steps {
		return int(us)
	}
	shift := bits.Len64(us) - 6
	return (shift+1)*steps + int(us>>shift) - steps
}

// upper is the largest value of a bucket, in microseconds.
func upper(i int) uint64 {
	if i < steps {
		return uint64(i)
	}
	shift := i/steps - 1
	return (uint64(i%steps+steps)+1)<<shift - 1
}
