package log

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/kt"
)

// Options configure Open.
type Options struct {
	StoreID    [16]byte     // from the FORMAT file; must be the anchor's
	Logger     *slog.Logger // nil: nothing is logged
	CacheBytes int64        // Pebble's block cache; 0: 64 MiB
}

// Log is an open log. All methods may be called concurrently, except that groups have one writer (see Group).
type Log struct {
	store  *store
	fail   *failure // the store's
	anchor *anchor
	logger *slog.Logger

	mu   sync.RWMutex // guards what a commit changes
	head compactRange
	root kt.Hash // of head
	edge edge

	synced   atomic.Uint64 // size up to which groups are known to be durable
	spare    groupBuffers  // of the last committed group; the writer's
	trees    treeCache
	eraseMu  sync.Mutex
	counters counters

	tileWake, tileQuit, tileDone chan struct{}
}

// Create makes an empty <dir>/log and <dir>/anchor with first as record 0 and makes all of it durable. <dir> must
// exist and hold neither. It does not write FORMAT: that is the caller's last step.
func Create(fs vfs.FS, dir string, storeID [16]byte, first Record) (err error) {
	path := fs.PathJoin(dir, storeDir)
	for _, p := range []string{path, fs.PathJoin(dir, AnchorFile)} {
		if there, err := exists(fs, p); err != nil {
			return err
		} else if there {
			return fmt.Errorf("%s exists already: create the log in an empty directory", p)
		}
	}
	if err := fs.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("create the log: %w", err)
	}
	o := Options{StoreID: storeID, Logger: slog.New(slog.DiscardHandler)}
	// The write-ahead log of a store's first opening has an old format, so no record may be written there.
	l, err := openUnanchored(fs, path, o, true)
	if err != nil {
		return err
	}
	if err := l.store.close(); err != nil {
		return fmt.Errorf("create the log: %w", err)
	}
	if l, err = openUnanchored(fs, path, o, false); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.store.close()) }()
	g := l.NewGroup()
	g.Append(first)
	p, err := g.Commit()
	if err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return err
	}
	return createAnchor(fs, dir, storeID, head{p.Size(), p.Root()})
}

func openUnanchored(fs vfs.FS, path string, o Options, create bool) (*Log, error) {
	lock, err := lockStore(fs, path)
	if err != nil {
		return nil, err
	}
	s, err := openStore(fs, path, lock, o, create)
	if err != nil {
		return nil, err
	}
	return newLog(s, o), nil
}

func newLog(s *store, o Options) *Log {
	return &Log{
		store:    s,
		fail:     s.fail,
		logger:   o.Logger,
		root:     emptyRoot,
		tileWake: make(chan struct{}, 1),
		tileQuit: make(chan struct{}),
		tileDone: make(chan struct{}),
	}
}

// Open opens <dir>/log, recovers size and root from the segments, checks the head anchor and completes the tiles.
// A log longer than its anchor is normal; its recovered size is durable and anchored before Open returns.
// Errors: ErrLocked, ErrNoAnchor, ErrShorterThanAnchor, ErrRootMismatch, ErrCorrupt.
func Open(fs vfs.FS, dir string, o Options) (_ *Log, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	path := fs.PathJoin(dir, storeDir)
	a, err := openAnchor(fs, dir, o.StoreID)
	if err != nil {
		return nil, err
	}
	var l *Log
	defer func() {
		if err != nil {
			err = errors.Join(err, a.file.Close())
		}
	}()
	if there, err := exists(fs, path); err != nil {
		return nil, err
	} else if !there {
		return nil, noStore(a)
	}
	l, err = openUnanchored(fs, path, o, false)
	if errors.Is(err, pebble.ErrDBDoesNotExist) {
		return nil, noStore(a)
	} else if err != nil {
		return nil, err
	}
	l.anchor = a
	if err := l.load(); err != nil {
		return nil, errors.Join(err, l.store.close())
	}
	go l.runTiles()
	return l, nil
}

// noStore is the error for an anchor without a store.
func noStore(a *anchor) error {
	h := a.head()
	return &AnchorError{Kind: ErrShorterThanAnchor, LogRoot: emptyRoot, AnchorSize: h.size, AnchorRoot: h.root}
}

// Close stores the tiles that are full and closes the log. It is called once, when no group will be committed or
// waited for any more. Closing a failed log gives an error, but does release files and lock.
func (l *Log) Close() error {
	close(l.tileQuit)
	<-l.tileDone
	var err error
	if l.fail.get() == nil {
		err = l.storeTiles()
	}
	return errors.Join(err, l.store.close(), l.anchor.file.Close())
}

// Size is the number of records committed so far; the newest of them may not be durable yet.
func (l *Log) Size() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.head.size
}

// Root is the RFC 6962 root over the first Size records.
func (l *Log) Root() kt.Hash {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.root
}

// Anchored gives the newest anchored size and root.
func (l *Log) Anchored() (uint64, kt.Hash) {
	h := l.anchor.head()
	return h.size, h.root
}

// WriteAnchor writes the older slot of the head anchor and syncs it; the newest size again is no write. size and root
// are those of a Pending whose Wait returned nil. An error is of unknown outcome and fails the log.
func (l *Log) WriteAnchor(size uint64, root kt.Hash) error {
	if err := l.fail.get(); err != nil {
		return err
	}
	if synced := l.synced.Load(); size > synced {
		return l.fail.set(fmt.Errorf("anchor of size %d asked for while only %d records are durable", size, synced))
	}
	written, err := l.anchor.write(head{size, root})
	if err != nil {
		return l.fail.set(err)
	}
	if written {
		l.counters.anchorSyncs.Add(1)
	}
	return nil
}

// Err is nil, or the error with which the log failed; it wraps ErrFailed.
func (l *Log) Err() error { return l.fail.get() }

// Failed is closed when the log fails. Damage that Pebble meets in the background fails it too.
func (l *Log) Failed() <-chan struct{} { return l.fail.ch }
