package commands

import (
	"context"
	"errors"
	"fmt"

	"quicprochat/projections"
)

// Start opens the views, brings them up to the log, checks the clock and starts
// deciding. ctx ends the start, not the engine. Errors are one sentence with
// cause and remedy; a *ClockError when clock and log contradict each other.
//
// Views whose damage shows only when they are read, after they were opened, are
// built anew once, as they would be by the next start.
func Start(ctx context.Context, o Options) (*Engine, error) {
	e := newEngine(o)
	if err := e.openViews(ctx, o, nil); err != nil {
		return nil, err
	}
	err := e.begin(ctx, o)
	damaged := (*projections.RebuildError)(nil)
	if errors.As(err, &damaged) && o.Log.Err() == nil {
		e, err = restart(ctx, o, damaged)
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// restart starts anew, in place of an engine that ended because its views turned
// out to be damaged.
func restart(ctx context.Context, o Options, damaged *projections.RebuildError) (*Engine, error) {
	// A group may have been committed before the views failed. It is synced, since
	// the engine has ended; what the views are to show must be anchored as well.
	if err := o.Log.WriteAnchor(o.Log.Size(), o.Log.Root()); err != nil {
		return nil, fmt.Errorf("anchor the log: %w", err)
	}
	e := newEngine(o)
	if err := e.openViews(ctx, o, damaged); err != nil {
		return nil, err
	}
	return e, e.begin(ctx, o)
}

// begin checks the clock and what was signed, and starts deciding. On an error
// nothing of the engine is left.
func (e *Engine) begin(ctx context.Context, o Options) error {
	snap := e.views.Snapshot()
	last, err := projections.LastEventTime(snap)
	if err == nil {
		err = e.clock.checkStart(last, o.AcceptTime)
	}
	if err != nil {
		return errors.Join(err, snap.Close(), e.views.Close())
	}
	if e.signer, err = newSigner(e, o.LogKey); err == nil {
		err = e.signer.checkStart(snap)
	}
	if err == nil {
		err = e.signer.askFirst(ctx, snap, o.Ask)
	}
	if err != nil {
		return errors.Join(err, e.signer.closeGuard(), snap.Close(), e.views.Close())
	}
	e.publish(snap)
	go e.signer.run()
	w := &writer{
		e: e, log: e.log, views: e.views, clock: e.clock,
		quotas: o.Quotas, group: newGroup(),
	}
	go w.run()
	go e.syncGroups()
	go e.publishGroups()
	background, quit := context.WithCancel(context.Background())
	e.quit = quit
	e.keepers.Go(func() { e.keepHouse(background) })
	e.keepers.Go(func() { e.keepHeads(background) })
	e.keepers.Go(func() { e.keepSnapshots(background, o.SnapshotEvery) })
	e.keepers.Go(func() { e.keepCompacted(background) })
	e.keepers.Go(func() { e.watchSyncs(background) })
	if e.space.begin() {
		e.keepers.Go(func() { e.keepSpace(background) })
		e.keepers.Go(func() { e.reclaimSpace(background) })
	}
	// The first checkpoint of this run shows that it knows the whole log.
	if err := e.sealHead(ctx); err != nil {
		err = errors.Join(fmt.Errorf("write the first HEAD: %w", err), e.Stop(context.WithoutCancel(ctx)))
		return errors.Join(err, e.Err())
	}
	return nil
}
