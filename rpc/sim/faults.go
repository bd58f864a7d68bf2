package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quicprochat/rpc/server"
)

// FaultKind is what goes wrong with the disk of a scripted run.
type FaultKind string

// Kinds of faults. What a fault does begins at the N-th file operation that
// changes something; reads always work.
const (
	NoFault   FaultKind = "none"
	ErrorOnce FaultKind = "eio-once"   // EIO, that one time
	ErrorOn   FaultKind = "eio-sticky" // EIO from then on
	NoSpace   FaultKind = "enospc"     // ENOSPC from then on
	PowerLoss FaultKind = "power"      // the power goes
)

// Fault is one thing that goes wrong in a scripted run.
type Fault struct {
	Kind FaultKind
	N    int // operation, counted from 1 through all lives of the run
	// Percent is how much of what was not synced survives a power loss, or the
	// end of the process after another fault.
	Percent int
}

func (f Fault) String() string { return fmt.Sprintf("%s/%d/%d", f.Kind, f.N, f.Percent) }

// ParseFault reads what String writes.
func ParseFault(text string) (f Fault, err error) {
	kind, rest := path.Split(path.Dir(text))
	if _, err := fmt.Sscanf(rest+" "+path.Base(text), "%d %d", &f.N, &f.Percent); err != nil {
		return f, fmt.Errorf("%q is no fault: %w", text, err)
	}
	f.Kind = FaultKind(path.Clean(kind))
	return f, nil
}

func (f Fault) error() error {
	if f.Kind == NoSpace {
		return syscall.ENOSPC
	}
	return syscall.EIO
}

// FaultResult is how a scripted run went.
type FaultResult struct {
	Ops     int    // changing file operations in all
	Op      string // the one that the fault met; empty: it came to no such operation
	Outcome string // "went on", "failed", "refused to start", "lost power"
	Counts  Counts
}

// failBound is how long after a failed write to the log or its anchor the
// process may live on, in virtual time.
const failBound = time.Second

// faultRun is one run of the script.
type faultRun struct {
	w     *World
	fault Fault
	ctx   context.Context // of the people, until the fault has ended a life

	mu      sync.Mutex
	ops     int
	op      errorfs.Op // that the fault met
	hit     time.Time
	healed  bool // the disk is good again
	serving bool // not during a start or stop
	end     *ending
	probe   *probe // of the present life
	cancel  context.CancelFunc
	outcome string
}

// RunScript lives through the script with a fault and says what is wrong: lost,
// doubled, changed, acknowledged too early or too late. It must be called in a
// synctest bubble. After a fault that ended a life, the server starts again on
// what survived, on a good disk, and must go on.
func RunScript(seed uint64, f Fault) (FaultResult, error) {
	r := newFaultRun(seed, f)
	defer r.cancel()
	err := r.run()
	if err != nil {
		err = fmt.Errorf("fault %v (met %s): %w\n%s", f, describe(r.op), err, r.w.logs)
	}
	result := FaultResult{Ops: r.ops, Outcome: r.outcome, Counts: r.w.Counts()}
	if !r.hit.IsZero() {
		result.Op = describe(r.op)
	}
	return result, err
}

func newFaultRun(seed uint64, f Fault) *faultRun {
	w := NewWorld(seed)
	w.plan = plan{people: 2, limits: server.LimitsOff}
	w.People = w.People[:2]
	w.Net.SetWeather(Weather{Delay: time.Millisecond})
	r := &faultRun{w: w, fault: f, outcome: "went on"}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	w.Prepare = func(_ int, d *Disk) { d.Fail = r.meet }
	return r
}

// describe names an operation by what it does to which kind of file.
func describe(op errorfs.Op) string {
	name := path.Base(op.Path)
	switch ext := path.Ext(name); {
	case ext == ".log", ext == ".sst", ext == ".dbtmp":
		name = "*" + ext
	}
	return fmt.Sprintf("%s of %s/%s", opNames[op.Kind], path.Base(path.Dir(op.Path)), name)
}

var opNames = map[errorfs.OpKind]string{
	errorfs.OpCreate: "create", errorfs.OpLink: "link", errorfs.OpRemove: "remove", errorfs.OpRemoveAll: "remove all",
	errorfs.OpRename: "rename", errorfs.OpReuseForWrite: "reuse", errorfs.OpMkdirAll: "mkdir", errorfs.OpOpenDir: "open dir",
	errorfs.OpFileWrite: "write", errorfs.OpFileWriteAt: "write at", errorfs.OpFileSync: "sync", errorfs.OpFileSyncData: "sync data",
	errorfs.OpFileSyncTo: "sync to", errorfs.OpFilePreallocate: "preallocate", errorfs.OpFileClose: "close",
}

// meet is asked before each changing operation.
func (r *faultRun) meet(_ int, op errorfs.Op) error {
	r.mu.Lock()
	r.ops++
	n := r.ops
	now := n == r.fault.N && r.end == nil
	if now {
		r.op, r.hit = op, time.Now()
	}
	healed := r.healed
	r.mu.Unlock()
	switch {
	case healed || r.fault.Kind == NoFault:
	case r.fault.Kind == PowerLoss:
		if now {
			r.die("lost power")
		}
	case now, n > r.fault.N && r.fault.Kind != ErrorOnce:
		return r.fault.error()
	}
	return nil
}

