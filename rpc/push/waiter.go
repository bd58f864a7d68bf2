package push

import "errors"

// MaxWaits is how many calls of one account may wait at once.
const MaxWaits = 4

// ErrTooManyWaits means that an account has MaxWaits waiting calls already.
var ErrTooManyWaits = errors.New("too many waiting calls of one account")

// ErrClosed means that nobody may wait any more: the server stops.
var ErrClosed = errors.New("the hub is closed")

// Signal says why a waiter was woken.
type Signal uint8

const (
	// Woken means that the device's queue grew: read it again.
	Woken Signal = iota + 1
	// Superseded means that a newer call of the device waits now.
	Superseded
	// Stopped means that the server is shutting down.
	Stopped
)

// Waiter is one waiting call: Grown and Ended tell it what happened.
type Waiter struct {
	hub     *Hub
	account [16]byte
	device  [32]byte
	c       chan Signal
	final   chan Signal
}

// Wait registers a waiting call of a device; there is one per device, and a
// newer one displaces the older. Register first and read the queue afterwards,
// or a message between the two is missed. Release must be called.
func (h *Hub) Wait(account [16]byte, device [32]byte) (*Waiter, error) {
	w := &Waiter{hub: h, account: account, device: device, c: make(chan Signal, 1), final: make(chan Signal, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	old := h.waiters[device]
	if old == nil && h.waits[account] >= MaxWaits {
		return nil, ErrTooManyWaits
	}
	if old != nil {
		h.forget(old)
		old.end(Superseded)
	}
	h.waiters[device] = w
	h.waits[account]++
	return w, nil
}

// Grown gives Woken when the queue grew since the last read; several messages
// are one signal.
func (w *Waiter) Grown() <-chan Signal { return w.c }

// Ended gives Superseded or Stopped, once.
func (w *Waiter) Ended() <-chan Signal { return w.final }

// Release ends the registration; it may be called after a displacement.
func (w *Waiter) Release() {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	if w.hub.waiters[w.device] == w {
		w.hub.forget(w)
	}
}

// Waiting is the number of waiting calls.
func (h *Hub) Waiting() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.waiters)
}

// StopWaiting ends all waiting calls with Stopped and admits no more.
func (h *Hub) StopWaiting() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, w := range h.waiters {
		h.forget(w)
		w.end(Stopped)
	}
}

// forget needs h.mu.
func (h *Hub) forget(w *Waiter) {
	delete(h.waiters, w.device)
	if h.waits[w.account]--; h.waits[w.account] == 0 {
		delete(h.waits, w.account)
	}
}

func (w *Waiter) signal(s Signal) {
	select {
	case w.c <- s:
	default: // one is there already
	}
}

// end is called once: only for the waiter that stands in the table.
func (w *Waiter) end(s Signal) { w.final <- s }
