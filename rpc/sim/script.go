package sim

import (
	"context"
	"time"
)

// The script of the fault runs. It touches every kind of decision and every file
// that a server writes: creation, log, anchor, views and their flush, a snapshot,
// a clean stop, a rebuild of the views.

func (r *faultRun) firstLife() []func(context.Context) {
	alice, bob := r.w.People[0], r.w.People[1]
	steps := []func(context.Context){
		enter(alice), enter(bob),
		alice.sendTo(bob), bob.sendTo(alice), alice.sendBatch, bob.confirm,
		alice.uploadHybridKey, alice.drain, bob.lookUp, alice.ack,
		r.flush, // the views, by their timer; what is short-lived expires
		bob.sendTo(alice), alice.changePassword, alice.sendTo(bob), bob.wait,
		r.snapshot,
		alice.sendTo(bob), bob.ack, bob.sendBatch, alice.confirm,
	}
	return steps
}

func (r *faultRun) secondLife() []func(context.Context) {
	alice, bob := r.w.People[0], r.w.People[1]
	return []func(context.Context){
		bob.confirm, alice.sendTo(bob), bob.uploadHybridKey, alice.peek, bob.ack,
		r.flush, r.snapshot, bob.sendBatch, alice.confirm, alice.logInAgain, alice.sendTo(alice),
	}
}

// goOn is what is done after a recovery.
func (r *faultRun) goOn() []func(context.Context) {
	alice, bob := r.w.People[0], r.w.People[1]
	return []func(context.Context){alice.sendTo(bob), bob.sendTo(alice), bob.confirm, alice.uploadHybridKey}
}

// enter connects, registers and logs in.
func enter(p *Person) func(context.Context) {
	return func(ctx context.Context) {
		if p.client == nil && !p.connect(ctx) {
			return
		}
		p.ready(ctx)
	}
}

// sendTo sends somebody one message.
func (p *Person) sendTo(to *Person) func(context.Context) {
	return func(ctx context.Context) { p.sendOne(ctx, to) }
}

// logInAgain begins a session.
func (p *Person) logInAgain(ctx context.Context) { p.login(ctx) }

// flush lets time pass until the views are flushed and housekeeping was there.
func (r *faultRun) flush(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(31 * time.Second):
	}
}

// snapshot copies the views. It may fail: nothing depends on it.
func (r *faultRun) snapshot(ctx context.Context) {
	if err := r.w.node.Engine().TakeSnapshot(ctx); err != nil {
		r.w.logs.note("no snapshot: " + err.Error())
	}
}
