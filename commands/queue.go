package commands

import (
	"sync"

	pb "quicprochat/proto/qpcv1"
)

// Bounds of what may wait for the writer or be under decision. Beyond them a
// command is refused at once: a longer queue would only make every caller wait
// past its deadline.
const (
	maxQueuedCommands = 8192
	maxQueuedBytes    = 64 << 20
	// overloadRetryMS is what callers are told to wait, in milliseconds.
	overloadRetryMS = 250
)

// queue is the bounded input of the writer. The writer takes all that waits at
// once, so the lock is shared by a group and not paid per command.
type queue struct {
	mu       sync.Mutex
	waiting  []*call
	count    int // waiting or taken and not yet done
	bytes    int
	closed   error // refusal of later commands; nil while open
	sleeping bool  // the writer waits for wake
	wake     chan struct{}
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// push adds a call, or says why not.
func (q *queue) push(c *call) error {
	q.mu.Lock()
	if q.closed != nil {
		q.mu.Unlock()
		return q.closed
	}
	if q.count >= maxQueuedCommands || (q.count > 0 && q.bytes+c.size > maxQueuedBytes) {
		q.mu.Unlock()
		return &Refusal{Status: pb.Status_Unavailable, Reason: pb.Reason_OVERLOADED,
			Message: "the server is busy", RetryAfterMS: overloadRetryMS}
	}
	q.waiting = append(q.waiting, c)
	q.count++
	q.bytes += c.size
	wake := q.sleeping
	q.sleeping = false
	q.mu.Unlock()
	if wake {
		q.wake <- struct{}{}
	}
	return nil
}

// take moves everything that waits behind dst. With none waiting it arms wake,
// which then gets one signal at the next push or close; the second result tells
// that the queue is closed and empty for ever.
func (q *queue) take(dst []*call) (calls []*call, over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		if q.closed != nil {
			return dst, true
		}
		q.sleeping = true
		return dst, false
	}
	dst = append(dst, q.waiting...)
	clear(q.waiting)
	q.waiting = q.waiting[:0]
	return dst, false
}

// disarm takes back the arming of take when the writer goes on without waiting.
func (q *queue) disarm() {
	q.mu.Lock()
	armed := q.sleeping
	q.sleeping = false
	q.mu.Unlock()
	if !armed {
		<-q.wake // the signal was sent or is being sent
	}
}

// done gives the room of decided commands back.
func (q *queue) done(count, bytes int) {
	q.mu.Lock()
	q.count -= count
	q.bytes -= bytes
	q.mu.Unlock()
}

// close refuses later pushes with why; what waits is still taken. Only the
// first reason counts.
func (q *queue) close(why error) {
	q.mu.Lock()
	if q.closed == nil {
		q.closed = why
	}
	wake := q.sleeping
	q.sleeping = false
	q.mu.Unlock()
	if wake {
		q.wake <- struct{}{}
	}
}

// load tells how much waits, for metrics.
func (q *queue) load() (count, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count, q.bytes
}
