package commands

import "sync/atomic"

// Counters are totals since Start, and what waits now, for metrics.
type Counters struct {
	Commands uint64 // taken by the writer, refused ones included
	Groups   uint64 // groups that wrote events
	Events   uint64
	Replayed uint64 // commands answered from a receipt
	Rounds   uint64 // rounds of the acker; at most one anchor write each

	QueuedCommands int    // waiting or under decision
	QueuedBytes    int    // of their requests
	Published      uint64 // log size that queries and clients see
}

// counters are the totals as they are counted.
type counters struct {
	commands, groups, events, replayed, rounds atomic.Uint64
}

// Counters reads the counters.
func (e *Engine) Counters() Counters {
	c := Counters{
		Commands: e.counters.commands.Load(),
		Groups:   e.counters.groups.Load(),
		Events:   e.counters.events.Load(),
		Replayed: e.counters.replayed.Load(),
		Rounds:   e.counters.rounds.Load(),
	}
	c.QueuedCommands, c.QueuedBytes = e.queue.load()
	if p := e.acquire(); p != nil {
		c.Published = p.size
		p.release()
	}
	return c
}
