package commands

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/projections"
)

const (
	// catchUpEvents and catchUpBytes bound one views batch while replaying.
	catchUpEvents = 4096
	catchUpBytes  = 4 << 20
	// progressEvery is how often a replay says how far it is.
	progressEvery = 3 * time.Second
)

// errErased stops a replay at a body that is no longer there: only a snapshot
// taken after it can be built upon.
var errErased = errors.New("its body was erased and no snapshot covers it: restore the data directory from a backup")

// openViews opens the views and brings them up to the log. Views that can't be
// used, or contradict the log, are a damaged cache: they are dropped and built
// again from the newest snapshot that holds, in the end from nothing. What is
// wrong with the log itself is returned. damaged, when set, is what an earlier try
// found: they are dropped at once.
func (e *Engine) openViews(ctx context.Context, o Options, damaged *projections.RebuildError) error {
	if err := dropSnapshotsBeyond(o.FS, o.Dir, e.log.Size()); err != nil {
		return err
	}
	trial := &trial{e: e}
	vo := projections.Options{LogSize: e.log.Size(), Logger: e.logger, OnError: trial.failed}
	var views *projections.Views
	var err error
	why := damaged
	if damaged == nil {
		views, why, err = projections.OpenOrRecreate(o.FS, o.Dir, vo)
	} else {
		views, err = projections.DropAndRecreate(o.FS, o.Dir, vo)
	}
	for {
		if err != nil {
			return fmt.Errorf("open the views: %w", err)
		}
		rebuilt := why != nil
		if rebuilt {
			level := slog.LevelWarn
			if why.Reason == projections.Missing { // a new server, or an operator's wish
				level = slog.LevelInfo
			}
			e.logger.Log(ctx, level, "the views are built anew", "cause", why, "from", views.Cursor(), "to", e.log.Size())
		}
		start := views.Cursor()
		err = catchUp(ctx, e, views, rebuilt)
		if err == nil {
			err = trial.adopt(views)
		}
		if err == nil {
			return nil
		}
		err = errors.Join(err, views.Close())
		bad := (*viewsError)(nil)
		if !errors.As(err, &bad) || (rebuilt && start == 0) {
			return err
		}
		if rebuilt { // from a snapshot that does not hold: never use it again
			if err := projections.RemoveSnapshot(o.FS, o.Dir, start); err != nil {
				return fmt.Errorf("drop the snapshot at %d, which does not fit the log: %w", start, err)
			}
		}
		why = &projections.RebuildError{Reason: projections.Damaged, Cursor: start, Err: bad}
		trial.again()
		views, err = projections.DropAndRecreate(o.FS, o.Dir, vo)
	}
}

// trial keeps what the store of the views reports while they catch up: views that
// are given up must not take the engine with them.
type trial struct {
	e       *Engine
	mu      sync.Mutex
	err     error
	adopted bool
}

// failed is told by the store.
func (t *trial) failed(err error) {
	t.mu.Lock()
	if !t.adopted {
		t.err = err
	}
	adopted := t.adopted
	t.mu.Unlock()
	if adopted {
		t.e.viewsFailed(err)
	}
}

// adopt puts views to use that have caught up.
func (t *trial) adopt(views *projections.Views) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	damaged := (*projections.RebuildError)(nil)
	switch {
	case errors.As(t.err, &damaged):
		return &viewsError{t.err}
	case t.err != nil:
		return t.err
	}
	t.e.views, t.adopted = views, true
	return nil
}

// again begins with other views.
func (t *trial) again() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = nil
}

// viewsError says that the views, not the log, are what a replay failed on.
type viewsError struct{ cause error }

func (e *viewsError) Error() string { return "the views do not fit the log: " + e.cause.Error() }
func (e *viewsError) Unwrap() error { return e.cause }

