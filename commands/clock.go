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
	start time.Time     // carries wall and monotonic reading
	last  atomic.Uint64 // time of the newest decided event, Unix milliseconds
	// jump is added to the wall clock by tests that make it jump.
	jump atomic.Int64
}

func newClock() *clock { return &clock{start: time.Now()} }

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

func (c *clock) wall() time.Time {
	return time.Now().Round(0).Add(time.Duration(c.jump.Load()))
}

// nowMS is the decision time in Unix milliseconds.
func (c *clock) nowMS() uint64 {
	return max(uint64(max(c.wall().UnixMilli(), 0)), c.last.Load())
}

// decided notes the time of an event, so that no later one lies before it.
func (c *clock) decided(ms uint64) { c.last.Store(ms) }

// drift is how far the wall clock moved against the monotonic clock since the
// start.
func (c *clock) drift() time.Duration {
	monotonic := time.Since(c.start)
	return c.wall().Sub(c.start.Round(0)) - monotonic
}

// check refuses mutations while the wall clock can't be trusted.
func (c *clock) check() error {
	if d := c.drift(); d > maxDrift || d < -maxDrift {
		return Refuse(pb.Status_Unavailable, pb.Reason_CLOCK, "the server's clock jumped; changes wait for its operator")
	}
	return nil
}
