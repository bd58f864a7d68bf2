package projections

import (
	"fmt"
	"sync"

	"quicprochat/kt"
)

// errMissingPage: a page of the map names one below it that is not there.
var errMissingPage = fmt.Errorf("%w of KT map: a page is missing", errRow)

const (
	// maxCachedPages bounds the pages that a MapView keeps; each takes 2.2 KB.
	maxCachedPages = 8192
	// sharedDepth is up to where, in pages, a full memory still takes pages: there
	// are 4,369 at most, and they are on many paths.
	sharedDepth = 4
)

// MapView reads the prefix map of one Snapshot: it is a kt.MapReader for any
// number of goroutines. It keeps pages in memory, and the first levels of the map
// are on every path.
type MapView struct {
	snap  *Snapshot
	mu    sync.RWMutex
	pages map[pageID]*mapPage
}

// pageID is a page's place: its depth in pages, and the bits that lead there.
type pageID struct {
	depth  int
	prefix kt.Label
}

// NewMapView makes a view of a snapshot's map; it must not be used after the
// snapshot's Close.
func NewMapView(s *Snapshot) *MapView {
	return &MapView{snap: s, pages: make(map[pageID]*mapPage)}
}

func pageOf(label kt.Label, depth int) pageID {
	id := pageID{depth: depth}
	copy(id.prefix[:], label[:(depth+1)/2])
	if depth%2 == 1 {
		id.prefix[depth/2] &= 0xf0
	}
	return id
}

// MapNode is the node that the first depth bits of prefix lead to, 0 to 256.
func (v *MapView) MapNode(prefix kt.Label, depth int) (kt.MapNode, error) {
	if depth < 0 || depth > len(prefix)*8 {
		return kt.MapNode{}, fmt.Errorf("views: the map has no depth %d", depth)
	}
	// The page of the depth is there if the node is an inner one, and the walk
	// down from above has put it into memory.
	if page := v.cached(pageOf(prefix, depth/pageBits)); page != nil && depth/pageBits <= maxPageDepth {
		if i := nodeAt(prefix, depth, depth/pageBits); page.kind[i] != kt.MapInner || i < pageSlots {
			return page.node(i), nil
		}
	}
	return v.walk(prefix, depth)
}

// walk goes down from the root.
func (v *MapView) walk(prefix kt.Label, depth int) (kt.MapNode, error) {
	for at := 0; ; at++ {
		page, err := v.page(prefix, at)
		if err != nil {
			return kt.MapNode{}, err
		}
		if depth < (at+1)*pageBits {
			return page.node(nodeAt(prefix, depth, at)), nil
		}
		i := pageSlots + slotOf(prefix, at)
		if page.kind[i] == kt.MapInner {
			continue
		}
		n := page.node(i)
		if n.Kind == kt.MapLeafNode && !sharesBits(n.Leaf.Label, prefix, depth) {
			return kt.MapNode{}, nil
		}
		return n, nil
	}
}

// nodeAt is the number, on the page at a depth in pages, of the node that so many
// bits lead to.
func nodeAt(prefix kt.Label, depth, page int) int {
	i := 1
	for bit := page * pageBits; bit < depth; bit++ {
		i = 2*i + int(prefix[bit/8]>>(7-bit%8)&1)
	}
	return i
}

// sharesBits tells whether two labels begin with the same bits.
func sharesBits(a, b kt.Label, bits int) bool {
	whole := bits / 8
	if string(a[:whole]) != string(b[:whole]) {
		return false
	}
	rest := bits % 8
	return rest == 0 || (a[whole]^b[whole])>>(8-rest) == 0
}

func (v *MapView) cached(id pageID) *mapPage {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.pages[id]
}

func (v *MapView) page(prefix kt.Label, depth int) (*mapPage, error) {
	id := pageOf(prefix, depth)
	if page := v.cached(id); page != nil {
		return page, nil
	}
	page, found, err := readPage(v.snap, prefix, depth)
	if err != nil {
		return nil, err
	}
	if !found && depth > 0 {
		return nil, v.snap.fault(errMissingPage)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.pages) < maxCachedPages || depth < sharedDepth {
		v.pages[id] = page
	}
	return page, nil
}
