package commands

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

const (
	// housekeepingEvery is how often expired things are looked for. Deciding
	// treats them as absent at once; this only bounds how long they take room.
	housekeepingEvery = 10 * time.Second
	// spaceEvery is how often the free space of the disk is looked at, and how
	// old a sync has got.
	spaceEvery = time.Second
	// reclaimEvery is how often, while the disk is full, released payloads are
	// looked for whose room can be had back.
	reclaimEvery = time.Minute
	// reclaimRoom bounds the room that having it back takes for a while, in bytes.
	reclaimRoom = 256 << 20
	// flushEvery is how often the views are flushed when anything was applied.
	flushEvery = 30 * time.Second
	// snapshotCheckEvery is how often a snapshot may be found due.
	snapshotCheckEvery = time.Minute
	// snapshotAge is when a snapshot is due although few events came.
	snapshotAge = 24 * time.Hour
	// snapshotMinEvents is how many events make an aged snapshot worth it.
	snapshotMinEvents = 10_000
	// defaultSnapshotEvery is after how many events a snapshot is due.
	defaultSnapshotEvery = 1_000_000
	// snapshotsKept is how many snapshots stay.
	snapshotsKept = 2
	// headEvery is how often a HEAD is written whatever else happens: it bounds how
	// old a checkpoint that a client gets can be. The clock is fixed, so that when a
	// HEAD comes tells nothing about messages.
	headEvery = time.Minute
)

// keepHouse runs housekeeping on a timer: as commands, through the same queue as
// everybody's, so that what expires does so at one point of the log.
func (e *Engine) keepHouse(ctx context.Context) {
	expire, flush := time.NewTicker(housekeepingEvery), time.NewTicker(flushEvery)
	defer expire.Stop()
	defer flush.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.failed:
			return
		case <-e.log.Failed(): // its background work; commits fail by themselves
			e.fail(e.log.Err())
			return
		case <-flush.C:
			if e.views.Unflushed() > 0 {
				e.flushViews()
			}
		case <-expire.C:
			if err := e.clock.check(); err != nil {
				e.logger.ErrorContext(ctx, "the wall clock jumped: changes and housekeeping wait until it is right again", "drift", e.clock.drift())
				continue
			}
			e.expireAll(ctx)
		}
	}
}

// keepHeads writes HEADs on the clock.
func (e *Engine) keepHeads(ctx context.Context) {
	tick := time.NewTicker(headEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.failed:
			return
		case <-tick.C:
		}
		if err := e.sealHead(ctx); err != nil && ctx.Err() == nil && e.Err() == nil {
			e.logger.WarnContext(ctx, "no HEAD was written: checkpoints grow old", "cause", err)
		}
	}
}

// flushViews starts a flush; its result is not waited for.
func (e *Engine) flushViews() {
	if _, err := e.views.Flush(); err != nil {
		e.viewsFailed(err)
	}
}

// expireAll runs the expiry commands until nothing is left. Each is bounded, so
// requests pass between them.
func (e *Engine) expireAll(ctx context.Context) {
	for _, decide := range expiries {
		for more := true; more && ctx.Err() == nil; {
			more = false
			_, err := e.Do(ctx, &Command{Auth: pb.Auth_NONE, Decide: func(tx *Tx) (_ proto.Message, err error) {
				more, err = decide(tx)
				return nil, err
			}})
			if err != nil {
				if ctx.Err() == nil {
					e.logger.WarnContext(ctx, "housekeeping waits for its next turn", "cause", err)
				}
				return
			}
		}
	}
}