// die ends the present life at once. What survives is what the next life finds.
func (r *faultRun) die(outcome string) {
	r.w.Net.Vanish(serverAddr)
	r.mu.Lock()
	if r.probe != nil {
		r.probe.dead.Store(true) // what it sees from now on is nobody's
	}
	r.mu.Unlock()
	fs, err := r.w.disk.Crash(r.fault.Percent, rand.New(rand.NewPCG(r.w.Seed, uint64(r.fault.N))))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.end != nil {
		return
	}
	r.end = &ending{death{percent: r.fault.Percent, op: r.fault.N, on: "the script"}, fs, err}
	r.outcome = outcome
	r.healed = true // what is left of the old life must come to its end
	r.cancel()
}

func (r *faultRun) ended() *ending {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end
}

// run is the script: two lives, each ended in good order.
func (r *faultRun) run() error {
	w := r.w
	err := r.life(nil, r.firstLife)
	if err == nil && r.ended() == nil {
		// The views are gone: the second start builds them anew.
		if err = w.disk.fs.RemoveAll(DataDir + "/views"); err == nil {
			err = r.life(w.disk.fs, r.secondLife)
		}
	}
	if err == nil && r.ended() != nil {
		err = r.recover()
	}
	for _, p := range w.People {
		if p.client != nil {
			p.client.Close()
		}
	}
	if r.ended() == nil {
		w.ghosts.Wait()
	}
	if err == nil {
		err = w.check()
	}
	return err
}

// life starts the server, does what people do, and stops it, unless the fault
// ends it before.
func (r *faultRun) life(fs *vfs.MemFS, steps func() []func(context.Context)) error {
	w := r.w
	ca := w.ca
	err := w.start(fs, false)
	if r.ended() != nil {
		w.ca = ca // what a start made that nobody saw the end of, nobody was given
		r.bury()
		return nil
	}
	if err != nil {
		if r.hit.IsZero() {
			return fmt.Errorf("start: %w", err)
		}
		r.die("refused to start")
		r.bury()
		return nil
	}
	r.setServing(true)
	watched := make(chan error, 1)
	stop := make(chan struct{})
	go func() { watched <- r.watch(stop) }()
	err = r.act(steps())
	r.setServing(false)
	close(stop)
	if err := errors.Join(err, <-watched); err != nil || r.ended() != nil {
		r.bury()
		return err
	}
	if err := w.stop(); err != nil {
		if r.hit.IsZero() {
			return err
		}
		r.die("failed")
	}
	if r.ended() != nil {
		r.bury()
	}
	return nil
}

func (r *faultRun) setServing(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.serving = yes; yes {
		r.probe = r.w.probe
		r.probe.dead.Store(r.end != nil)
	}
}

// watch waits for the node to fail. One that met a failure where there is no way
// back must do so soon.
func (r *faultRun) watch(stop chan struct{}) error {
	tick := time.NewTicker(failBound / 10)
	defer tick.Stop()
	for {
		select {
		case <-r.w.node.Failed():
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.hit.IsZero() {
				return errors.New("the node failed on a good disk")
			}
			return nil
		case <-stop:
			return nil
		case <-tick.C:
			r.mu.Lock()
			late := r.serving && r.fatal() && time.Since(r.hit) > failBound
			r.mu.Unlock()
			if late {
				return fmt.Errorf("%v after %s failed the node has not failed", failBound, describe(r.op))
			}
		}
	}
}

// fatal tells whether the fault met a write after which the log can't go on.
func (r *faultRun) fatal() bool {
	if r.hit.IsZero() || r.fault.Kind == PowerLoss || !within(r.op.Path, "anchor") && (!within(r.op.Path, "log") || path.Ext(r.op.Path) != ".log") {
		return false
	}
	switch r.op.Kind {
	case errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		return true
	}
	return false
}

// stepsAfterFailure is how many things people try while a failed node is still
// there: none may be acknowledged.
const stepsAfterFailure = 4

// act does the steps one after the other until the life has ended.
func (r *faultRun) act(steps []func(context.Context)) error {
	left := stepsAfterFailure
	for _, step := range steps {
		failed := r.w.node.Engine().Err() != nil
		before := r.w.History.promises()
		step(r.ctx)
		if r.ended() != nil {
			return nil
		}
		if !failed {
			continue
		}
		if r.w.History.promises() > before {
			return errors.New("something was acknowledged after the failure")
		}
		if left--; left == 0 {
			break
		}
	}
	if r.w.node.Engine().Err() != nil {
		r.die("failed")
	}
	return nil
}

// promises is how many changes were acknowledged.
func (h *History) promises() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sent {
		if s.Outcome == Done {
			n++
		}
	}
	for _, a := range h.acks {
		if a.Outcome == Done {
			n++
		}
	}
	return n + len(h.facts)
}

// bury lets what is left of a life end where nobody sees it.
func (r *faultRun) bury() {
	end := r.ended()
	if end == nil { // an error ends the run
		r.die("went wrong")
		end = r.ended()
	}
	r.w.bury(*end)
}

// recover starts the server on what survived, on a disk that is good, lets
// everybody collect their mail and goes on for a while.
func (r *faultRun) recover() error {
	w := r.w
	end := r.ended()
	if end.err != nil {
		return end.err
	}
	w.Prepare = nil
	w.logs.note(fmt.Sprintf("--- %s; start on what survived", r.outcome))
	if err := w.start(end.fs, false); err != nil {
		return fmt.Errorf("start after the fault: %w", err)
	}
	err := w.checkStart(*end)
	if err == nil {
		err = w.settle()
	}
	if err == nil {
		before := w.History.promises()
		for _, step := range r.goOn() {
			step(context.Background())
		}
		if w.History.promises() < before+2 {
			err = errors.New("it does not go on after the start")
		}
	}
	return errors.Join(err, w.stop())
}
