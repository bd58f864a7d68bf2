package commands

import (
	"fmt"
	"sync/atomic"
	"time"

	pb "quicprochat/proto/qpcv1"
)

const (
	// maxDrift is how far the wall clock may move against the monotonic clock
	// while the server runs. A jump would expire what is alive, or pin the
	// log's time to a future that every later event inherits.
	maxDrift = 5 * time.Second
	// maxAhead is how far the last event may lie in the future at start.
	maxAhead = 5 * time.Minute
	// maxGap is how long ago the last event may lie at start.
	maxGap = 7 * 24 * time.Hour
)

// ClockError refuses a start because clock and log contradict each other.
// Deciding on would write the clock's error into the log for ever.
type ClockError struct {
	Wall time.Time // the machine's clock
	Last time.Time // time of the newest event
}

func (e *ClockError) Error() string {
	const layout = "2006-01-02 15:04:05 UTC"
	wall, last := e.Wall.UTC().Format(layout), e.Last.UTC().Format(layout)
	if e.Last.After(e.Wall) {
		return fmt.Sprintf("the clock says %s, but the newest event of the log is of %s: set the clock right, or start with --accept-time if the log's time is the wrong one", wall, last)
	}
	return fmt.Sprintf("the clock says %s, more than %d days after the newest event of the log (%s): check the clock, then start with --accept-time if the server was really off so long", wall, int(maxGap/(24*time.Hour)), last)
}

// clock is the one place where time enters. Decision time never runs back: it
// is max(wall clock, time of the last event).
type clock struct {
	now   func() time.Time // the wall clock
	wall0 time.Time        // … at the start
	began time.Time        // carries the monotonic reading of the start
	last  atomic.Uint64    // time of the newest decided event, Unix milliseconds
}

// newClock starts on a wall clock; nil means the machine's.
func newClock(now func() time.Time) *clock {
	if now == nil {
		now = time.Now
	}
	c := &clock{now: now, began: time.Now()}
	c.wall0 = c.wall()
	return c
}

// checkStart applies the rules for a start to the time of the newest event.
func (c *clock) checkStart(lastMS uint64, accept bool) error {
	c.last.Store(lastMS)
	wall := c.wall()
	last := time.UnixMilli(int64(lastMS))
	if accept || (last.Sub(wall) <= maxAhead && wall.Sub(last) <= maxGap) {
		return nil
	}
	return &ClockError{Wall: wall, Last: last}
}

func (c *clock) wall() time.Time { return c.now().Round(0) }

// nowMS is the decision time in Unix milliseconds. A wall clock that jumped is
// not believed: reads go on meanwhile, and must take nothing for expired, or for
// alive, that is not.
func (c *clock) nowMS() uint64 {
	wall := c.wall()
	if drift := c.driftOf(wall); jumped(drift) {
		wall = wall.Add(-drift)
	}
	return max(uint64(max(wall.UnixMilli(), 0)), c.last.Load())
}

// decided notes the time of an event, so that no later one lies before it.
func (c *clock) decided(ms uint64) { c.last.Store(ms) }

// drift is how far the wall clock moved against the monotonic clock since the
// start.
func (c *clock) drift() time.Duration { return c.driftOf(c.wall()) }

func (c *clock) driftOf(wall time.Time) time.Duration {
	return wall.Sub(c.wall0) - time.Since(c.began)
}

func jumped(drift time.Duration) bool { return drift > maxDrift || drift < -maxDrift }

// check refuses mutations while the wall clock can't be trusted.
func (c *clock) check() error {
	if jumped(c.drift()) {
		return Refuse(pb.Status_Unavailable, pb.Reason_CLOCK, "the server's clock jumped; changes wait for its operator")
	}
	return nil
}
