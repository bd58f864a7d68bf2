package log

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// storeDir is the folder of the Pebble store in a data directory.
	storeDir = "log"

	// storeFormat is the newest format of the linked Pebble. From FormatWALSyncChunks on, its write-ahead log tells
	// damage from a clean end.
	storeFormat = pebble.FormatValueSeparation

	memTableSize      = 64 << 20 // bytes; also bounds what a start after a crash replays
	defaultCacheBytes = 64 << 20
)

// store is an open Pebble store together with the lock of its directory.
type store struct {
	db   *pebble.DB
	lock *pebble.Lock
	fail *failure
}

// lockStore takes the lock of a store's directory, which must exist.
func lockStore(fsys vfs.FS, path string) (*pebble.Lock, error) {
	lock, err := pebble.LockDirectory(path, fsys)
	var pathErr *fs.PathError
	switch {
	case err == nil:
		return lock, nil
	case errors.As(err, &pathErr):
		return nil, fmt.Errorf("lock the log: %w", err) // no such directory, no permission
	}
	return nil, &lockedError{dir: path, cause: err}
}

// openStore opens the store at path under a lock that it takes over.
func openStore(fsys vfs.FS, path string, lock *pebble.Lock, o Options, create bool) (*store, error) {
	s := &store{lock: lock, fail: newFailure()}
	lg := &storeLogger{log: o.Logger, fail: s.fail}
	w := &backgroundWatch{log: o.Logger, fail: s.fail, stuck: make(chan error, 1)}
	w.opening.Store(true)
	cacheBytes := o.CacheBytes
	if cacheBytes == 0 {
		cacheBytes = defaultCacheBytes
	}
	opts := &pebble.Options{
		FS:                          &frozenFS{FS: fsys, fail: s.fail, opening: &w.opening, pause: w.pause},
		Lock:                        lock,
		Logger:                      lg,
		FormatMajorVersion:          storeFormat,
		ErrorIfNotExists:            !create,
		ErrorIfExists:               create,
		CacheSize:                   cacheBytes,
		MemTableSize:                memTableSize,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       64,
		LBaseMaxBytes:               memTableSize,
		BytesPerSync:                1 << 20,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
	}
	// Payloads are ciphertext and leaves are hashes: trying to compress them only costs time.
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	opts.EventListener = w.listener(lg)
	type result struct {
		db  *pebble.DB
		err error
	}
	done := make(chan result, 1)
	go func() {
		db, err := pebble.Open(path, opts)
		done <- result{db, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, errors.Join(w.openError(path, r.err), lock.Close())
		}
		w.settle()
		s.db = r.db
		if s.fail.get() != nil {
			err := s.close()
			if damage := w.damage.Load(); damage != nil {
				return nil, *damage
			}
			return nil, fmt.Errorf("open the store %s: %w", path, err)
		}
		if err := checkSequence(r.db, path); err != nil {
			return nil, errors.Join(err, s.close())
		}
		return s, nil
	case err := <-w.stuck:
		// Pebble retries for ever what it has to write while it opens. The lock stays until it gave up or got through.
		go func() {
			if r := <-done; r.err == nil {
				_ = r.db.Close()
			}
			_ = lock.Close()
		}()
		if damage := w.damage.Load(); damage != nil {
			return nil, *damage // there is nothing wrong with the disk's room
		}
		return nil, fmt.Errorf("open the store %s: its files cannot be written (%w): make room on the disk or repair it", path, err)
	}
}

// close releases everything. It reports a failure, too, since Pebble may not know of it.
func (s *store) close() error {
	if err := errors.Join(s.db.Close(), s.lock.Close()); s.fail.get() == nil {
		return err
	}
	return s.fail.get()
}

// apply commits a batch and returns when it is durable, or, with pebble.NoSync, at once.
func (s *store) apply(b *pebble.Batch, o *pebble.WriteOptions) error {
	if err := s.fail.get(); err != nil {
		return err
	}
	if err := s.db.Apply(b, o); err != nil {
		return s.fail.set(err)
	}
	return s.fail.get() // Pebble does not tell: see frozenFS, and Fatalf below
}

// applyNoSyncWait commits a batch; its SyncWait tells when it is durable.
func (s *store) applyNoSyncWait(b *pebble.Batch) error {
	if err := s.fail.get(); err != nil {
		return err
	}
	if err := s.db.ApplyNoSyncWait(b, pebble.Sync); err != nil {
		return s.fail.set(err)
	}
	return s.fail.get() // as in apply
}

// backgroundLimit is how often in a row background work of the store may fail before the log does.
const backgroundLimit = 8

// backgroundWatch watches what Pebble does on its own. Pebble retries flushes and compactions without end and without
// a pause; a disk that takes none of them is to be reported, not waited for.
type backgroundWatch struct {
	log     *slog.Logger
	fail    *failure
	failed  atomic.Int32 // failures since the last success
	opening atomic.Bool
	damage  atomic.Pointer[error]
	stuck   chan error // gets the error when the limit is reached while the store is being opened
}

