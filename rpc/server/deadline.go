package server

import (
	"context"
	"time"
)

// sharedDeadline is a context that many requests share: a timer and a context
// for each of them would cost more than checking the time.
type sharedDeadline struct {
	ctx     context.Context
	cancel  context.CancelFunc
	started time.Duration
}

// sharing is how long after the first request a deadline is given to further
// ones.
const sharing = time.Second

// requestContext ends between requestTimeout and one second later. It does not
// end with the connection: what is decided is decided.
func (s *server) requestContext() context.Context {
	now := s.elapsed()
	current := s.deadline.Load()
	if current != nil && now-current.started < sharing {
		return current.ctx
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout+sharing)
	next := &sharedDeadline{ctx: ctx, cancel: cancel, started: now}
	if !s.deadline.CompareAndSwap(current, next) {
		cancel()
		return s.deadline.Load().ctx
	}
	return ctx
}

// endDeadlines frees the newest shared deadline; older ones end by their
// timers.
func (s *server) endDeadlines() {
	if d := s.deadline.Swap(nil); d != nil {
		d.cancel()
	}
}
