package commands_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
)

// histories is how many a run checks: 100, or what QPC_HISTORIES or
// QPC_TEST_SCALE say.
func histories(t *testing.T) int {
	return runs(t, "QPC_HISTORIES", map[string]int{"": 100, "race": 5, "nightly": 2_500, "release": 50_000})
}

// disturbance is what happens in the middle of a history.
type disturbance int

const (
	undisturbed disturbance = iota
	restarted               // a clean restart
	powerLost
	kindsOfDisturbance
)

// TestQueueIsLinearizable has five clients use one queue at once, with real
// concurrency: two sessions' worth of senders, readers that drain, confirm, look
// and acknowledge, all with retries and with deadlines too short to be met. Two
// thirds of the histories are interrupted, by a clean restart or by a loss of
// power between any two operations of the disk. Some order of the calls, each
// between its call and its answer, must explain all that was answered.
func TestQueueIsLinearizable(t *testing.T) {
	var operations, unknown, cut int
	n := histories(t)
	for seed := uint64(1); seed <= uint64(n); seed++ {
		ok := t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			h := play(t, seed, disturbance(seed%uint64(kindsOfDisturbance)), nil)
			result, all := h.judge(time.Minute)
			if result != porcupine.Ok {
				t.Errorf("seed %d: %s\n%s", seed, result, printHistory(all))
			}
			operations += len(all)
			for _, op := range all {
				if op.Output.(*queueResult) == nil {
					unknown++
				}
			}
			if h.cutShort {
				cut++
			}
		})
		if !ok {
			return
		}
	}
	t.Logf("%d histories, %d calls, %d of unknown outcome, %d histories cut off by a loss of power", n, operations, unknown, cut)
	if n >= 100 && (unknown < n || cut < n/10) {
		t.Errorf("the histories are too tame: %d calls of unknown outcome, %d cut off", unknown, cut)
	}
}

// play lets clients make a history.
func play(t *testing.T, seed uint64, d disturbance, fault func(h *history, next sender) sender) *history {
	h := newHistory(t, seed)
	if fault != nil {
		h.send = fault(h, h.send)
	}
	clients := make([]*client, 5)
	for i := range clients {
		c := &client{
			h: h, number: i, rng: rand.New(rand.NewPCG(seed, uint64(10+i))), to: h.public("bob"),
			token: h.tokens["alice"], reader: i >= 3, left: 20,
		}
		if i == 2 {
			c.token = h.tokens["carol"]
		}
		if c.reader {
			c.token, c.left = h.tokens["bob"], 25
		}
		clients[i] = c
	}
	var runs []func()
	for _, c := range clients {
		runs = append(runs, c.run)
	}
	h.through(d, seed, runs)
	h.lookAtAll()
	return h
}

// through lets clients call, has something happen in the middle, and lets them
// go on until they are done.
func (h *history) through(d disturbance, seed uint64, clients []func()) {
	switch d {
	case restarted:
		after := h.rng.Int64N(80)
		h.together(clients, func(over <-chan struct{}) {
			for running := true; running && h.answered.Load() < after; {
				select {
				case <-over:
					running = false
				default:
					runtime.Gosched()
				}
			}
			h.stop()
		})
		h.reopen(h.disk)
	case powerLost:
		lost := &powerCut{after: 1 + h.rng.IntN(150), percent: []int{0, 10, 50, 90}[h.rng.IntN(4)], seed: seed}
		if h.disk.lying.Load() {
			lost.percent = 0 // else an anchor that survives its log refuses the start: caught, but not by a history
		}
		h.disk.around = h.die
		h.disk.arm(lost)
		h.together(clients, func(over <-chan struct{}) { <-over })
		h.cutShort = h.dead
		kept := h.disk.after(lost)
		h.stop()
		h.reopen(newPowerFS(kept))
		h.dead = false
	}
	h.together(clients, func(over <-chan struct{}) { <-over })
}

// together lets clients call until they are done or the server is gone, and does
// something meanwhile.
func (h *history) together(clients []func(), meanwhile func(over <-chan struct{})) {
	var all sync.WaitGroup
	for _, run := range clients {
		all.Go(run)
	}
	over := make(chan struct{})
	go func() {
		all.Wait()
		close(over)
	}()
	meanwhile(over)
	<-over
}

// reopen starts again from a disk.
func (h *history) reopen(disk *powerFS) {
	h.check(h.log.Close())
	h.disk, h.fs = disk, disk
	h.open()
	h.boot()
}

// lookAtAll ends a history with all that is in the queue.
func (h *history) lookAtAll() {
	last := &client{h: h, number: 5, left: 1}
	last.make(&queueOp{kind: "Peek", limit: commands.MaxPageItems, drained: true},
		&pb.PeekRequest{SessionToken: h.tokens["bob"], IncludeDrained: true}, context.Background())
}
