package commands

import (
	"context"
	"time"
)

const (
	// compactCheckEvery is how often a compaction may be found due.
	compactCheckEvery = time.Minute
	// quietEvents is how many events came at most between two looks in a quiet
	// moment: one a second.
	quietEvents = 60
	// compactLatest is when in a UTC day a compaction no longer waits for a quiet
	// moment.
	compactLatest = 22 * time.Hour
	// compactRetry is how long a compaction waits that failed.
	compactRetry = time.Hour
)

// compaction decides when the log is compacted: once a UTC day, at its first
// quiet moment. What an earlier run of the server did is not known, so that a
// start is followed by one as well; where nothing was deleted it costs nothing.
type compaction struct {
	done   uint64    // UTC day of the last one, 0: none in this run
	wait   time.Time // not before
	events uint64    // committed by this run, at the last look
}

// due looks at a moment: the server's time in Unix milliseconds, and how many
// events were committed so far.
func (c *compaction) due(nowMS, events uint64) bool {
	fresh := events - c.events
	c.events = events
	if c.done == nowMS/dayMS || time.UnixMilli(int64(nowMS)).Before(c.wait) {
		return false
	}
	return fresh <= quietEvents || nowMS%dayMS >= uint64(compactLatest.Milliseconds())
}

// ended notes how a compaction that began at a time went.
func (c *compaction) ended(nowMS uint64, err error) {
	if err != nil {
		c.wait = time.UnixMilli(int64(nowMS)).Add(compactRetry)
		return
	}
	c.done = nowMS / dayMS
}

// keepCompacted makes deletions physical, day by day: what was released, expired
// or erased leaves the disk.
func (e *Engine) keepCompacted(ctx context.Context) {
	timer := time.NewTicker(compactCheckEvery)
	defer timer.Stop()
	var c compaction
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.failed:
			return
		case <-timer.C:
		}
		now := e.clock.nowMS()
		// A full disk has no room for it: see reclaimSpace.
		if !c.due(now, e.counters.events.Load()) || e.space.full.Load() || e.clock.check() != nil {
			continue
		}
		began := time.Now()
		err := e.log.Compact(ctx, e.compactRoom())
		c.ended(now, err)
		switch {
		case ctx.Err() != nil || e.Err() != nil:
			return
		case err != nil:
			e.logger.WarnContext(ctx, "what was deleted is not off the disk yet", "cause", err, "next_try_in", compactRetry)
		default:
			e.logger.InfoContext(ctx, "compacted the log: what was deleted is off the disk", "took", time.Since(began))
		}
	}
}

// compactRoom bounds the room that a compaction takes for a while, in bytes.
func (e *Engine) compactRoom() uint64 {
	if free := e.space.free.Load(); free > 0 {
		return min(reclaimRoom, free/2)
	}
	return reclaimRoom
}
