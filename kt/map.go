package kt

import (
	"crypto/sha256"
	"errors"
	"fmt"
)

// The map is a grow-only binary prefix tree over labels. The bits of a label,
// from the most significant one of byte 0 on, lead from the root down; the
// subtree of all labels that share their first d bits is one of three things:
//
//	absent   no label            32 zero bytes
//	leaf     exactly one label   SHA-256(0x02 ‖ L ‖ C), whatever d is
//	inner    two or more         SHA-256(0x03 ‖ subtree of bit 0 ‖ subtree of bit 1)
//
// So the same labels always make the same tree, in whatever order they came, and
// a leaf stands as high as it stands alone. The style is that of the IETF keytrans
// draft's prefix tree.
const (
	mapLeafPrefix  = 0x02
	mapInnerPrefix = 0x03
	// mapBits is the number of bits of a label: no node is deeper.
	mapBits = 8 * len(Label{})
)

// ErrMapDuplicate is returned for a label that the map has: it only grows.
var ErrMapDuplicate = errors.New("the map has this label")

// MapLeaf is one label and what it is bound to.
type MapLeaf struct {
	Label      Label
	Commitment Hash
}

// MapLeafHash is the hash of the subtree that holds one label alone.
func MapLeafHash(l Label, c Hash) Hash {
	var buf [1 + 32 + 32]byte
	buf[0] = mapLeafPrefix
	copy(buf[1:], l[:])
	copy(buf[33:], c[:])
	return sha256.Sum256(buf[:])
}

// MapNodeHash is the hash of a subtree with two or more labels. An absent child
// is Hash{}.
func MapNodeHash(left, right Hash) Hash {
	var buf [1 + 32 + 32]byte
	buf[0] = mapInnerPrefix
	copy(buf[1:], left[:])
	copy(buf[33:], right[:])
	return sha256.Sum256(buf[:])
}

// MapNodeKind says which of the three a subtree of the map is.
type MapNodeKind uint8

const (
	// MapAbsent is a subtree without a label.
	MapAbsent MapNodeKind = iota
	// MapLeafNode is a subtree with exactly one label.
	MapLeafNode
	// MapInner is a subtree with two or more labels.
	MapInner
)

// MapNode is the top of one subtree of the map.
type MapNode struct {
	Kind MapNodeKind
	// Leaf is set for MapLeafNode.
	Leaf MapLeaf
	// Left and Right are the hashes of the subtrees of bit 0 and bit 1; set for
	// MapInner.
	Left, Right Hash
}

// Hash is the subtree's hash; Hash{} if it is absent.
func (n MapNode) Hash() Hash {
	switch n.Kind {
	case MapLeafNode:
		return MapLeafHash(n.Leaf.Label, n.Leaf.Commitment)
	case MapInner:
		return MapNodeHash(n.Left, n.Right)
	}
	return Hash{}
}

// MapReader finds nodes of a map as it stands under one root.
type MapReader interface {
	// MapNode returns the subtree of all labels that share their first depth bits
	// with prefix; depth is 0 to 256.
	MapNode(prefix Label, depth int) (MapNode, error)
}

// labelBit is bit number depth of l: the child to take at that depth.
func labelBit(l *Label, depth int) int {
	return int(l[depth/8]>>(7-depth%8)) & 1
}

// samePrefix reports whether the first depth bits of a and b are the same.
func samePrefix(a, b *Label, depth int) bool {
	whole := depth / 8
	if string(a[:whole]) != string(b[:whole]) {
		return false
	}
	rest := depth % 8
	return rest == 0 || (a[whole]^b[whole])>>(8-rest) == 0
}

// Map is a map in memory, for whoever replays a log. The zero value is empty. It
// is not safe for concurrent use, reading included: hashes are made when they are
// asked for.
type Map struct {
	// Without pointers, so that the garbage collector has nothing to follow in a
	// map of millions.
	inner  []mapInnerNode
	leaves []MapLeaf
	root   mapRef
}

// mapRef points to a subtree: 0 to none, n to inner[n-1], -n to leaves[n-1].
type mapRef int32

type mapInnerNode struct {
	child [2]mapRef
	hash  Hash
	known bool // hash is that of the children as they are now
}

