package push

import (
	"errors"
	"testing"
)

func account(n byte) [16]byte { return [16]byte{n} }

func mustWait(t *testing.T, h *Hub, a [16]byte, d [32]byte) *Waiter {
	t.Helper()
	w, err := h.Wait(a, d)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func received(c <-chan Signal) Signal {
	select {
	case s := <-c:
		return s
	default:
		return 0
	}
}

func TestWaiterIsWokenOnceForMany(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, s *store) {
		w := mustWait(t, h, account(1), device(1))
		defer w.Release()
		other := mustWait(t, h, account(2), device(2))
		defer other.Release()
		h.Publish([]Message{s.put(1, nil), s.put(2, nil), s.put(3, nil)}, nil)
		if got := received(w.Grown()); got != Woken {
			t.Errorf("got %v, want Woken", got)
		}
		if got := received(w.Grown()); got != 0 {
			t.Errorf("a second signal: %v", got)
		}
		if got := received(other.Grown()); got != 0 {
			t.Errorf("another device was woken: %v", got)
		}
		h.Publish([]Message{s.put(4, nil)}, nil)
		if got := received(w.Grown()); got != Woken {
			t.Errorf("later: got %v, want Woken", got)
		}
	})
}

func TestNewerWaiterDisplacesOlder(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, s *store) {
		older := mustWait(t, h, account(1), device(1))
		newer := mustWait(t, h, account(1), device(1))
		if got := received(older.Ended()); got != Superseded {
			t.Errorf("older: got %v, want Superseded", got)
		}
		older.Release() // must not take the newer one's place away
		h.Publish([]Message{s.put(1, nil)}, nil)
		if received(newer.Grown()) != Woken || received(older.Grown()) != 0 {
			t.Error("the newer one must be woken, and only it")
		}
		newer.Release()
		newer.Release() // twice does no harm
		h.Publish([]Message{s.put(2, nil)}, nil)
		if received(newer.Grown()) != 0 {
			t.Error("woken after its release")
		}
	})
}

func TestWaitsPerAccount(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, _ *store) {
		var waiters []*Waiter
		for i := range byte(MaxWaits) {
			waiters = append(waiters, mustWait(t, h, account(1), device(i)))
		}
		if _, err := h.Wait(account(1), device(99)); !errors.Is(err, ErrTooManyWaits) {
			t.Errorf("one too many: %v", err)
		}
		// Displacing one's own waiter is not one more.
		waiters = append(waiters, mustWait(t, h, account(1), device(0)))
		mustWait(t, h, account(2), device(99)).Release()
		for _, w := range waiters {
			w.Release()
		}
		mustWait(t, h, account(1), device(99)).Release()
		if len(h.waits) != 0 || len(h.waiters) != 0 {
			t.Errorf("left behind: %d accounts, %d waiters", len(h.waits), len(h.waiters))
		}
	})
}

func TestStopWaiting(t *testing.T) {
	withHub(t, func(t *testing.T, h *Hub, _ *store) {
		w := mustWait(t, h, account(1), device(1))
		h.StopWaiting()
		h.StopWaiting()
		if got := received(w.Ended()); got != Stopped {
			t.Errorf("got %v, want Stopped", got)
		}
		w.Release()
		if _, err := h.Wait(account(1), device(1)); !errors.Is(err, ErrClosed) {
			t.Errorf("after the stop: %v", err)
		}
	})
}