// keepSnapshots copies the views to snapshots/ when enough happened since the
// last copy, records it in the log and drops older ones.
func (e *Engine) keepSnapshots(ctx context.Context, every uint64) {
	if every == 0 {
		every = defaultSnapshotEvery
	}
	timer := time.NewTicker(snapshotCheckEvery)
	defer timer.Stop()
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.failed:
			return
		case <-timer.C:
		}
		if e.space.full.Load() {
			continue // a snapshot takes room, and is only a help
		}
		fresh, err := e.eventsSinceSnapshot()
		if err == nil && (fresh >= every || (fresh >= snapshotMinEvents && time.Since(began) >= snapshotAge)) {
			began = time.Now()
			err = e.TakeSnapshot(ctx)
		}
		if err != nil && ctx.Err() == nil && e.Err() == nil {
			e.logger.ErrorContext(ctx, "no snapshot of the views: a rebuild would start at an older one", "cause", err)
		}
	}
}

// eventsSinceSnapshot is how many events came after the last recorded snapshot.
func (e *Engine) eventsSinceSnapshot() (uint64, error) {
	p := e.acquire()
	if p == nil {
		return 0, errStopping
	}
	defer p.release()
	last, _, err := projections.LastSnapshot(p.snap)
	return p.size - last.Size, err
}

// TakeSnapshot writes a snapshot of the views, records it with a SnapshotTaken
// event and drops all but the newest two. A snapshot that is not recorded (the
// server ended between the two steps) is as good as one that is, only that its
// digest stands in no log.
func (e *Engine) TakeSnapshot(ctx context.Context) error {
	p := e.acquire()
	if p == nil {
		return errStopping
	}
	size := p.size
	digest, err := p.snap.Write(e.fs, e.dir)
	p.release()
	if err != nil {
		return err
	}
	_, err = e.Do(ctx, &Command{Auth: pb.Auth_NONE, Decide: func(tx *Tx) (proto.Message, error) {
		return nil, recordSnapshot(tx, size, digest)
	}})
	if err != nil {
		return err
	}
	return e.dropSnapshots()
}

// dropSnapshots keeps the newest snapshots.
func (e *Engine) dropSnapshots() error {
	sizes, err := projections.ListSnapshots(e.fs, e.dir)
	if err != nil {
		return err
	}
	var errs []error
	for len(sizes) > snapshotsKept {
		errs = append(errs, projections.RemoveSnapshot(e.fs, e.dir, sizes[0]))
		sizes = sizes[1:]
	}
	return errors.Join(errs...)
}

// keepSpace looks at the disk, moves its gate and keeps the ballast.
func (e *Engine) keepSpace(ctx context.Context) {
	timer := time.NewTicker(spaceEvery)
	defer timer.Stop()
	for {
		e.space.keepBallast()
		select {
		case <-ctx.Done():
			return
		case <-e.failed:
			return
		case <-timer.C:
			e.space.look()
		}
	}
}

// reclaimSpace has the room of released payloads given back while the disk is
// full. The store does so by itself only as new data comes in, and then none
// does.
func (e *Engine) reclaimSpace(ctx context.Context) {
	timer := time.NewTicker(reclaimEvery)
	defer timer.Stop()
	done := uint64(0) // releases whose room was given back; those of earlier runs never were looked at
	for first := true; ; {
		select {
		case <-ctx.Done():
			return
		case <-e.failed:
			return
		case <-timer.C:
		}
		released := e.log.Counters().Released
		if !e.space.full.Load() || (released == done && !first) {
			continue
		}
		first = false
		began := time.Now()
		if err := e.log.Reclaim(ctx, min(reclaimRoom, e.space.free.Load()/2)); err != nil {
			if ctx.Err() == nil {
				e.logger.WarnContext(ctx, "the room of released messages is not given back yet", "cause", err)
			}
			continue
		}
		done = released
		e.logger.InfoContext(ctx, "gave back the room of released messages", "took", time.Since(began))
	}
}

// watchSyncs notices a sync that takes longer than commitDeadline.
func (e *Engine) watchSyncs(ctx context.Context) {
	timer := time.NewTicker(spaceEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.failed:
			return
		case <-timer.C:
			e.stall.look(e.logger)
		}
	}
}
