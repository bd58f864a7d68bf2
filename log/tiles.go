package log

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"quicprochat/kt"
)

// bundlesPerBatch bounds the batches in which tiles are stored: about 17 KiB for each bundle with its tile.
const bundlesPerBatch = 32

// wakeTiles tells the tile goroutine that a bundle may be full.
func (l *Log) wakeTiles() {
	select {
	case l.tileWake <- struct{}{}:
	default: // it is awake already
	}
}

// runTiles stores full tiles until the log is closed.
func (l *Log) runTiles() {
	defer close(l.tileDone)
	for {
		select {
		case <-l.tileQuit:
			return
		case <-l.tileWake:
			if l.storeTiles() != nil {
				return // the log has failed; the error is in it
			}
		}
	}
}

// storeTiles stores every full bundle of the edge with the tiles that it completes, without sync. A power cut may
// lose the newest of them, never more: a batch is durable at the latest when a later group is. One caller at a time.
func (l *Log) storeTiles() error {
	for {
		l.mu.RLock()
		e := l.edge // the slices' contents never change
		l.mu.RUnlock()
		n := min(e.full(), bundlesPerBatch)
		if n == 0 {
			return nil
		}
		if err := l.storeEdge(&e, n); err != nil {
			return err
		}
		l.counters.tileBatches.Add(1)
		l.mu.Lock()
		l.edge.drop(n)
		l.mu.Unlock()
	}
}

// storeEdge writes the first bundles of an edge, and at each level all tiles that are full when these bundles are, as
// one batch.
func (l *Log) storeEdge(e *edge, bundles int) error {
	b := l.store.db.NewBatchWithSize(bundles * 18 << 10)
	defer b.Close()
	var key []byte
	first := e.levels[0].base / tileWidth
	for i := range bundles {
		key = appendBundleKey(key[:0], first+uint64(i))
		if err := b.Set(key, e.bundle(i, tileWidth), nil); err != nil {
			return l.fail.set(err)
		}
	}
	for level := range e.levels {
		lv := &e.levels[level]
		for i := range e.fullTiles(level, bundles) {
			key = appendTileKey(key[:0], level, lv.base/tileWidth+uint64(i))
			op := b.SetDeferred(len(key), tileWidth*len(kt.Hash{}))
			copy(op.Key, key)
			putHashes(op.Value, lv.tile(uint64(i), tileWidth))
			if err := op.Finish(); err != nil {
				return l.fail.set(err)
			}
		}
	}
	return l.store.apply(b, pebble.NoSync)
}

func putHashes(dst []byte, hashes []kt.Hash) {
	for i := range hashes {
		copy(dst[i*len(kt.Hash{}):], hashes[i][:])
	}
}

// loadEdge sets edge and compact range to where the stored tiles of a log of the given size end.
func (l *Log) loadEdge(size uint64) error {
	tiled, err := l.storedTiles(size)
	if err != nil {
		return err
	}
	l.edge = edge{}
	for level := range l.edge.levels {
		count := tiled * tileWidth >> (tileHeight * uint(level))
		lv := &l.edge.levels[level]
		lv.base = count &^ (tileWidth - 1)
		for i := lv.base; i < count; i++ { // the roots of the newest tiles one level below
			tile, err := l.storedTile(level-1, i)
			if err != nil {
				return err
			}
			lv.nodes[0] = append(lv.nodes[0], subtreeRoot(tile))
		}
		lv.grow()
	}
	roots, err := l.rangeRoots(0, tiled*tileWidth)
	if err != nil {
		return err
	}
	l.head = compactRange{size: tiled * tileWidth, roots: roots}
	return nil
}

// storedTiles is the number of full tiles of level 0 in the store of a log of the given size.
func (l *Log) storedTiles(size uint64) (n uint64, err error) {
	r := tileLevelRange(0)
	it, err := l.store.db.NewIter(&pebble.IterOptions{LowerBound: r.lower, UpperBound: r.upper})
	if err != nil {
		return 0, fmt.Errorf("look for tiles: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if it.Last() {
		last, ok := tileKeyNumber(it.Key())
		if !ok || last >= size/tileWidth {
			return 0, corrupt(size, "tile %d lies beyond the %d records", last, size)
		}
		n = last + 1
	}
	return n, it.Error()
}

// storedTile reads a full tile from the store.
func (l *Log) storedTile(level int, n uint64) ([]kt.Hash, error) {
	var key [10]byte
	value, closer, err := l.store.db.Get(appendTileKey(key[:0], level, n))
	if err != nil {
		return nil, corrupt(n<<(tileHeight*uint(level+1)), "tile %d of level %d: %w", n, level, err)
	}
	defer closer.Close()
	if len(value) != tileWidth*len(kt.Hash{}) {
		return nil, corrupt(n<<(tileHeight*uint(level+1)), "tile %d of level %d has %d bytes", n, level, len(value))
	}
	hashes := make([]kt.Hash, tileWidth)
	for i := range hashes {
		copy(hashes[i][:], value[i*len(kt.Hash{}):])
	}
	return hashes, nil
}
