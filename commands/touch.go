package commands

import (
	"sync"

	"google.golang.org/protobuf/proto"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// utcDay is the number of days since 1970-01-01.
func utcDay(ms uint64) uint32 { return uint32(ms / dayMS) }

// touched is the event of a session's first use on a UTC day.
func touched(now uint64, session projections.Hash, day uint32) *pb.Event {
	return &pb.Event{TimeMs: now, Body: &pb.Event_SessionTouched{
		SessionTouched: &pb.SessionTouched{TokenHash: session[:], Day: day},
	}}
}

// touches remembers for which sessions a touch was sent today, so that the
// queries of one session send one.
type touches struct {
	mu   sync.Mutex
	day  uint32
	sent map[projections.Hash]struct{}
}

// first tells whether a touch of the session is still to be sent on that day.
func (t *touches) first(session projections.Hash, day uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.day != day || t.sent == nil {
		t.day, t.sent = day, make(map[projections.Hash]struct{})
	}
	if _, known := t.sent[session]; known {
		return false
	}
	t.sent[session] = struct{}{}
	return true
}

func (t *touches) forget(session projections.Hash) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.sent, session)
}

// touch notes the use of a session by a query, without waiting. The writer
// touches the caller of every command, so a command that does nothing is enough.
func (e *Engine) touch(c *Caller, now uint64) {
	day := utcDay(now)
	if !c.Known() || c.lastDay >= day || !e.touches.first(c.Session, day) {
		return
	}
	err := e.queue.push(e.newCall(&Command{
		Auth: pb.Auth_ENROLL, Token: c.Session,
		Decide: func(*Tx) (proto.Message, error) { return nil, nil },
	}))
	if err != nil { // too busy: the session's next query tries again
		e.touches.forget(c.Session)
	}
}
