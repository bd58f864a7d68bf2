// Package bench drives load over the SDK's own path and reports rates and
// latencies. A load is a closed loop: a fixed number of calls is in flight, and
// each answer is followed by the next call, so that a slow server is asked less
// and never buried.
//
//	connections × workers per connection = in flight
//	worker: call → answer → note the latency → call …
//
// Ratios count, not absolute rates: a baseline is measured in slices that
// alternate with those of the load, in the same run.
package bench

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Load says how hard to drive.
type Load struct {
	// Connections is the number of QUIC connections.
	Connections int
	// InFlight is the number of calls under way at once, over all connections.
	InFlight int
	// Payload is the length of a message in bytes.
	Payload int
	// Duration is how long calls are started, per measured server.
	Duration time.Duration
}

// Call makes one call over a connection (0 … Connections-1); payload is the
// worker's own buffer of fresh random bytes.
type Call func(ctx context.Context, connection int, payload []byte) error

// Measured is what a loop saw.
type Measured struct {
	// Answered counts calls that were answered Ok, Failed the others.
	Answered, Failed uint64
	// Elapsed is the time from the first call to the last answer.
	Elapsed time.Duration
	// Latencies of the calls that were answered Ok.
	Latencies Histogram
	// FirstError is the first failure, nil without one.
	FirstError error
}

// PerSecond is the rate of answered calls.
func (m *Measured) PerSecond() float64 {
	if m.Elapsed <= 0 {
		return 0
	}
	return float64(m.Answered) / m.Elapsed.Seconds()
}

// add joins another slice of the same load.
func (m *Measured) add(other *Measured) {
	m.Answered += other.Answered
	m.Failed += other.Failed
	m.Elapsed += other.Elapsed
	m.Latencies.Add(&other.Latencies)
	if m.FirstError == nil {
		m.FirstError = other.FirstError
	}
}

// maxFailures ends a slice early: a server that refuses everything need not be
// asked for the whole duration.
const maxFailures = 1000

// Run drives one slice of the load for a time. It returns when every call that
// was started is answered.
func (l Load) Run(ctx context.Context, length time.Duration, call Call) *Measured {
	var (
		workers  sync.WaitGroup
		failures atomic.Int64
		results  = make([]Measured, l.InFlight)
		begin    = time.Now()
		end      = begin.Add(length)
	)
	for worker := range l.InFlight {
		workers.Go(func() {
			mine := &results[worker]
			payload := newPayload(l.Payload)
			for now := time.Now(); now.Before(end) && ctx.Err() == nil && failures.Load() < maxFailures; {
				payload.next()
				err := call(ctx, worker%l.Connections, payload.bytes)
				answered := time.Now()
				if err == nil {
					mine.Answered++
					mine.Latencies.Note(answered.Sub(now))
				} else {
					failures.Add(1)
					mine.Failed++
					if mine.FirstError == nil {
						mine.FirstError = err
					}
				}
				now = answered
			}
		})
	}
	workers.Wait()
	total := new(Measured)
	for i := range results {
		total.add(&results[i])
	}
	total.Elapsed = time.Since(begin)
	return total
}
