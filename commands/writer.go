package commands

import (
	"errors"
	"fmt"
	"runtime/debug"

	"google.golang.org/protobuf/proto"

	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// pipelineDepth is how many groups may be between their commit and their
// publication: one whose log batch is synced while the anchor of the one before is
// written. With a third, groups are a quarter smaller, so that the disk syncs more
// often, and answers come no sooner (docs/performance.md, "Fourth pass").
const pipelineDepth = 2

// The views are flushed after so many unflushed events or changed rows, whichever
// comes first: they bound how much of the log a start has to replay. Time goes with
// the rows (docs/decisions/0013-flush-after-rows.md).
const (
	flushAfterEvents = 200_000
	flushAfterRows   = 150_000
)

// flushDue says whether a start would have to replay too much.
func flushDue(v *projections.Views) bool {
	return v.Unflushed() >= flushAfterEvents || v.UnflushedRows() >= flushAfterRows
}

// writer is the single goroutine that decides. All its fields are its own.
type writer struct {
	e      *Engine
	log    *log.Log
	views  *projections.Views
	clock  *clock
	quotas bool

	group   *group
	waiting []*call // taken from the queue, not yet decided
	tx      Tx
	paused  error // refusal for all commands while the clock can't be trusted

	// Scratch that one event or receipt at a time is built in.
	raw        []byte
	outcome    []byte
	receiptBuf pb.Receipt
	entry      projections.Entry
	single     single
}

// run decides until the queue is closed and empty, or until the engine fails.
func (w *writer) run() {
	defer close(w.e.committed)
	for w.collect() && w.commit() {
	}
	w.abort()
}

// collect decides what waits into the group until it is time to commit: the
// group is full, or nothing waits and the pipeline has room. While it has none,
// later commands still join. It returns false when there is nothing to commit
// and never will be, or when the engine failed. A slot of the pipeline is taken
// on true.
func (w *writer) collect() bool {
	var next int // first undecided call in w.waiting
	defer func() { w.waiting = w.waiting[:copy(w.waiting, w.waiting[next:])] }()
	over := false
	for {
		for ; next < len(w.waiting); next++ {
			c := w.waiting[next]
			if !w.group.fits(c) {
				return w.slot()
			}
			if err := w.decide(c); err != nil {
				next++
				w.e.fail(err)
				return false
			}
		}
		w.waiting, next = w.waiting[:0], 0
		w.waiting, over = w.e.queue.take(w.waiting)
		switch {
		case len(w.waiting) > 0:
		case len(w.group.calls) == 0:
			if over {
				return false
			}
			<-w.e.queue.wake
		case over:
			return w.slot()
		default: // natural batching: commit at once, or when the pipeline can
			select {
			case w.e.slots <- struct{}{}:
				w.e.queue.disarm()
				return true
			case <-w.e.queue.wake:
			}
		}
	}
}

// slot waits for room in the pipeline. Slots come back also when the engine
// fails, because the acker answers every group.
func (w *writer) slot() bool {
	w.e.slots <- struct{}{}
	return true
}

// decide takes one call into the group. An error is fatal.
func (w *writer) decide(c *call) error {
	if !c.begin() {
		w.e.queue.done(1, c.size) // the caller gave up before
		return nil
	}
	w.e.counters.commands.Add(1)
	w.group.calls = append(w.group.calls, c)
	w.group.bytes += c.size
	if len(w.group.calls) == 1 {
		w.paused = w.clock.check()
	}
	if w.paused != nil {
		c.err = w.paused
		return nil
	}
	var err error
	c.resp, err = w.execute(&c.Command)
	if err == nil {
		return nil
	}
	c.resp, c.err = nil, err
	if fatal := (*fatalError)(nil); errors.As(err, &fatal) {
		c.err = errStorage
		return fmt.Errorf("method %d: %w", c.Method, fatal.cause)
	}
	if damaged := (*projections.RebuildError)(nil); errors.As(err, &damaged) {
		c.err = errStorage // the next start builds the views anew
		return fmt.Errorf("method %d: %w", c.Method, err)
	}
	return nil
}

// fatalError marks an error after which nothing may be decided any more.
type fatalError struct{ cause error }

func (e *fatalError) Error() string { return e.cause.Error() }
func (e *fatalError) Unwrap() error { return e.cause }

// execute checks the caller as of this point of the log, replays a receipt or
// decides. A panic is a bug whose half-done work must not be committed.
func (w *writer) execute(c *Command) (resp proto.Message, err error) {
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, &fatalError{fmt.Errorf("panic in a decide function: %v\n%s", p, debug.Stack())}
		}
	}()
	tx := &w.tx
	*tx = Tx{w: w, now: w.clock.nowMS()}
	views := w.group.views(w)
	tx.caller, err = Authorize(views, c.Token, c.Auth, tx.now)
	if err != nil {
		return nil, err
	}
	if err := w.touchCaller(tx); err != nil {
		return nil, &fatalError{err}
	}
	if len(c.RequestID) > 0 {
		if !tx.caller.IsDevice() {
			return nil, fmt.Errorf("method %d has a request_id but no device to keep the receipt for", c.Method)
		}
		kept, err := replay(views, &tx.caller, c, tx.now)
		if kept != nil {
			w.e.counters.replayed.Add(1)
		}
		if kept != nil || err != nil {
			return kept, err
		}
	}
	// Behind the receipts: what was decided before is told also on a full disk.
	if err := w.e.space.refuse(c); err != nil {
		return nil, err
	}
	resp, err = c.Decide(tx)
	if err != nil {
		if tx.failed != nil {
			return nil, &fatalError{tx.failed}
		}
		if tx.wrote {
			return nil, &fatalError{fmt.Errorf("a decide function emitted and then failed: %w", err)}
		}
		return nil, err
	}
	if err := tx.finish(c, resp); err != nil {
		return nil, &fatalError{err}
	}
	return resp, nil
}

