package projections

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// viewsFormat is the format of all rows. Views of another one are rebuilt.
const viewsFormat = 3

// Options configure the views.
type Options struct {
	// LogSize is the number of records of the recovered log, all of them synced:
	// the mark that MarkSynced raises begins there, and views with a larger
	// cursor are ahead (*RebuildError).
	LogSize uint64
	// Logger gets what happens in the background; nil discards it.
	Logger *slog.Logger
	// CacheBytes bounds Pebble's block cache; 0 means 32 MiB.
	CacheBytes int64
	// OnError is called at most once, with the first error of the store's
	// background work or the first damage that a read met, and must not block. The
	// views take no more writes that last: the process should end and start again.
	OnError func(error)
}

// Views is the store of everything folded from the log. One goroutine, the
// writer, calls NewBatch and uses the Batch; all else is safe for concurrent
// use until Close.
type Views struct {
	fs     vfs.FS
	path   string
	db     *pebble.DB
	lock   *pebble.Lock
	mark   *syncMark
	down   *breakdown
	logger *slog.Logger

	onError  func(error)
	markOnce sync.Once

	// commit makes a commit and the cursor one step for Snapshot.
	commit  sync.Mutex
	cursor  atomic.Uint64
	flushed atomic.Uint64
	// rows and flushedRows count writes and deletions of rows, as cursor and flushed
	// count events.
	rows        atomic.Uint64
	flushedRows atomic.Uint64

	// Owned by the writer.
	cache    *pointCache
	receipts *recentReceipts // nil until a receipt is looked for
	batch    *Batch
}

// Cursor is the number of events applied and committed.
func (v *Views) Cursor() uint64 { return v.cursor.Load() }

// MarkSynced tells that the log is durable up to size records; a smaller size
// than before changes nothing. A file of the views becomes durable only when
// the mark has reached all that the file may hold.
func (v *Views) MarkSynced(size uint64) { v.mark.raise(size) }

// Fail tells that the log will not become durable beyond the mark: everything
// that waits for it, now or later, gets err at once.
func (v *Views) Fail(err error) { v.mark.fail(err) }

// NewBatch starts the batch of one group. There is one at a time: it panics
// while another is neither committed nor closed.
func (v *Views) NewBatch() *Batch {
	if v.batch != nil {
		panic("projections: NewBatch while another batch is open")
	}
	b := &Batch{views: v, store: v.db.NewIndexedBatch(), cursor: v.Cursor()}
	v.batch = b
	return b
}

// Snapshot freezes the views as of the last Commit, for any number of concurrent
// readers, until its Close.
func (v *Views) Snapshot() *Snapshot {
	v.commit.Lock()
	defer v.commit.Unlock()
	return &Snapshot{views: v, store: v.db.NewSnapshot(), size: v.cursor.Load()}
}

// Flush starts making durable what is in memory and returns at once; the channel
// is closed when it is done. After a failure of the store it may never be.
func (v *Views) Flush() (<-chan struct{}, error) {
	cursor, rows := v.Cursor(), v.rows.Load()
	done, err := v.db.AsyncFlush()
	if err != nil {
		return nil, v.fault(fmt.Errorf("views: flush: %w", err))
	}
	v.flushed.Store(cursor)
	v.flushedRows.Store(rows)
	return done, nil
}

// Unflushed is the number of events applied since the last Flush began: what a
// start after a crash would have to apply again, as far as is known.
func (v *Views) Unflushed() uint64 { return v.Cursor() - min(v.flushed.Load(), v.Cursor()) }

// UnflushedRows is how often these events wrote or deleted a row, which tells the
// time of applying them again better than their number: a message is a handful of
// rows, the end of a thousand messages is one event.
func (v *Views) UnflushedRows() uint64 {
	return v.rows.Load() - min(v.flushedRows.Load(), v.rows.Load())
}

// Close ends the views. What the log holds durably is flushed first. Batches and
// snapshots must be closed before.
func (v *Views) Close() error {
	if v.batch != nil {
		return errors.New("views: closed with an open batch")
	}
	var flushErr error
	if v.Unflushed() > 0 && v.mark.healthy(v.Cursor()) {
		flushErr = v.flush()
	}
	v.mark.fail(errViewsClosed)
	return errors.Join(flushErr, v.closeStore())
}

// flush makes what is in memory durable. It does not wait for a disk that takes
// nothing any more.
func (v *Views) flush() error {
	done, err := v.db.AsyncFlush()
	if err != nil {
		return fmt.Errorf("views: flush: %w", err)
	}
	select {
	case <-done:
		return nil
	case <-v.down.failed:
		return fmt.Errorf("views: flush: %w", v.down.get())
	}
}

// serve ends the opening. From here on failures are told to OnError; what failed
// before is the opening's error.
func (v *Views) serve() (*Views, error) {
	v.down.serving.Store(true)
	if err := v.down.get(); err != nil {
		return nil, errors.Join(err, v.closeStore())
	}
	return v, nil
}

// broke is called once, when the store's disk failed.
func (v *Views) broke(err error) {
	v.logger.Error("views: background work failed", "error", err)
	v.mark.fail(err)
	if v.onError != nil && v.down.serving.Load() {
		v.onError(err)
	}
}

func (v *Views) closeStore() error {
	v.down.release()
	err := v.db.Close()
	if v.down.get() != nil {
		err = nil // what a failed store can't write any more was told before
	}
	return errors.Join(err, v.lock.Close())
}

var errViewsClosed = errors.New("the views are closed")

// fault passes an error on. Damage becomes a *RebuildError, is noted beside the
// store and fails the views: Pebble checks a block when it is read, so the next
// start would otherwise find the same views good and fail again.
func (v *Views) fault(err error) error {
	if err == nil || !isDamage(err) {
		return err
	}
	v.markOnce.Do(func() {
		v.logger.Error("views damaged, rebuilt at the next start", "error", err)
		if noteErr := noteDamage(v.fs, v.path); noteErr != nil {
			v.logger.Error("views: damage not noted", "error", noteErr)
		}
	})
	var rebuild *RebuildError
	if !errors.As(err, &rebuild) {
		err = &RebuildError{Reason: Damaged, Err: err}
	}
	if v.down.serving.Load() {
		v.down.set(err) // what else these views say is not to be relied on
	}
	return err
}

// background reports the first failure of Pebble's own goroutines.
func (v *Views) background(err error) {
	if errors.Is(err, pebble.ErrCancelledCompaction) || errors.Is(err, errViewsClosed) {
		return
	}
	v.down.set(v.fault(err))
}
