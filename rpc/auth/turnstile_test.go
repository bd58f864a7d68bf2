package auth

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
)

var (
	crowd  = netip.MustParsePrefix("192.0.2.0/24")
	single = netip.MustParsePrefix("198.51.100.0/24")
	third  = netip.MustParsePrefix("203.0.113.0/24")

	errOverloaded = &commands.Refusal{Status: pb.Status_Unavailable, Reason: pb.Reason_OVERLOADED}
)

// TestTurnstileIsFair: one call of a prefix waits for one of the crowd's, not
// for all of them.
func TestTurnstileIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTurnstile(1)
		ctx := context.Background()
		if err := ts.enter(ctx, crowd); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []netip.Prefix
		enter := func(p netip.Prefix) {
			go func() {
				if err := ts.enter(ctx, p); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, p)
				mu.Unlock()
				ts.leave()
			}()
			synctest.Wait()
		}
		for range 5 {
			enter(crowd)
		}
		enter(single)
		enter(third)
		enter(single)
		ts.leave()
		synctest.Wait()
		want := []netip.Prefix{crowd, single, third, crowd, single, crowd, crowd, crowd}
		if !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
		if ts.free != 1 || ts.waiting != 0 || len(ts.lines) != 0 || len(ts.turn) != 0 {
			t.Errorf("left: free %d, waiting %d, %d lines", ts.free, ts.waiting, len(ts.lines))
		}
	})
}

func TestTurnstileIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTurnstile(1)
		if err := ts.enter(context.Background(), crowd); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var refused sync.WaitGroup
		for range maxWaitingEach {
			refused.Go(func() {
				if err := ts.enter(ctx, crowd); !errors.Is(err, errOverloaded) {
					t.Errorf("after its time: %v", err)
				}
			})
		}
		synctest.Wait()
		if err := ts.enter(ctx, crowd); !errors.Is(err, errOverloaded) {
			t.Errorf("the crowd's line is full: %v", err)
		}
		entered := make(chan error)
		go func() { entered <- ts.enter(context.Background(), single) }()
		synctest.Wait()
		refused.Wait() // the crowd gives up
		ts.leave()     // and leaves no gap behind
		if err := <-entered; err != nil {
			t.Errorf("another prefix: %v", err)
		}
		ts.leave()
		if ts.free != 1 || ts.waiting != 0 || len(ts.lines) != 0 {
			t.Errorf("left: free %d, waiting %d, %d lines", ts.free, ts.waiting, len(ts.lines))
		}
	})
}

func TestTurnstileTotal(t *testing.T) {
	ts := newTurnstile(0)
	ts.waiting = maxWaiting
	if err := ts.enter(context.Background(), single); !errors.Is(err, errOverloaded) {
		t.Errorf("got %v", err)
	}
}

func TestTurnstileSlots(t *testing.T) {
	ts := newTurnstile(3)
	for range 3 {
		if err := ts.enter(context.Background(), crowd); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := ts.enter(ctx, single); !errors.Is(err, errOverloaded) {
		t.Errorf("a fourth of three: %v", err)
	}
	if slots() < 1 {
		t.Error("nobody could ever enter")
	}
}