// touchCaller notes the first use of a session on a UTC day.
func (w *writer) touchCaller(tx *Tx) error {
	if today := utcDay(tx.now); tx.caller.Known() && tx.caller.lastDay < today {
		return w.append(touched(tx.now, tx.caller.Session, today), nil)
	}
	return nil
}

// commit makes the group's log batch, hands the group to the acker, and only
// then applies it to the views: applying may wait for a flush of the views,
// which waits for the log's sync, which the acker raises.
func (w *writer) commit() bool {
	g := w.group
	err := w.e.Err() // what was decided before a failure must not reach the log after it
	if err == nil {
		err = w.write(g)
	}
	if err != nil {
		w.e.fail(err)
		<-w.e.slots
		return false
	}
	w.group = w.e.spareGroup()
	batch := g.batch
	if g.pending == nil { // nothing written: the batch serves the next group
		w.group.batch, g.batch = batch, nil
		if len(w.e.slots) == 1 { // and nothing before it is on its way
			w.e.publishGroup(g)
		} else {
			w.e.committed <- g
		}
		return true
	}
	w.e.committed <- g
	if err := batch.Commit(); err != nil {
		w.e.fail(errors.Join(fmt.Errorf("apply a group to the views: %w", err), batch.Close()))
		g.viewed <- struct{}{}
		return false
	}
	g.snap = w.views.Snapshot()
	g.viewed <- struct{}{}
	if flushDue(w.views) {
		w.e.flushViews()
	}
	return true
}

// write ends the group's log batch and commits it without waiting for its sync.
func (w *writer) write(g *group) error {
	if err := w.sealGroup(g); err != nil {
		return err
	}
	if g.log == nil {
		return nil
	}
	for _, ref := range g.batch.Released() {
		g.log.ReleasePayload(log.PayloadKey{Owner: ref.Owner, ID: ref.ID})
	}
	var err error
	if g.pending, err = g.log.Commit(); err != nil {
		return fmt.Errorf("commit a group to the log: %w", err)
	}
	w.e.counters.groups.Add(1)
	w.e.counters.events.Add(g.log.Next() - g.log.First())
	return nil
}

// abort answers everything that can't be decided any more: nothing after a
// clean stop, all that waits after a failure.
func (w *writer) abort() {
	why := w.e.refusal()
	for _, c := range w.group.calls {
		c.fail(why)
	}
	if w.group.batch != nil {
		w.group.batch.Close()
	}
	if w.group.log != nil && w.group.pending == nil {
		w.group.log.Discard()
	}
	w.e.queue.close(why)
	calls, _ := w.e.queue.take(w.waiting)
	for _, c := range calls {
		if c.begin() {
			c.fail(why)
		}
	}
}
