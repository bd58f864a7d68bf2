package log

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

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
	cacheBytes := o.CacheBytes
	if cacheBytes == 0 {
		cacheBytes = defaultCacheBytes
	}
	opts := &pebble.Options{
		FS:                          &fencedFS{FS: fsys, fail: s.fail},
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
	if o.Logger.Enabled(context.Background(), slog.LevelDebug) {
		el := pebble.MakeLoggingEventListener(lg)
		opts.EventListener = &el
	} else {
		opts.EventListener = &pebble.EventListener{}
	}
	opts.EventListener.BackgroundError = func(err error) {
		o.Logger.Warn("log store: background work failed", slog.Any("error", err))
	}
	opts.EventListener.DataCorruption = func(info pebble.DataCorruptionInfo) {
		o.Logger.Error("log store: damaged file", slog.String("path", info.Path), slog.Any("error", info.Details))
		s.fail.set(fmt.Errorf("%w: %w", ErrCorrupt, info.Details))
	}
	db, err := pebble.Open(path, opts)
	if err != nil {
		return nil, errors.Join(openError(path, err), lock.Close())
	}
	s.db = db
	return s, nil
}

func openError(path string, err error) error {
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: the store %s cannot be opened (%w): %s", ErrCorrupt, path, err, restoreRemedy)
	}
	return fmt.Errorf("open the store %s: %w", path, err)
}

func (s *store) close() error { return errors.Join(s.db.Close(), s.lock.Close()) }

// apply commits a batch and returns when it is durable, or, with pebble.NoSync, at once.
func (s *store) apply(b *pebble.Batch, o *pebble.WriteOptions) error {
	if err := s.fail.get(); err != nil {
		return err
	}
	if err := s.db.Apply(b, o); err != nil {
		return s.fail.set(err)
	}
	return s.fail.get() // Pebble reports a failed commit through Logger.Fatalf and returns nil
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
	err := fmt.Errorf(format, args...)
	s.log.Error("log store: fatal", slog.Any("error", err))
	s.fail.set(err)
}
