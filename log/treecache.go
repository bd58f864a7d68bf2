package log

import (
	"sync"

	"quicprochat/kt"
)

// treeCacheSize is the number of stored tiles kept in memory for proofs: 16 KiB each.
const treeCacheSize = 256

type tileID struct {
	level int
	n     uint64
}

// tileTree is a full tile with all nodes above its hashes, as a heap: node i has the children 2i and 2i+1, and the
// tile's hashes are the nodes from tileWidth on.
type tileTree [2 * tileWidth]kt.Hash

func newTileTree(hashes []kt.Hash) *tileTree {
	t := new(tileTree)
	copy(t[tileWidth:], hashes)
	for i := tileWidth - 1; i > 0; i-- {
		t[i] = nodeHash(&t[2*i], &t[2*i+1])
	}
	return t
}

// node is the i-th node, counted from the left, height levels above the tile's hashes.
func (t *tileTree) node(height uint, i uint64) kt.Hash { return t[tileWidth>>height+i] }

// treeCache keeps the trees of stored tiles, which never change while a log is open. It drops the tile that was not asked for since the
// hand last went by.
type treeCache struct {
	mu   sync.Mutex
	at   map[tileID]int // slot in ring
	ring []cachedTree
	hand int
}

type cachedTree struct {
	id   tileID
	tree *tileTree
	used bool
}

// reset forgets all tiles.
func (c *treeCache) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.ring, c.hand = nil, nil, 0
}

func (c *treeCache) lookup(id tileID) *tileTree {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.at[id]
	if !ok {
		return nil
	}
	c.ring[i].used = true
	return c.ring[i].tree
}

func (c *treeCache) insert(id tileID, t *tileTree) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.at[id]; ok {
		return // another reader was faster
	}
	if c.at == nil {
		c.at = make(map[tileID]int)
	}
	if len(c.ring) < treeCacheSize {
		c.at[id] = len(c.ring)
		c.ring = append(c.ring, cachedTree{id: id, tree: t})
		return
	}
	for c.ring[c.hand].used {
		c.ring[c.hand].used = false
		c.hand = (c.hand + 1) % treeCacheSize
	}
	delete(c.at, c.ring[c.hand].id)
	c.ring[c.hand] = cachedTree{id: id, tree: t}
	c.at[id] = c.hand
	c.hand = (c.hand + 1) % treeCacheSize
}