// catchUp applies the log from the views' cursor to the end of the log. Each
// leaf is made again from opening and event and compared with the stored one.
func catchUp(ctx context.Context, e *Engine, views *projections.Views, rebuilt bool) error {
	r := &replayer{e: e, views: views, to: e.log.Size(), began: time.Now(), told: time.Now()}
	r.from = views.Cursor()
	if rebuilt && r.from > 0 {
		if err := r.digestStart(); err != nil {
			return err
		}
	}
	if r.from >= r.to {
		return nil
	}
	r.batch = views.NewBatch()
	err := readAhead(ctx, e.log, r.from, r.to, func(entry *projections.Entry) error {
		if r.events%1024 == 0 {
			r.progress(ctx, entry.Index)
		}
		return r.apply(entry)
	})
	if err == nil {
		err = r.flush()
	}
	err = errors.Join(err, r.batch.Close()) // nothing to do when it was committed
	if err == nil && views.Cursor() != r.to {
		err = fmt.Errorf("replay ended at %d of %d", views.Cursor(), r.to)
	}
	if err != nil {
		return fmt.Errorf("replay the log: %w", err)
	}
	if r.told != r.began {
		e.logger.InfoContext(ctx, "replayed the log", "from", r.from, "to", r.to, "took", time.Since(r.began))
	}
	return nil
}

// replayer is one run of catchUp.
type replayer struct {
	e        *Engine
	views    *projections.Views
	from, to uint64
	digest   *projections.Hash // of the snapshot that the replay started from
	batch    *projections.Batch
	events   int // in this run
	batched  int // events in batch
	bytes    int // of these
	began    time.Time
	told     time.Time
}

func (r *replayer) apply(entry *projections.Entry) error {
	if s := entry.Event.GetSnapshotTaken(); s != nil && r.digest != nil && s.GetSize() == r.from && string(s.GetDigest()) != string(r.digest[:]) {
		return &viewsError{fmt.Errorf("the snapshot at %d has another digest than the log records", r.from)}
	}
	if err := projections.Apply(r.batch, entry); err != nil {
		return &viewsError{err}
	}
	r.events++
	r.batched++
	r.bytes += len(entry.Raw)
	if r.batched >= catchUpEvents || r.bytes >= catchUpBytes {
		if err := r.flush(); err != nil {
			return err
		}
		r.batch = r.views.NewBatch()
	}
	return nil
}

// flush commits the batch. Payloads that lost their last reference were
// released with the group that did it.
func (r *replayer) flush() error {
	r.batch.Released()
	if err := r.batch.Commit(); err != nil {
		return &viewsError{err}
	}
	r.batched, r.bytes = 0, 0
	if flushDue(r.views) {
		if _, err := r.views.Flush(); err != nil {
			return &viewsError{err}
		}
	}
	return nil
}

// digestStart computes what the restored views must have been recorded with.
func (r *replayer) digestStart() error {
	snap := r.views.Snapshot()
	defer snap.Close()
	digest, err := projections.Digest(snap)
	if err != nil {
		return &viewsError{err}
	}
	r.digest = &digest
	return nil
}

// progress tells the operator of a long replay where it is.
func (r *replayer) progress(ctx context.Context, index uint64) {
	if time.Since(r.told) < progressEvery {
		return
	}
	r.told = time.Now()
	perSecond := float64(r.events) / time.Since(r.began).Seconds()
	r.e.logger.InfoContext(ctx, "replaying the log", "at", index, "of", r.to, "events_per_s", int(perSecond))
}

// dropSnapshotsBeyond removes snapshots larger than the log: a backup of the log
// was put back under them. The log will reach their size with other events.
func dropSnapshotsBeyond(fs vfs.FS, dir string, size uint64) error {
	sizes, err := projections.ListSnapshots(fs, dir)
	for _, s := range sizes {
		if s > size {
			err = errors.Join(err, projections.RemoveSnapshot(fs, dir, s))
		}
	}
	if err != nil {
		return fmt.Errorf("drop snapshots that the log does not reach: %w", err)
	}
	return nil
}
