package projections

import (
	"encoding/binary"
	"math/bits"

	"quicprochat/kt"
)

// The prefix map over labels (docs/formats/views.md) is stored in pages of four
// levels, so that a path of twenty nodes costs five reads:
//
//	depth 4k    ──▶      node            a page: its 16 slots are stored,
//	4k+1               n       n         the nodes above them are computed
//	4k+2             n   n   n   n
//	4k+3            n n n n n n n n
//	4k+4  slots    ssssssssssssssss ──▶  absent, a leaf, or the hash of the
//	                                     page below
//
// A page stands where several labels begin with the same 4k bits, and the first
// one as soon as there is any label. A label that is alone below a slot stands
// in that slot, however deep the tree would go.
const (
	pageBits  = 4
	pageSlots = 1 << pageBits
	// maxPageDepth is the depth of the deepest page in pages: two labels differ
	// in one of their 256 bits.
	maxPageDepth = len(kt.Label{})*8/pageBits - 1
)

// mapPage is a page in memory: a heap whose root is node 1, the children of node
// i are 2i and 2i+1, and the slots are the nodes from pageSlots on.
type mapPage struct {
	kind   [2 * pageSlots]kt.MapNodeKind
	hash   [2 * pageSlots]kt.Hash
	holder [2 * pageSlots]uint8 // of a leaf: the slot that it stands in
	leaf   [pageSlots]kt.MapLeaf
}

// fold computes the nodes above the slots.
func (p *mapPage) fold() {
	for i := pageSlots - 1; i >= 1; i-- {
		p.join(i)
	}
}

// foldSlot computes the nodes above one slot.
func (p *mapPage) foldSlot(slot int) {
	for i := (pageSlots + slot) / 2; i >= 1; i /= 2 {
		p.join(i)
	}
}

// join computes a node from its children: one label alone moves up.
func (p *mapPage) join(i int) {
	left, right := 2*i, 2*i+1
	alone := 0
	switch {
	case p.kind[left] == kt.MapAbsent && p.kind[right] == kt.MapAbsent:
		p.kind[i], p.hash[i] = kt.MapAbsent, kt.Hash{}
		return
	case p.kind[left] == kt.MapLeafNode && p.kind[right] == kt.MapAbsent:
		alone = left
	case p.kind[left] == kt.MapAbsent && p.kind[right] == kt.MapLeafNode:
		alone = right
	}
	if alone != 0 {
		p.kind[i], p.hash[i], p.holder[i] = kt.MapLeafNode, p.hash[alone], p.holder[alone]
		return
	}
	p.kind[i], p.hash[i] = kt.MapInner, kt.MapNodeHash(p.hash[left], p.hash[right])
}

// put makes a slot a leaf.
func (p *mapPage) put(slot int, leaf kt.MapLeaf) {
	i := pageSlots + slot
	p.kind[i], p.hash[i], p.holder[i] = kt.MapLeafNode, kt.MapLeafHash(leaf.Label, leaf.Commitment), uint8(slot)
	p.leaf[slot] = leaf
}

// node is node i as package kt has it; it must not be an inner slot, whose
// children are on the page below.
func (p *mapPage) node(i int) kt.MapNode {
	switch n := (kt.MapNode{Kind: p.kind[i]}); n.Kind {
	case kt.MapLeafNode:
		n.Leaf = p.leaf[p.holder[i]]
		return n
	case kt.MapInner:
		n.Left, n.Right = p.hash[2*i], p.hash[2*i+1]
		return n
	default:
		return n
	}
}

// appendPage writes a page's row: which slots are taken, which of these are
// pages, and their leaves and hashes in order.
func appendPage(dst []byte, p *mapPage) []byte {
	var taken, inner uint16
	for slot := range pageSlots {
		switch p.kind[pageSlots+slot] {
		case kt.MapInner:
			inner |= 1 << slot
			fallthrough
		case kt.MapLeafNode:
			taken |= 1 << slot
		}
	}
	dst = binary.BigEndian.AppendUint16(dst, taken)
	dst = binary.BigEndian.AppendUint16(dst, inner)
	for slot := range pageSlots {
		switch p.kind[pageSlots+slot] {
		case kt.MapInner:
			dst = append(dst, p.hash[pageSlots+slot][:]...)
		case kt.MapLeafNode:
			dst = append(append(dst, p.leaf[slot].Label[:]...), p.leaf[slot].Commitment[:]...)
		}
	}
	return dst
}

// parsePage reads the slots of a page; the nodes above are not computed.
func parsePage(in *rowReader, p *mapPage) {
	taken, inner := in.u16(), in.u16()
	if inner&^taken != 0 || bits.OnesCount16(taken) == 0 {
		in.bad = true
	}
	for slot := range pageSlots {
		switch {
		case inner>>slot&1 == 1:
			p.kind[pageSlots+slot], p.hash[pageSlots+slot] = kt.MapInner, in.array32()
		case taken>>slot&1 == 1:
			p.put(slot, kt.MapLeaf{Label: in.array32(), Commitment: in.array32()})
		}
	}
}

// slotOf is the slot that a label takes on the page at a depth.
func slotOf(label kt.Label, depth int) int {
	if depth%2 == 0 {
		return int(label[depth/2] >> pageBits)
	}
	return int(label[depth/2] & (pageSlots - 1))
}

// mapPageKey is the key of the page at a depth (in pages) on a label's path.
func mapPageKey(dst []byte, label kt.Label, depth int) []byte {
	dst = append(dst, prefixMapPage, byte(depth))
	dst = append(dst, label[:(depth+1)/2]...)
	if depth%2 == 1 {
		dst[len(dst)-1] &= 0xf0
	}
	return dst
}
