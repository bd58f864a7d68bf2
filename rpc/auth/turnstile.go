package auth

import (
	"context"
	"net/netip"
	"sync"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
)

const (
	// maxWaiting is how many calls may wait for their turn in all.
	maxWaiting = 1024
	// maxWaitingEach is how many of one address prefix.
	maxWaitingEach = 128
	// overloadedRetryMS is told to callers that find no place, in milliseconds.
	overloadedRetryMS = 1000
)

// turnstile lets a bounded number of calls do expensive work at a time. Waiting
// calls are let in by address prefix in turn, so that a prefix with a thousand
// of them delays another's single one by one call.
type turnstile struct {
	mu      sync.Mutex
	free    int
	waiting int
	lines   map[netip.Prefix]*line
	turn    []*line // lines with somebody in them, next first
}

type line struct {
	prefix  netip.Prefix
	tickets []*ticket
}

type ticket struct {
	admitted chan struct{}
	gone     bool // gave up; guarded by turnstile.mu
}

func newTurnstile(slots int) *turnstile {
	return &turnstile{free: slots, lines: make(map[netip.Prefix]*line)}
}

// enter waits for a turn; leave must follow when the error is nil. Refusal:
// Unavailable OVERLOADED.
func (t *turnstile) enter(ctx context.Context, prefix netip.Prefix) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	k, ok := t.queue(prefix)
	t.mu.Unlock()
	if !ok {
		return overloaded()
	}
	select {
	case <-k.admitted:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	select {
	case <-k.admitted: // at the same moment
		t.mu.Unlock()
		t.leave()
	default:
		k.gone = true
		t.waiting--
		t.mu.Unlock()
	}
	return overloaded()
}

// queue puts a caller into its prefix's line. It needs t.mu.
func (t *turnstile) queue(prefix netip.Prefix) (*ticket, bool) {
	l := t.lines[prefix]
	if t.waiting >= maxWaiting || (l != nil && len(l.tickets) >= maxWaitingEach) {
		return nil, false
	}
	if l == nil {
		l = &line{prefix: prefix}
		t.lines[prefix] = l
		t.turn = append(t.turn, l)
	}
	k := &ticket{admitted: make(chan struct{})}
	l.tickets = append(l.tickets, k)
	t.waiting++
	return k, true
}

// leave gives the place to the next caller in turn.
func (t *turnstile) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.turn) > 0 {
		l := t.turn[0]
		t.turn = t.turn[1:]
		k := l.tickets[0]
		if l.tickets = l.tickets[1:]; len(l.tickets) > 0 {
			t.turn = append(t.turn, l)
		} else {
			delete(t.lines, l.prefix)
		}
		if !k.gone {
			t.waiting--
			close(k.admitted)
			return
		}
	}
	t.free++
}

func overloaded() error {
	return &commands.Refusal{
		Status: pb.Status_Unavailable, Reason: pb.Reason_OVERLOADED,
		Message: "too many registrations and logins at once: try again", RetryAfterMS: overloadedRetryMS,
	}
}
