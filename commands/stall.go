package commands

import (
	"log/slog"
	"sync/atomic"

	pb "quicprochat/proto/qpcv1"
)

// commitDeadlineTicks is how many looks in a row (one per spaceEvery, so about
// as many seconds) may find the same sync under way. Then the disk counts as
// hanging: commands are refused at once instead of waiting for their deadline
// behind all others. Whoever waits already is told the truth at their own
// deadline; when the sync returns, all goes on.
const commitDeadlineTicks = 10

var errStalled = &Refusal{
	Status: pb.Status_Unavailable, Reason: pb.Reason_OVERLOADED, RetryAfterMS: 1000,
	Message: "the server's disk does not answer: the request was not executed, try again soon",
}

// stall notices syncs that hang. It counts looks instead of reading a clock.
type stall struct {
	log, anchor syncing
	hangs       atomic.Bool
}

// syncing is one place that syncs one thing at a time.
type syncing struct {
	turns atomic.Uint64 // odd while a sync is under way

	last uint64 // of turns, at the watcher's last look
	age  int    // looks that found the same sync
}

func (s *syncing) began() { s.turns.Add(1) }
func (s *syncing) ended() { s.turns.Add(1) }

// hangs is asked once per look.
func (s *syncing) hangs() bool {
	turn := s.turns.Load()
	if turn%2 == 0 || turn != s.last {
		s.age = 0
	} else {
		s.age++
	}
	s.last = turn
	return s.age >= commitDeadlineTicks
}

// check refuses commands while a sync hangs.
func (s *stall) check() error {
	if s.hangs.Load() {
		return errStalled
	}
	return nil
}

// look is the watcher's.
func (s *stall) look(logger *slog.Logger) {
	inLog, inAnchor := s.log.hangs(), s.anchor.hangs()
	hangs := inLog || inAnchor
	switch before := s.hangs.Swap(hangs); {
	case hangs && !before:
		logger.Error("the disk does not answer: a sync hangs, changes are refused until it returns", "in_log", inLog, "in_anchor", inAnchor)
	case before && !hangs:
		logger.Info("the disk answers again")
	}
}