func (w *backgroundWatch) listener(lg pebble.Logger) *pebble.EventListener {
	var el pebble.EventListener
	if w.log.Enabled(context.Background(), slog.LevelDebug) {
		el = pebble.MakeLoggingEventListener(lg)
	}
	el.BackgroundError = w.onError
	logFlush := el.FlushEnd
	el.FlushEnd = func(info pebble.FlushInfo) {
		if info.Err == nil {
			w.failed.Store(0)
		}
		if logFlush != nil {
			logFlush(info)
		}
	}
	el.DataCorruption = func(info pebble.DataCorruptionInfo) {
		w.log.Error("log store: damaged file", slog.String("path", info.Path), slog.Any("error", info.Details))
		w.damaged(&FileError{Path: info.Path, Cause: info.Details})
	}
	return &el
}

// checkSequence refuses a store that would number new writes below those in its tables, so that they would not be
// seen. Pebble takes damage in its MANIFEST for the end of it, and the number that goes on stands only in the last
// record.
func checkSequence(db *pebble.DB, path string) error {
	snap := db.NewSnapshot()
	next := db.Metrics().Snapshots.EarliestSeqNum
	if err := snap.Close(); err != nil {
		return fmt.Errorf("open the store %s: %w", path, err)
	}
	levels, err := db.SSTables()
	if err != nil {
		return fmt.Errorf("open the store %s: %w", path, err)
	}
	for _, level := range levels {
		for _, table := range level {
			if table.LargestSeqNum >= next {
				return &FileError{Path: path + "/MANIFEST", Cause: fmt.Errorf("it names write %d as the next, and table %s holds write %d", next, table.FileNum, table.LargestSeqNum)}
			}
		}
	}
	return nil
}

// openError says why a store that is there cannot be opened. What is not the machine's refusal lies in the files:
// Pebble reads nothing else.
func (w *backgroundWatch) openError(path string, err error) error {
	var errno syscall.Errno
	damage := w.damage.Load()
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case damage != nil:
		return *damage
	case !missing && errors.As(err, &errno):
		return fmt.Errorf("open the store %s: %w: let this user read and write its files, or repair the disk", path, err)
	}
	return fmt.Errorf("%w: the store %s cannot be opened (%w): %s", ErrCorrupt, path, err, restoreRemedy)
}

// damaged ends a log of which a file is damaged: reading it again gives no other bytes.
func (w *backgroundWatch) damaged(err error) {
	w.damage.CompareAndSwap(nil, &err)
	if !w.opening.Load() {
		w.fail.set(err)
	}
}

// settle ends the opening. Until then damage did not freeze the disk: Pebble would fail to open with a compaction
// still running, which then panics.
func (w *backgroundWatch) settle() {
	w.opening.Store(false)
	if err := w.damage.Load(); err != nil {
		w.fail.set(*err)
	}
}

func (w *backgroundWatch) onError(err error) {
	if pebble.IsCorruptionError(err) {
		w.log.Error("log store: damaged file", slog.Any("error", err))
		w.damaged(fmt.Errorf("%w: the store cannot be read (%w): %s", ErrCorrupt, err, restoreRemedy)) // unless its file is known
	}
	n := w.failed.Add(1)
	w.log.Warn("log store: background work failed", slog.Any("error", err), slog.Int("times", int(n)))
	if n >= backgroundLimit {
		if !w.opening.Load() {
			w.fail.set(fmt.Errorf("background work of the store keeps failing: %w", err))
		} else {
			select {
			case w.stuck <- err:
			default:
			}
		}
	}
}

// pause lets time pass before Pebble tries again what failed: it would do so at once.
func (w *backgroundWatch) pause() {
	time.Sleep(time.Duration(min(w.failed.Load(), backgroundLimit)) * time.Millisecond)
}

// flush writes what the store has in memory to its files. It does not wait for a disk that takes nothing any more.
func (s *store) flush() error {
	done, err := s.db.AsyncFlush()
	if err != nil {
		return s.fail.set(err)
	}
	select {
	case <-done:
	case <-s.fail.ch:
	}
	return s.fail.get()
}

// storeLogger brings Pebble's log to slog. Fatalf returns: it fails the log, which ends all writing, and leaves the
// end of the process to whoever watches the log.
type storeLogger struct {
	log  *slog.Logger
	fail *failure
}

func (s *storeLogger) Infof(format string, args ...any) {
	if s.log.Enabled(context.Background(), slog.LevelDebug) {
		s.log.Debug("log store", slog.String("message", fmt.Sprintf(format, args...)))
	}
}

func (s *storeLogger) Errorf(format string, args ...any) {
	s.log.Warn("log store", slog.String("message", fmt.Sprintf(format, args...)))
}

func (s *storeLogger) Fatalf(format string, args ...any) {
	err := &fatalError{text: fmt.Sprintf(format, args...)}
	for _, arg := range args {
		if cause, ok := arg.(error); ok {
			err.cause = cause
		}
	}
	s.log.Error("log store: fatal", slog.Any("error", err))
	s.fail.set(err)
}

// fatalError is what Pebble said before it gave up. Pebble formats the cause into the text; here it stays in the chain.
type fatalError struct {
	text  string
	cause error
}

func (e *fatalError) Error() string { return e.text }
func (e *fatalError) Unwrap() error { return e.cause }
