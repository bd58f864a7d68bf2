package kt

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	pb "quicprochat/proto/qpcv1"
)

// ErrMapProof is in the chain of errors about a proof that does not show, for
// exactly the labels asked for, what it should.
var ErrMapProof = errors.New("map proof does not hold")

// MapClaim is what a map proof must show about one label.
type MapClaim struct {
	Label   Label
	Present bool
	// Commitment is what the label is bound to, if Present.
	Commitment Hash
}

// ProveMap shows for each of labels, in any order, that the map has it, or that
// it does not. The paths of all labels share their common parts: a proof holds a
// terminal for each label, where its path ends, and the hashes of the subtrees
// beside the paths in the order in which a depth-first walk, left before right,
// passes them. Errors are those of the reader.
func ProveMap(r MapReader, labels []Label) (*pb.MapProof, error) {
	labels = slices.Clone(labels)
	slices.SortFunc(labels, compareLabels)
	labels = slices.Compact(labels)
	p := &mapProver{reader: r, proof: &pb.MapProof{}}
	if len(labels) == 0 {
		return p.proof, nil
	}
	return p.proof, p.walk(labels, 0)
}

func compareLabels(a, b Label) int { return bytes.Compare(a[:], b[:]) }

// partition is the number of labels, which are sorted and share their first depth
// bits, whose next bit is 0.
func partition[T any](sorted []T, label func(*T) *Label, depth int) int {
	for i := range sorted {
		if labelBit(label(&sorted[i]), depth) == 1 {
			return i
		}
	}
	return len(sorted)
}

type mapProver struct {
	reader MapReader
	proof  *pb.MapProof
}

// walk proves labels, at least one, that share their first depth bits.
func (p *mapProver) walk(labels []Label, depth int) error {
	n, err := p.reader.MapNode(labels[0], depth)
	if err != nil {
		return err
	}
	if n.Kind != MapInner {
		p.end(n, labels, depth)
		return nil
	}
	if depth == mapBits {
		return fmt.Errorf("map has an inner node at depth %d", depth)
	}
	zeros := partition(labels, func(l *Label) *Label { return l }, depth)
	if err := p.side(n.Left, labels[:zeros], depth+1); err != nil {
		return err
	}
	return p.side(n.Right, labels[zeros:], depth+1)
}

func (p *mapProver) side(hash Hash, labels []Label, depth int) error {
	switch {
	case len(labels) == 0:
		p.proof.Siblings = append(p.proof.Siblings, bytes.Clone(hash[:]))
		return nil
	case hash == Hash{}:
		p.end(MapNode{}, labels, depth)
		return nil
	}
	return p.walk(labels, depth)
}

// end writes the terminals of labels whose paths end in n.
func (p *mapProver) end(n MapNode, labels []Label, depth int) {
	for _, l := range labels {
		t := &pb.MapProof_Terminal{Depth: uint32(depth)}
		switch {
		case n.Kind == MapAbsent:
			t.Kind = pb.MapProof_Terminal_ABSENT
		case n.Leaf.Label == l:
			t.Kind = pb.MapProof_Terminal_PRESENT
		default:
			t.Kind = pb.MapProof_Terminal_OTHER
			t.OtherLabel, t.OtherCommitment = bytes.Clone(n.Leaf.Label[:]), bytes.Clone(n.Leaf.Commitment[:])
		}
		p.proof.Terminals = append(p.proof.Terminals, t)
	}
}

// VerifyMap checks that p shows each of claims, and nothing else, under root. It
// accepts one proof for a set of claims and a root, the one that ProveMap makes.
// Claims may stand in any order; equal ones count once. Errors wrap ErrMapProof.
func VerifyMap(root Hash, p *pb.MapProof, claims []MapClaim) error {
	claims = slices.Clone(claims)
	slices.SortStableFunc(claims, func(a, b MapClaim) int { return compareLabels(a.Label, b.Label) })
	claims = slices.Compact(claims)
	if len(claims) == 0 {
		return fmt.Errorf("%w: it is about no label", ErrMapProof)
	}
	if p != nil && len(p.ProtoReflect().GetUnknown()) > 0 {
		return fmt.Errorf("%w: it has unknown fields", ErrMapProof)
	}
	if n := len(p.GetTerminals()); n != len(claims) {
		return fmt.Errorf("%w: %d terminals for %d labels", ErrMapProof, n, len(claims))
	}
	ends := make([]mapEnd, len(claims))
	for i, c := range claims {
		if i > 0 && claims[i-1].Label == c.Label {
			return fmt.Errorf("%w: two claims contradict each other", ErrMapProof)
		}
		end, err := readTerminal(p.GetTerminals()[i], c)
		if err != nil {
			return err
		}
		ends[i] = end
	}
	v := mapVerifier{siblings: p.GetSiblings()}
	node, err := v.walk(ends, 0)
	switch {
	case err != nil:
		return err
	case len(v.siblings) > 0:
		return fmt.Errorf("%w: %d siblings too many", ErrMapProof, len(v.siblings))
	case node.hash != root:
		return fmt.Errorf("%w: its root is %x, not %x", ErrMapProof, node.hash, root)
	}
	return nil
}

