package main

import (
	"fmt"
	"io"
	"time"
)

// progress tells of long runs, on standard error.
type progress struct {
	w     io.Writer
	begin time.Time // of this run
	first uint64    // where it began
	last  time.Time // when something was told
}

func newProgress(w io.Writer) *progress { return &progress{w: w} }

const (
	// progressAfter is how long a run may be silent.
	progressAfter = 3 * time.Second
	// runGap parts two runs: within one, leaves come faster.
	runGap = 30 * time.Second
)

// tell is called after each resource.
func (p *progress) tell(done, total uint64) {
	now := time.Now()
	if p.begin.IsZero() || now.Sub(p.last) > runGap || done < p.first {
		p.begin, p.first, p.last = now, done, now
	}
	if now.Sub(p.last) < progressAfter {
		return
	}
	p.last = now
	rate := float64(done-p.first) / now.Sub(p.begin).Seconds()
	left := "?"
	if rate > 0 {
		left = time.Duration(float64(total-done) / rate * float64(time.Second)).Round(time.Second).String()
	}
	fmt.Fprintf(p.w, "reading the log: %d of %d leaves (%.0f a second, %s left)\n", done, total, rate, left)
}
