package log

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"

	"quicprochat/kt"
)

// load brings the memory of the log to what the store holds: size from the last segment, hashes from the stored
// tiles and, behind them, from the segments. Nothing is written before the anchor agrees.
func (l *Log) load() error {
	size, err := l.storedSize()
	if err != nil {
		return err
	}
	want := l.anchor.head()
	if size < want.size {
		root, err := l.rootOfSegments(size)
		if err != nil {
			root = kt.Hash{} // what is left is damaged as well; that it is too short is the graver news
		}
		return &AnchorError{Kind: ErrShorterThanAnchor, LogSize: size, LogRoot: root, AnchorSize: want.size, AnchorRoot: want.root}
	}
	if err := l.loadEdge(size); err != nil {
		return err
	}
	if err := l.extend(size, false); err != nil {
		return err
	}
	root, err := l.RootAt(want.size)
	if err != nil {
		return err
	}
	if root != want.root {
		if err := l.rebuild(size, want); err != nil {
			return err
		}
	}
	if err := l.storeTiles(); err != nil {
		return err
	}
	l.root = l.head.root()
	return l.settle(size, want)
}

// settle makes the recovered size durable and anchors it. After a killed process the newest groups may stand in the
// operating system's cache only.
func (l *Log) settle(size uint64, want head) error {
	if size > want.size {
		if err := l.store.flush(); err != nil {
			return fmt.Errorf("make the recovered log durable: %w", err)
		}
		l.logger.Info("log is longer than its anchor; anchoring it",
			slog.Uint64("anchored", want.size), slog.Uint64("size", size))
	}
	l.synced.Store(size)
	return l.WriteAnchor(size, l.root)
}

// storedSize is the index behind the last segment.
func (l *Log) storedSize() (size uint64, err error) {
	r := segmentRange()
	it, err := l.store.db.NewIter(&pebble.IterOptions{LowerBound: r.lower, UpperBound: r.upper})
	if err != nil {
		return 0, fmt.Errorf("find the last segment: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.Last() {
		if err := it.Error(); err != nil {
			return 0, corrupt(0, "find the last segment: %w", err)
		}
		return 0, nil
	}
	s, err := readSegment(it)
	if err != nil {
		return 0, err
	}
	return s.next(), nil
}

// extend appends the records from the end of the compact range up to size to range and edge. With store set, tiles
// are stored on the way, so that the edge stays small.
func (l *Log) extend(size uint64, store bool) error {
	var nodes newNodes
	return l.segments(l.head.size, size, func(s *segment, from, to uint64) error {
		nodes.reset()
		for i := from; i < to; i++ {
			r := s.record(i)
			l.head.add(kt.LeafHash(r.Leaf), &nodes)
			l.edge.appendEntry(r.Leaf)
		}
		l.edge.appendNodes(&nodes)
		if store && l.edge.full() >= bundlesPerBatch {
			return l.storeTiles()
		}
		return nil
	})
}

// rootOfSegments computes a root from the segments alone.
func (l *Log) rootOfSegments(size uint64) (kt.Hash, error) {
	var c compactRange
	var nodes newNodes
	err := l.segments(0, size, func(s *segment, from, to uint64) error {
		nodes.reset()
		for i := from; i < to; i++ {
			c.add(kt.LeafHash(s.record(i).Leaf), &nodes)
		}
		return nil
	})
	return c.root(), err
}

// rebuild decides who is wrong when the stored tiles and the anchor disagree. The segments are the truth: if their
// root is the anchor's, the tiles, which only derive from them, are made anew; else the log is refused.
func (l *Log) rebuild(size uint64, want head) error {
	root, err := l.rootOfSegments(want.size)
	if err != nil {
		return err
	}
	if root != want.root {
		return &AnchorError{Kind: ErrRootMismatch, LogSize: size, LogRoot: root, AnchorSize: want.size, AnchorRoot: want.root}
	}
	l.logger.Warn("stored tiles do not match the log; deriving them anew", slog.Uint64("size", size))
	b := l.store.db.NewBatch()
	defer b.Close()
	for _, r := range []keyRange{tileRange(), bundleRange()} {
		if err := b.DeleteRange(r.lower, r.upper, nil); err != nil {
			return l.fail.set(err)
		}
	}
	if err := l.store.apply(b, pebble.NoSync); err != nil {
		return err
	}
	l.head, l.edge = compactRange{}, edge{}
	l.trees.reset()
	return l.extend(size, true)
}