// mapEnd is a claim and where its path ends: in leaf, or in nothing.
type mapEnd struct {
	label Label
	depth int
	empty bool
	leaf  MapLeaf
}

func readTerminal(t *pb.MapProof_Terminal, c MapClaim) (mapEnd, error) {
	end := mapEnd{label: c.Label, depth: int(t.GetDepth())}
	if t.GetDepth() > uint32(mapBits) {
		return end, fmt.Errorf("%w: a path of %d bits", ErrMapProof, t.GetDepth())
	}
	// What is nowhere hashed must be empty, or a proof would have many spellings.
	if t != nil && len(t.ProtoReflect().GetUnknown()) > 0 {
		return end, fmt.Errorf("%w: a terminal with unknown fields", ErrMapProof)
	}
	if t.GetKind() != pb.MapProof_Terminal_OTHER && len(t.GetOtherLabel())+len(t.GetOtherCommitment()) > 0 {
		return end, fmt.Errorf("%w: a terminal of kind %v names another leaf", ErrMapProof, t.GetKind())
	}
	if c.Present != (t.GetKind() == pb.MapProof_Terminal_PRESENT) {
		return end, fmt.Errorf("%w: terminal of kind %v for label %x", ErrMapProof, t.GetKind(), c.Label)
	}
	switch t.GetKind() {
	case pb.MapProof_Terminal_PRESENT:
		end.leaf = MapLeaf{c.Label, c.Commitment}
	case pb.MapProof_Terminal_ABSENT:
		end.empty = true
	case pb.MapProof_Terminal_OTHER:
		if len(t.GetOtherLabel()) != len(Label{}) || len(t.GetOtherCommitment()) != len(Hash{}) {
			return end, fmt.Errorf("%w: another leaf of %d and %d bytes", ErrMapProof, len(t.GetOtherLabel()), len(t.GetOtherCommitment()))
		}
		end.leaf = MapLeaf{Label(t.GetOtherLabel()), Hash(t.GetOtherCommitment())}
		if end.leaf.Label == c.Label || !samePrefix(&end.leaf.Label, &c.Label, end.depth) {
			return end, fmt.Errorf("%w: leaf %x does not stand in the way of label %x", ErrMapProof, end.leaf.Label, c.Label)
		}
	default:
		return end, fmt.Errorf("%w: terminal of kind %d", ErrMapProof, t.GetKind())
	}
	return end, nil
}

// provenNode is a subtree as a proof shows it.
type provenNode struct {
	hash Hash
	// single is true for a subtree that is known to hold one label.
	single bool
}

type mapVerifier struct{ siblings [][]byte }

// walk computes the subtree that the first depth bits of ends, at least one, lead
// to. All of them end here, or none does.
func (v *mapVerifier) walk(ends []mapEnd, depth int) (provenNode, error) {
	here := 0
	for i := range ends {
		if ends[i].depth == depth {
			here++
		}
	}
	switch {
	case here == len(ends):
		return meet(ends)
	case here > 0:
		return provenNode{}, fmt.Errorf("%w: of %d paths %d end at depth %d", ErrMapProof, len(ends), here, depth)
	case depth == mapBits:
		return provenNode{}, fmt.Errorf("%w: a path does not end", ErrMapProof)
	}
	zeros := partition(ends, func(e *mapEnd) *Label { return &e.label }, depth)
	left, err := v.side(ends[:zeros], depth+1)
	if err != nil {
		return provenNode{}, err
	}
	right, err := v.side(ends[zeros:], depth+1)
	if err != nil {
		return provenNode{}, err
	}
	// An inner node holds two labels or more: one alone stands higher.
	noLeft, noRight := left.hash == Hash{}, right.hash == Hash{}
	if noLeft && noRight || noLeft && right.single || noRight && left.single {
		return provenNode{}, fmt.Errorf("%w: an inner node with less than two labels at depth %d", ErrMapProof, depth)
	}
	return provenNode{hash: MapNodeHash(left.hash, right.hash)}, nil
}

func (v *mapVerifier) side(ends []mapEnd, depth int) (provenNode, error) {
	if len(ends) > 0 {
		return v.walk(ends, depth)
	}
	if len(v.siblings) == 0 {
		return provenNode{}, fmt.Errorf("%w: a sibling is missing at depth %d", ErrMapProof, depth)
	}
	next := v.siblings[0]
	v.siblings = v.siblings[1:]
	if len(next) != len(Hash{}) {
		return provenNode{}, fmt.Errorf("%w: a sibling of %d bytes", ErrMapProof, len(next))
	}
	return provenNode{hash: Hash(next)}, nil
}

// meet is the one node in which all of ends end.
func meet(ends []mapEnd) (provenNode, error) {
	for _, e := range ends[1:] {
		if e.empty != ends[0].empty || e.leaf != ends[0].leaf {
			return provenNode{}, fmt.Errorf("%w: two paths end in different leaves at one place", ErrMapProof)
		}
	}
	if ends[0].empty {
		return provenNode{}, nil
	}
	leaf := ends[0].leaf
	return provenNode{hash: MapLeafHash(leaf.Label, leaf.Commitment), single: true}, nil
}
