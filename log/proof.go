package log

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"

	"quicprochat/kt"
)

// LeafHash returns the RFC 6962 leaf hash of record i.
func (l *Log) LeafHash(i uint64) (kt.Hash, error) {
	if i >= l.Size() {
		return kt.Hash{}, fmt.Errorf("%w: record %d", ErrOutOfRange, i)
	}
	return l.node(0, i)
}

// RootAt returns the RFC 6962 root over the first size records.
func (l *Log) RootAt(size uint64) (kt.Hash, error) {
	if err := l.checkRange(0, size); err != nil {
		return kt.Hash{}, err
	}
	if size == 0 {
		return emptyRoot, nil
	}
	roots, err := l.rangeRoots(0, size)
	if err != nil {
		return kt.Hash{}, err
	}
	return foldRoots(roots), nil
}

// InclusionProof returns the RFC 6962 audit path of record index in the tree of the given size, leaf side first.
func (l *Log) InclusionProof(index, size uint64) ([][]byte, error) {
	if err := l.checkRange(0, size); err != nil {
		return nil, err
	}
	nodes, err := proof.Inclusion(index, size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOutOfRange, err)
	}
	return l.prove(nodes)
}

// ConsistencyProof returns the RFC 6962 consistency proof between the trees of sizes m ≤ n. It is empty when m is 0
// or n.
func (l *Log) ConsistencyProof(m, n uint64) ([][]byte, error) {
	if err := l.checkRange(m, n); err != nil {
		return nil, err
	}
	nodes, err := proof.Consistency(m, n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOutOfRange, err)
	}
	return l.prove(nodes)
}

func (l *Log) prove(nodes proof.Nodes) ([][]byte, error) {
	hashes := make([][]byte, len(nodes.IDs))
	for i, id := range nodes.IDs {
		h, err := l.node(id.Level, id.Index)
		if err != nil {
			return nil, err
		}
		hashes[i] = h[:]
	}
	return nodes.Rehash(hashes, func(left, right []byte) []byte {
		h := nodeHash((*kt.Hash)(left), (*kt.Hash)(right))
		return h[:]
	})
}

// rangeRoots gives the roots of the perfect subtrees that the records begin..end consist of.
func (l *Log) rangeRoots(begin, end uint64) ([]kt.Hash, error) {
	var roots []kt.Hash
	for _, id := range compact.RangeNodes(begin, end, nil) {
		h, err := l.node(id.Level, id.Index)
		if err != nil {
			return nil, err
		}
		roots = append(roots, h)
	}
	return roots, nil
}

// node is the hash of a perfect subtree of 2^level leaves, all of which the log has.
func (l *Log) node(level uint, index uint64) (kt.Hash, error) {
	tile, height := int(level/tileHeight), level%tileHeight
	start := index << height // the first hash of that tile level under the node
	l.mu.RLock()
	lv := &l.edge.levels[tile]
	if start >= lv.base {
		h := lv.node(height, start)
		l.mu.RUnlock()
		return h, nil
	}
	l.mu.RUnlock()
	t, err := l.tree(tileID{tile, start / tileWidth})
	if err != nil {
		return kt.Hash{}, err
	}
	return t.node(height, start%tileWidth>>height), nil
}

// tree gives a stored tile with the nodes above it, from the cache if it is there.
func (l *Log) tree(id tileID) (*tileTree, error) {
	if t := l.trees.lookup(id); t != nil {
		return t, nil
	}
	hashes, err := l.storedTile(id.level, id.n)
	if err != nil {
		return nil, err
	}
	t := newTileTree(hashes)
	l.trees.insert(id, t)
	return t, nil
}

// checkTile tells whether the log has hashes number*256 to number*256+width of a tile level.
func (l *Log) checkTile(level int, n uint64, width int) error {
	if level >= 0 && level < tileLevels && width >= 1 && width <= tileWidth {
		if have := l.Size() >> (tileHeight * uint(level)); n <= have/tileWidth && n*tileWidth+uint64(width) <= have {
			return nil
		}
	}
	return fmt.Errorf("%w: tile or bundle %d of level %d with width %d", ErrOutOfRange, n, level, width)
}

// Tile returns the first width hashes, 1 to 256, of hash tile n of a level, as C2SP tlog-tiles serves it.
func (l *Log) Tile(level int, n uint64, width int) ([]byte, error) {
	if err := l.checkTile(level, n, width); err != nil {
		return nil, err
	}
	out := make([]byte, width*len(kt.Hash{}))
	l.mu.RLock()
	lv := &l.edge.levels[level]
	if first := lv.base / tileWidth; n >= first {
		hashes := lv.tile(n-first, width)
		l.mu.RUnlock()
		putHashes(out, hashes)
		return out, nil
	}
	l.mu.RUnlock()
	hashes, err := l.storedTile(level, n)
	if err != nil {
		return nil, err
	}
	putHashes(out, hashes[:width])
	return out, nil
}

// EntryBundle returns the first width entries, 1 to 256, of entry bundle n, as C2SP tlog-tiles serves it: each leaf
// behind its length as a big-endian 16-bit number.
func (l *Log) EntryBundle(n uint64, width int) ([]byte, error) {
	if err := l.checkTile(0, n, width); err != nil {
		return nil, err
	}
	l.mu.RLock()
	if first := l.edge.levels[0].base / tileWidth; n >= first {
		b := l.edge.bundle(int(n-first), width)
		l.mu.RUnlock()
		return append([]byte(nil), b...), nil
	}
	l.mu.RUnlock()
	return l.storedBundle(n, width)
}

// storedBundle reads the first width entries of a full bundle.
func (l *Log) storedBundle(n uint64, width int) (_ []byte, err error) {
	value, closer, err := l.store.db.Get(appendBundleKey(nil, n))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, corrupt(n*tileWidth, "its entry bundle is missing")
	} else if err != nil {
		return nil, corrupt(n*tileWidth, "entry bundle %d: %w", n, err)
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	end := 0
	for i := range width {
		if len(value)-end < 2 {
			return nil, corrupt(n*tileWidth+uint64(i), "entry bundle %d is truncated", n)
		}
		end += 2 + int(binary.BigEndian.Uint16(value[end:]))
		if end > len(value) {
			return nil, corrupt(n*tileWidth+uint64(i), "entry bundle %d is truncated", n)
		}
	}
	return append([]byte(nil), value[:end]...), nil
}
