package server

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestPoolBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most, done atomic.Int64
		release := make(chan struct{})
		p := newPool(4, func(int) {
			n := running.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-release
			running.Add(-1)
			done.Add(1)
		})
		var callers sync.WaitGroup
		for i := range 10 {
			callers.Go(func() { p.run(i) })
		}
		synctest.Wait()
		if running.Load() != 4 {
			t.Errorf("%d run at a time, want 4", running.Load())
		}
		close(release)
		callers.Wait()
		p.close()
		if most.Load() != 4 || done.Load() != 10 {
			t.Errorf("at most %d at a time, %d done; want 4, 10", most.Load(), done.Load())
		}
	})
}

// TestPoolKeepsFewIdle: of many workers only some wait for more.
func TestPoolKeepsFewIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		p := newPool(4*maxIdle, func(int) { <-release })
		for i := range 3 * maxIdle {
			p.run(i)
		}
		close(release)
		synctest.Wait()
		if idle := len(p.slots); idle > maxIdle {
			t.Errorf("%d idle workers, want at most %d", idle, maxIdle)
		}
		for i := range 3 * maxIdle { // and they still work
			p.run(i)
		}
		p.close()
	})
}
