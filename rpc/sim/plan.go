package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"quicprochat/rpc/server"
)

// plan is what a seed says about its world, drawn before anything happens.
type plan struct {
	people   int
	length   time.Duration // of the eventful part
	think    time.Duration // mean pause of a person
	syncTime time.Duration
	limits   server.Limits
	storms   bool // weather changes all the time
	deaths   []death
	steps    []step
}

// step is a wall clock that is set wrong for a while, by more than is slewed.
type step struct{ after, by, lasts time.Duration }

// death is how one life of the server ends. Exactly one of after and op counts.
type death struct {
	after   time.Duration // since the start
	op      int           // at the n-th changing file operation since the start …
	on      string        // … in this part of the data directory; empty: anywhere
	percent int           // what survives of the unsynced: 100 is a crash of the process alone
	down    time.Duration // until the next start
	hang    time.Duration // from so long before the flush of the views until so long after it, the log's syncs hang
}

func (d death) String() string {
	what := "power loss"
	if d.percent == 100 {
		what = "crash"
	}
	if d.op > 0 {
		return fmt.Sprintf("%s (%d %% survive) at operation %d on %q", what, d.percent, d.op, d.on)
	}
	return fmt.Sprintf("%s (%d %% survive) after %v", what, d.percent, d.after)
}

func drawPlan(rng *rand.Rand) plan {
	p := plan{
		people: 2 + rng.IntN(3),
		length: time.Duration(10+rng.IntN(35)) * time.Second,
		think:  time.Duration(50+rng.IntN(900)) * time.Millisecond,
		limits: server.LimitsOff,
		storms: rng.IntN(3) > 0,
	}
	if rng.IntN(4) > 0 {
		p.syncTime = time.Duration(1+rng.IntN(30)) * time.Millisecond
	}
	if rng.IntN(4) == 0 {
		p.limits = server.LimitsDefault
	}
	for range rng.IntN(4) {
		p.deaths = append(p.deaths, drawDeath(rng, p.length))
	}
	if p.syncTime > 0 && rng.IntN(4) == 0 {
		p.length = flushEvery + time.Duration(5+rng.IntN(20))*time.Second
		p.deaths = append([]death{drawDeathInFlush(rng)}, p.deaths...)
	}
	for range max(0, rng.IntN(4)-1) {
		p.steps = append(p.steps, drawStep(rng))
	}
	return p
}

func drawStep(rng *rand.Rand) step {
	by := []time.Duration{6 * time.Second, time.Minute, time.Hour, 25 * time.Hour, 60 * 24 * time.Hour}[rng.IntN(5)]
	if rng.IntN(2) == 0 {
		by = -by
	}
	return step{
		after: time.Duration(rng.IntN(15_000)) * time.Millisecond, by: by,
		lasts: time.Duration(1000+rng.IntN(8000)) * time.Millisecond,
	}
}

// flushEvery is how often the engine flushes its views.
const flushEvery = 30 * time.Second

// drawDeathInFlush cuts the power while the views are flushed and the log is not
// synced: what the views hold must wait for the log. A flush is about 16
// operations; from the eighth on, its table stands in a synced manifest.
func drawDeathInFlush(rng *rand.Rand) death {
	return death{
		on: "views", op: 6 + rng.IntN(11), percent: []int{0, 0, 0, 10}[rng.IntN(4)],
		down: time.Duration(rng.IntN(4000)) * time.Millisecond,
		hang: time.Duration(500+rng.IntN(4000)) * time.Millisecond,
	}
}

func drawDeath(rng *rand.Rand, length time.Duration) death {
	d := death{
		percent: []int{0, 10, 50, 90, 100, 100}[rng.IntN(6)],
		down:    time.Duration(rng.IntN(4000)) * time.Millisecond,
	}
	switch rng.IntN(12) {
	case 0:
		d.down = time.Duration(rng.IntN(6*24*3600)) * time.Second
	case 1:
		d.down = 7*24*time.Hour + time.Duration(1+rng.IntN(48))*time.Hour // needs --accept-time
	}
	if rng.IntN(2) == 0 {
		d.after = time.Duration(rng.Int64N(int64(length)))
		return d
	}
	d.on = []string{"", "log", "anchor", "views"}[rng.IntN(4)]
	d.op = 1 + rng.IntN(map[string]int{"": 600, "log": 400, "anchor": 120, "views": 30}[d.on])
	return d
}

func drawWeather(rng *rand.Rand) Weather {
	w := Weather{
		Delay:    time.Duration(rng.IntN(40)) * time.Millisecond,
		Jitter:   time.Duration(rng.IntN(20)) * time.Millisecond,
		Holdback: time.Duration(rng.IntN(200)) * time.Millisecond,
	}
	if rng.IntN(2) == 0 {
		w.Loss = rng.Float64() * 0.25
	}
	if rng.IntN(3) == 0 {
		w.Duplicate = rng.Float64() * 0.3
	}
	if rng.IntN(3) == 0 {
		w.Reorder = rng.Float64() * 0.5
	}
	return w
}
