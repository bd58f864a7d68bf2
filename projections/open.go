package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Names below the data directory.
const (
	viewsDir     = "views"
	snapshotsDir = "snapshots"
	// damageNote is a file in the views directory that says they are damaged.
	damageNote = "DAMAGED"
)

// Sizes of the store's memory. The engine flushes long before a memtable of this
// size is full; it bounds what a burst can take.
const (
	memTableBytes     = 64 << 20
	defaultCacheBytes = 32 << 20
)

// Open opens <dir>/views. It returns a *RebuildError when they are missing,
// damaged or ahead of the log; other errors (no permission, locked, disk full)
// are not cured by building them anew.
func Open(fsys vfs.FS, dir string, o Options) (*Views, error) {
	path := fsys.PathJoin(dir, viewsDir)
	if _, err := fsys.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, &RebuildError{Reason: Missing}
	} else if err != nil {
		return nil, fmt.Errorf("views: %w", err)
	}
	if _, err := fsys.Stat(fsys.PathJoin(path, damageNote)); err == nil {
		return nil, &RebuildError{Reason: Damaged, Err: errors.New("noted while they were in use")}
	}
	v, err := openStore(fsys, path, o)
	if err != nil {
		return nil, err
	}
	if err := v.load(o.LogSize); err != nil {
		return nil, errors.Join(err, v.closeStore())
	}
	return v.serve()
}

// DropAndRecreate removes <dir>/views and starts them again from the newest good
// snapshot that the log covers, else empty; Cursor tells where. The caller then
// applies the log from there on.
func DropAndRecreate(fsys vfs.FS, dir string, o Options) (*Views, error) {
	path := fsys.PathJoin(dir, viewsDir)
	sizes, err := ListSnapshots(fsys, dir)
	if err != nil {
		return nil, err
	}
	for i := len(sizes) - 1; i >= 0; i-- {
		if sizes[i] > o.LogSize {
			continue
		}
		v, err := recreate(fsys, path, o, func(v *Views) error { return v.restore(fsys, dir, sizes[i]) })
		if !errors.Is(err, ErrBadSnapshot) {
			return v, err
		}
		loggerOf(o).Warn("snapshot of the views passed over", "size", sizes[i], "error", err)
	}
	return recreate(fsys, path, o, func(v *Views) error {
		return v.db.Set(keyOf(nil, prefixMeta), appendMeta(nil, 0, 0), pebble.NoSync)
	})
}

// recreate starts an empty store and fills it; it is durable on return.
func recreate(fsys vfs.FS, path string, o Options, fill func(*Views) error) (*Views, error) {
	if err := fsys.RemoveAll(path); err != nil {
		return nil, fmt.Errorf("views: remove: %w", err)
	}
	v, err := openStore(fsys, path, o)
	if err != nil {
		return nil, err
	}
	if err := fill(v); err != nil {
		return nil, errors.Join(err, v.closeStore())
	}
	if err := v.flush(); err != nil {
		return nil, errors.Join(err, v.closeStore())
	}
	if err := v.load(o.LogSize); err != nil {
		return nil, errors.Join(err, v.closeStore())
	}
	return v.serve()
}

// OpenOrRecreate is Open and, when that returns a *RebuildError, DropAndRecreate;
// the second result tells why then, and is nil otherwise.
func OpenOrRecreate(fsys vfs.FS, dir string, o Options) (*Views, *RebuildError, error) {
	v, err := Open(fsys, dir, o)
	var why *RebuildError
	if !errors.As(err, &why) {
		return v, nil, err
	}
	v, err = DropAndRecreate(fsys, dir, o)
	return v, why, err
}

// load reads the cursor of a store that was opened.
func (v *Views) load(logSize uint64) error {
	value, found, err := getFrom(v.db, keyOf(nil, prefixMeta))
	if err != nil {
		return v.fault(err)
	}
	if !found {
		return &RebuildError{Reason: Missing}
	}
	row := rowReader{rest: value}
	format := row.u32()
	if format != viewsFormat {
		return &RebuildError{Reason: Damaged, Err: fmt.Errorf("rows of format %d, this program writes %d", format, viewsFormat)}
	}
	cursor, _ := row.u64(), row.u64()
	if err := row.end("meta"); err != nil {
		return v.fault(err)
	}
	if cursor > logSize {
		return &RebuildError{Reason: Ahead, Cursor: cursor}
	}
	v.cursor.Store(cursor)
	v.flushed.Store(cursor)
	v.mark.applying(cursor)
	return nil
}