// Len is the number of labels.
func (m *Map) Len() uint64 { return uint64(len(m.leaves)) }

// maxMapLabels bounds a map in memory, whose nodes have 31-bit numbers.
const maxMapLabels = 1 << 28

// crowded reports whether the labels can't be outputs of a VRF. Of n random labels the
// tree has some 1.44 n inner nodes; whoever chooses labels that share their first bits
// makes up to 255 for each, and fills the memory of whoever replays them.
func (m *Map) crowded() bool { return len(m.inner) > 4*len(m.leaves)+1<<14 }

// Root is the root hash; Hash{} of an empty map.
func (m *Map) Root() Hash { return m.hash(m.root) }

// Leaves calls yield for every label in the order of insertion, until it returns
// false.
func (m *Map) Leaves(yield func(MapLeaf) bool) {
	for _, leaf := range m.leaves {
		if !yield(leaf) {
			return
		}
	}
}

// Insert adds a label. It returns ErrMapDuplicate, and changes nothing, if the
// map has it, whatever it is bound to.
func (m *Map) Insert(l Label, c Hash) error {
	if _, found := m.find(&l); found {
		return fmt.Errorf("%w: %x", ErrMapDuplicate, l)
	}
	m.leaves = append(m.leaves, MapLeaf{l, c})
	added := mapRef(-len(m.leaves))
	at, depth, in, side := m.root, 0, -1, 0
	for ; at > 0; depth++ {
		in, side = int(at)-1, labelBit(&l, depth)
		m.inner[in].known = false
		at = m.inner[in].child[side]
	}
	below := added
	if at < 0 {
		below = m.split(at, added, depth)
	}
	if in < 0 {
		m.root = below
	} else {
		m.inner[in].child[side] = below
	}
	return nil
}

// split makes the inner nodes, from depth on, below which two leaves part.
func (m *Map) split(old, added mapRef, depth int) mapRef {
	a, b := &m.leaves[-old-1].Label, &m.leaves[-added-1].Label
	first := mapRef(len(m.inner) + 1)
	for ; labelBit(a, depth) == labelBit(b, depth); depth++ {
		var n mapInnerNode
		n.child[labelBit(a, depth)] = mapRef(len(m.inner) + 2)
		m.inner = append(m.inner, n)
	}
	var n mapInnerNode
	n.child[labelBit(a, depth)], n.child[labelBit(b, depth)] = old, added
	m.inner = append(m.inner, n)
	return first
}

// Find returns what a label is bound to.
func (m *Map) Find(l Label) (c Hash, found bool) { return m.find(&l) }

func (m *Map) find(l *Label) (Hash, bool) {
	at, _ := m.descend(l, mapBits)
	if at >= 0 || m.leaves[-at-1].Label != *l {
		return Hash{}, false
	}
	return m.leaves[-at-1].Commitment, true
}

// descend follows the first depth bits of l until they, or the inner nodes, end.
func (m *Map) descend(l *Label, depth int) (at mapRef, reached int) {
	at = m.root
	for reached < depth && at > 0 {
		at = m.inner[at-1].child[labelBit(l, reached)]
		reached++
	}
	return at, reached
}

// MapNode makes a Map a MapReader. Its error is always nil.
func (m *Map) MapNode(prefix Label, depth int) (MapNode, error) {
	at, _ := m.descend(&prefix, depth)
	switch {
	case at > 0:
		n := m.inner[at-1]
		return MapNode{Kind: MapInner, Left: m.hash(n.child[0]), Right: m.hash(n.child[1])}, nil
	case at < 0 && samePrefix(&m.leaves[-at-1].Label, &prefix, depth):
		return MapNode{Kind: MapLeafNode, Leaf: m.leaves[-at-1]}, nil
	}
	return MapNode{}, nil
}

// hash makes, and remembers, the hash of a subtree.
func (m *Map) hash(at mapRef) Hash {
	switch {
	case at == 0:
		return Hash{}
	case at < 0:
		return MapLeafHash(m.leaves[-at-1].Label, m.leaves[-at-1].Commitment)
	}
	n := &m.inner[at-1]
	if !n.known {
		n.hash, n.known = MapNodeHash(m.hash(n.child[0]), m.hash(n.child[1])), true
	}
	return n.hash
}
