package log

import (
	"crypto/sha256"

	"quicprochat/kt"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight // hashes in a full tile, entries in a full bundle
	tileLevels = 64 / tileHeight
	treeLevels = tileLevels * tileHeight
)

// emptyRoot is the root of the tree without leaves (RFC 6962 section 2.1).
var emptyRoot = kt.Hash(sha256.Sum256(nil))

// nodeHash is the hash of an inner node: SHA-256(0x01 ‖ left ‖ right), RFC 6962 section 2.1.
func nodeHash(left, right *kt.Hash) kt.Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// compactRange is the list of the roots of the perfect subtrees that a tree of size leaves consists of: one per bit
// of size, the largest subtree first. It is all that is needed to append leaves and to know the root.
type compactRange struct {
	size  uint64
	roots []kt.Hash
}

// set makes c a copy of o, in c's own memory.
func (c *compactRange) set(o *compactRange) {
	c.size, c.roots = o.size, append(c.roots[:0], o.roots...)
}

// add appends a leaf hash. Every node that becomes complete is added to nodes.
func (c *compactRange) add(leaf kt.Hash, nodes *newNodes) {
	h, level := leaf, 0
	nodes[0] = append(nodes[0], h)
	for rest := c.size; rest&1 == 1; rest >>= 1 {
		last := len(c.roots) - 1
		h = nodeHash(&c.roots[last], &h)
		c.roots = c.roots[:last]
		level++
		nodes[level] = append(nodes[level], h)
	}
	c.roots = append(c.roots, h)
	c.size++
}

func (c *compactRange) root() kt.Hash {
	if len(c.roots) == 0 {
		return emptyRoot
	}
	return foldRoots(c.roots)
}

// foldRoots joins the roots of neighbouring subtrees, the largest first, into the root over all of them.
func foldRoots(roots []kt.Hash) kt.Hash {
	h := roots[len(roots)-1]
	for i := len(roots) - 2; i >= 0; i-- {
		h = nodeHash(&roots[i], &h)
	}
	return h
}

// subtreeRoot is the root over a power of two of hashes.
func subtreeRoot(hashes []kt.Hash) kt.Hash {
	var buf [tileWidth / 2]kt.Hash
	for len(hashes) > 1 {
		up := buf[:len(hashes)/2]
		for i := range up {
			up[i] = nodeHash(&hashes[2*i], &hashes[2*i+1]) // in place from the second round on: i ≤ 2i
		}
		hashes = up
	}
	return hashes[0]
}

// newNodes collects the roots of perfect subtrees by level: those of level l have 2^l leaves.
type newNodes [treeLevels + 1][]kt.Hash

func (n *newNodes) reset() {
	for i := range n {
		n[i] = n[i][:0]
	}
}

// edge is the right edge of the tree, as far as its tiles and bundles are not stored yet, and the entries that belong
// to it. Nodes and entries are only ever appended, and what was stored is dropped by moving the rest to new memory,
// so that readers may keep slices without a lock.
type edge struct {
	levels  [tileLevels]edgeLevel
	entries []byte   // encoded as in an entry bundle
	ends    []uint32 // end of each entry in entries
}

// edgeLevel is one tile level of the edge: the hashes that make up its tiles, and the nodes above them.
type edgeLevel struct {
	base  uint64                // index of the first hash; a multiple of tileWidth
	nodes [tileHeight][]kt.Hash // by height; nodes[0] are the hashes from base on
}

// node is the node height levels above the hashes, over those from start on; start is not below base.
func (l *edgeLevel) node(height uint, start uint64) kt.Hash {
	return l.nodes[height][(start-l.base)>>height]
}

// tile gives the first width hashes of the i-th tile from base.
func (l *edgeLevel) tile(i uint64, width int) []kt.Hash {
	return l.nodes[0][i*tileWidth:][:width]
}

// grow makes the nodes above hashes that came without them.
func (l *edgeLevel) grow() {
	for h := 1; h < tileHeight; h++ {
		below := l.nodes[h-1]
		for i := 2 * len(l.nodes[h]); i+1 < len(below); i += 2 {
			l.nodes[h] = append(l.nodes[h], nodeHash(&below[i], &below[i+1]))
		}
	}
}

func (l *edgeLevel) drop(tiles int) {
	l.base += uint64(tiles) * tileWidth
	for h := range l.nodes {
		l.nodes[h] = append(make([]kt.Hash, 0, 2*tileWidth>>h), l.nodes[h][tiles*tileWidth>>h:]...)
	}
}

func (e *edge) appendNodes(n *newNodes) {
	for level, hashes := range n[:treeLevels] {
		if len(hashes) > 0 {
			to := &e.levels[level/tileHeight].nodes[level%tileHeight]
			*to = append(*to, hashes...)
		}
	}
}

func (e *edge) appendEntry(leaf []byte) {
	e.entries = append(e.entries, byte(len(leaf)>>8), byte(len(leaf)))
	e.entries = append(e.entries, leaf...)
	e.ends = append(e.ends, uint32(len(e.entries)))
}

// full is the number of full bundles at the edge that are to be stored.
func (e *edge) full() int { return len(e.ends) / tileWidth }

// bundle gives the first width entries of bundle i of the edge.
func (e *edge) bundle(i, width int) []byte {
	start := 0
	if i > 0 {
		start = int(e.ends[i*tileWidth-1])
	}
	return e.entries[start:e.ends[i*tileWidth+width-1]]
}

// fullTiles is the number of tiles of a level at the edge that are full when its first bundles are.
func (e *edge) fullTiles(level, bundles int) int {
	leaves := e.levels[0].base + uint64(bundles)*tileWidth
	done := leaves >> (tileHeight * uint(level)) &^ (tileWidth - 1)
	return int(done-e.levels[level].base) / tileWidth
}

// drop forgets the first bundles full bundles and the tiles that were stored with them.
func (e *edge) drop(bundles int) {
	for level := tileLevels - 1; level >= 0; level-- { // level 0 last: fullTiles counts from its base
		if tiles := e.fullTiles(level, bundles); tiles > 0 {
			e.levels[level].drop(tiles)
		}
	}
	cut := bundles * tileWidth
	start := e.ends[cut-1]
	ends := make([]uint32, 0, 2*tileWidth)
	for _, end := range e.ends[cut:] {
		ends = append(ends, end-start)
	}
	e.entries = append(make([]byte, 0, 2*int(start)/bundles), e.entries[start:]...)
	e.ends = ends
}