// openStore opens or creates the Pebble store.
func openStore(fsys vfs.FS, path string, o Options) (*Views, error) {
	v := &Views{
		fs: fsys, path: path, mark: newSyncMark(o.LogSize), logger: loggerOf(o),
		onError: o.OnError, cache: newPointCache(),
	}
	v.down = newBreakdown(v.broke)
	// The lock is taken apart from Open: a store in use is not a damaged one.
	if err := fsys.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("views: %w", err)
	}
	var err error
	if v.lock, err = pebble.LockDirectory(path, fsys); err != nil {
		return nil, fmt.Errorf("views: in use by another process: %w", err)
	}
	options := v.pebbleOptions(o)
	defer options.Cache.Unref()
	v.db, err = pebble.Open(path, options)
	v.down.opened.Store(true)
	if err == nil {
		if err = cmp.Or(v.down.get(), checkSequence(v.db)); err != nil {
			err = errors.Join(err, v.db.Close())
		}
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("views: open: %w", err), v.lock.Close())
		if isEnvironment(err) {
			return nil, err
		}
		return nil, &RebuildError{Reason: Damaged, Err: err}
	}
	return v, nil
}

// checkSequence refuses a store that would number new writes below those in its
// tables, so that they would not be seen. Pebble takes damage in its MANIFEST for
// the end of it, and the number that goes on stands only in the last record.
func checkSequence(db *pebble.DB) error {
	snap := db.NewSnapshot()
	next := db.Metrics().Snapshots.EarliestSeqNum
	if err := snap.Close(); err != nil {
		return err
	}
	levels, err := db.SSTables()
	for _, level := range levels {
		for _, table := range level {
			if table.LargestSeqNum >= next {
				err = fmt.Errorf("table %s holds write %d, and the next one would be %d", table.FileNum, table.LargestSeqNum, next)
			}
		}
	}
	return err
}

func (v *Views) pebbleOptions(o Options) *pebble.Options {
	size := o.CacheBytes
	if size == 0 {
		size = defaultCacheBytes
	}
	options := &pebble.Options{
		FS:                          &syncFS{FS: &guardedFS{FS: v.fs, down: v.down}, mark: v.mark},
		Lock:                        v.lock,
		Cache:                       pebble.NewCache(size),
		DisableWAL:                  true,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: 4,
		Logger:                      pebbleLogger{v.logger, v.background},
		EventListener: &pebble.EventListener{
			BackgroundError: v.background,
			DataCorruption:  func(info pebble.DataCorruptionInfo) { _ = v.fault(info.Details) },
		},
	}
	// A receipt that is looked for mostly does not exist.
	options.Levels[0].FilterPolicy = bloom.FilterPolicy(10) // lower levels inherit it
	return options
}

// isEnvironment tells failures of the machine from failures of the store's
// content, which building anew cures.
func isEnvironment(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT,
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// noteDamage makes the next Open report the views as damaged.
func noteDamage(fsys vfs.FS, path string) error {
	note, err := fsys.Create(fsys.PathJoin(path, damageNote), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if err := errors.Join(note.Sync(), note.Close()); err != nil {
		return err
	}
	return syncDir(fsys, path)
}

func syncDir(fsys vfs.FS, path string) error {
	d, err := fsys.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func loggerOf(o Options) *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// pebbleLogger passes on what Pebble finds worth telling.
type pebbleLogger struct {
	*slog.Logger
	fatal func(error)
}

func (l pebbleLogger) Infof(format string, args ...any) {
	if l.Enabled(context.Background(), slog.LevelDebug) {
		l.Debug("views: pebble", "text", fmt.Sprintf(format, args...))
	}
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.Error("views: pebble", "text", fmt.Sprintf(format, args...))
}

// Fatalf fails the views: Pebble calls it where it can't go on. It returns, so
// that the process can end in good order; from then on guardedFS lets nothing
// that Pebble still does reach the disk.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	err := &fatalError{text: "pebble: " + fmt.Sprintf(format, args...)}
	for _, arg := range args {
		if cause, ok := arg.(error); ok {
			err.cause = cause
		}
	}
	l.fatal(err)
}

// fatalError is what Pebble said before it gave up. Pebble formats the cause
// into the text; here it stays in the chain.
type fatalError struct {
	text  string
	cause error
}

func (e *fatalError) Error() string { return e.text }
func (e *fatalError) Unwrap() error { return e.cause }
