package kt

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// proveBoth makes the proof from the map and from the naive list: one proof.
func proveBoth(t testing.TB, m *Map, leaves []MapLeaf, claims []MapClaim) *pb.MapProof {
	t.Helper()
	proof, err := ProveMap(m, labelsOf(claims))
	if err != nil {
		t.Fatal(err)
	}
	again, err := ProveMap(naiveMap(leaves), labelsOf(claims))
	if err != nil || !proto.Equal(proof, again) {
		t.Fatalf("two readers of one map make different proofs: %v\n%v\n%v", err, proof, again)
	}
	return proof
}

func TestMapProofsHold(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, leaves := range [][]MapLeaf{
		nil,
		{{label(5), Hash{1}}},
		longPrefix(),
		randomLeaves(random, 64),
	} {
		m := mapOf(t, leaves...)
		claims := claimsOf(leaves, random)
		if err := VerifyMap(m.Root(), proveBoth(t, m, leaves, claims), claims); err != nil {
			t.Errorf("%d leaves, %d claims: %v", len(leaves), len(claims), err)
		}
		for _, c := range claims {
			proof := proveBoth(t, m, leaves, []MapClaim{c})
			if err := VerifyMap(m.Root(), proof, []MapClaim{c, c}); err != nil {
				t.Errorf("%d leaves, claim %+v: %v", len(leaves), c, err)
			}
		}
	}
}

func randomLeaves(random *rand.Rand, n int) (leaves []MapLeaf) {
	for range n {
		var leaf MapLeaf
		for i := range leaf.Label {
			leaf.Label[i], leaf.Commitment[i] = byte(random.Uint32()), byte(random.Uint32())
		}
		leaves = append(leaves, leaf)
	}
	return leaves
}

// TestBothKindsOfAbsence: a path ends in nothing, or in another leaf.
func TestBothKindsOfAbsence(t *testing.T) {
	m := mapOf(t, MapLeaf{label(0x00), Hash{1}}, MapLeaf{label(0xc0), Hash{2}}, MapLeaf{label(0xe0), Hash{3}})
	for _, test := range []struct {
		label Label
		kind  pb.MapProof_Terminal_Kind
		depth uint32
	}{
		{label(0x80), pb.MapProof_Terminal_ABSENT, 2},
		{label(0x01), pb.MapProof_Terminal_OTHER, 1},
		{label(0xc1), pb.MapProof_Terminal_OTHER, 3},
		{label(0xc0), pb.MapProof_Terminal_PRESENT, 3},
	} {
		proof, err := ProveMap(m, []Label{test.label})
		if err != nil {
			t.Fatal(err)
		}
		if got := proof.Terminals[0]; got.Kind != test.kind || got.Depth != test.depth || len(proof.Siblings) != int(test.depth) {
			t.Errorf("%x: %v, %d siblings; want %v at %d", test.label[:1], got, len(proof.Siblings), test.kind, test.depth)
		}
	}
}

// TestEveryBitOfAMapProofCounts flips each bit of the root, of every hash and
// label in the proof, of every depth, and of what is claimed.
func TestEveryBitOfAMapProofCounts(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, leaves := range [][]MapLeaf{nil, {{label(5), Hash{1}}}, longPrefix(), randomLeaves(random, 12)} {
		m := mapOf(t, leaves...)
		claims := claimsOf(leaves, random)
		proof := proveBoth(t, m, leaves, claims)
		root := m.Root()
		refused := func(what string) {
			t.Helper()
			if err := VerifyMap(root, proof, claims); !errors.Is(err, ErrMapProof) {
				t.Fatalf("%d leaves: %s passed: %v", len(leaves), what, err)
			}
		}
		step := 1 // hundreds of siblings: one bit of each 16 is enough
		if len(proof.Siblings) > 100 {
			step = 16
		}
		eachBit := func(b []byte, what string) {
			t.Helper()
			for i := random.IntN(step); i < 8*len(b); i += step {
				b[i/8] ^= 1 << (i % 8)
				refused(fmt.Sprintf("%s with bit %d flipped", what, i))
				b[i/8] ^= 1 << (i % 8)
			}
		}
		eachBit(root[:], "root")
		for i, s := range proof.Siblings {
			eachBit(s, fmt.Sprint("sibling ", i))
		}
		for i, end := range proof.Terminals {
			eachBit(end.OtherLabel, fmt.Sprint("other label ", i))
			eachBit(end.OtherCommitment, fmt.Sprint("other commitment ", i))
			for bit := range 32 {
				end.Depth ^= 1 << bit
				refused(fmt.Sprintf("depth %d of terminal %d", end.Depth, i))
				end.Depth ^= 1 << bit
			}
			for kind := range pb.MapProof_Terminal_Kind(5) {
				was := end.Kind
				if end.Kind = kind; kind != was {
					refused(fmt.Sprintf("terminal %d as %v", i, kind))
				}
				end.Kind = was
			}
		}
		for i := range claims {
			claims[i].Present = !claims[i].Present
			refused("the opposite")
			if claims[i].Present = !claims[i].Present; claims[i].Present {
				eachBit(claims[i].Commitment[:], "claimed commitment")
			}
		}
		if err := VerifyMap(root, proof, claims); err != nil {
			t.Fatalf("the test left something changed: %v", err)
		}
	}
}

// TestMapProofsHaveOneForm changes the structure of good proofs.
func TestMapProofsHaveOneForm(t *testing.T) {
	leaves := longPrefix()
	m := mapOf(t, leaves...)
	claims := []MapClaim{{leaves[0].Label, true, Hash{1}}, {leaves[1].Label, true, Hash{2}}, {Label: label(0x07, 1)}, {Label: label(0x86)}}
	for _, test := range []struct {
		name, want string
		change     func(p *pb.MapProof)
	}{
		{"a sibling too many", "too many", func(p *pb.MapProof) { p.Siblings = append(p.Siblings, make([]byte, 32)) }},
		{"a sibling before", "root", func(p *pb.MapProof) {
			p.Siblings = append([][]byte{make([]byte, 32)}, p.Siblings[:len(p.Siblings)-1]...)
		}},
		{"a sibling missing", "missing", func(p *pb.MapProof) { p.Siblings = p.Siblings[:len(p.Siblings)-1] }},
		{"no siblings", "missing", func(p *pb.MapProof) { p.Siblings = nil }},
		{"a short sibling", "31 bytes", func(p *pb.MapProof) { p.Siblings[0] = p.Siblings[0][:31] }},
		{"siblings in another order", "root", func(p *pb.MapProof) { slices.Reverse(p.Siblings) }},
		{"terminals in another order", "", func(p *pb.MapProof) { slices.Reverse(p.Terminals) }},
		{"a terminal twice", "5 terminals", func(p *pb.MapProof) { p.Terminals = append(p.Terminals, p.Terminals[0]) }},
		{"a terminal missing", "3 terminals", func(p *pb.MapProof) { p.Terminals = p.Terminals[1:] }},
		{"no proof", "0 terminals", func(p *pb.MapProof) { proto.Reset(p) }},
		{"a nil terminal", "", func(p *pb.MapProof) { p.Terminals[0] = nil }},
		{"depth 257", "257 bits", func(p *pb.MapProof) { p.Terminals[0].Depth = 257 }},
		{"all depths too large", "", func(p *pb.MapProof) {
			for _, end := range p.Terminals {
				end.Depth++
			}
		}},
		{"another leaf that is the label's own", "stand in the way", func(p *pb.MapProof) {
			p.Terminals[2].Kind, p.Terminals[2].OtherLabel, p.Terminals[2].OtherCommitment = pb.MapProof_Terminal_OTHER, claims[2].Label[:], make([]byte, 32)
		}},
		{"another leaf off the path", "stand in the way", func(p *pb.MapProof) {
			p.Terminals[2].Kind, p.Terminals[2].OtherLabel, p.Terminals[2].OtherCommitment = pb.MapProof_Terminal_OTHER, leaves[3].Label[:], make([]byte, 32)
		}},
		{"another leaf of 31 bytes", "31 and", func(p *pb.MapProof) { p.Terminals[3].OtherLabel = p.Terminals[3].OtherLabel[:31] }},
		{"another leaf beside PRESENT", "names another leaf", func(p *pb.MapProof) { p.Terminals[0].OtherLabel = []byte{1} }},
		{"an unknown field", "unknown fields", func(p *pb.MapProof) { p.ProtoReflect().SetUnknown([]byte{0x78, 1}) }},
		{"an unknown field in a terminal", "unknown fields", func(p *pb.MapProof) { p.Terminals[0].ProtoReflect().SetUnknown([]byte{0x78, 1}) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			proof, err := ProveMap(m, labelsOf(claims))
			if err != nil || VerifyMap(m.Root(), proof, claims) != nil {
				t.Fatalf("the proof before the change: %v", err)
			}
			test.change(proof)
			err = VerifyMap(m.Root(), proof, claims)
			if !errors.Is(err, ErrMapProof) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want ErrMapProof with %q", err, test.want)
			}
		})
	}
	if err := VerifyMap(m.Root(), nil, nil); !errors.Is(err, ErrMapProof) {
		t.Errorf("a proof of nothing: %v", err)
	}
	twice := []MapClaim{{Label: claims[0].Label}, claims[0]}
	if err := VerifyMap(m.Root(), proveBoth(t, m, leaves, twice), twice); !errors.Is(err, ErrMapProof) {
		t.Errorf("contradicting claims: %v", err)
	}
}

// TestOnlyTheTreeOfTheRulesIsProven: a server that hashes a leaf lower than it
// stands has a root of its own, for which no proof is accepted.
func TestOnlyTheTreeOfTheRulesIsProven(t *testing.T) {
	leaf := MapLeaf{label(0x00), Hash{1}}
	low := MapNodeHash(MapLeafHash(leaf.Label, leaf.Commitment), Hash{})
	claim := []MapClaim{{leaf.Label, true, leaf.Commitment}}
	p := &pb.MapProof{Terminals: []*pb.MapProof_Terminal{{Depth: 1}}, Siblings: [][]byte{make([]byte, 32)}}
	if err := VerifyMap(low, p, claim); !errors.Is(err, ErrMapProof) || !strings.Contains(err.Error(), "less than two") {
		t.Errorf("a leaf below an absent sibling: %v", err)
	}
	p.Terminals[0].Kind = pb.MapProof_Terminal_ABSENT
	if err := VerifyMap(MapNodeHash(Hash{}, Hash{}), p, []MapClaim{{Label: leaf.Label}}); !errors.Is(err, ErrMapProof) {
		t.Errorf("an inner node of nothing: %v", err)
	}
	both := []MapClaim{{Label: label(0x00)}, {Label: label(0x80)}}
	p = &pb.MapProof{Terminals: []*pb.MapProof_Terminal{
		{Kind: pb.MapProof_Terminal_ABSENT, Depth: 1}, {Kind: pb.MapProof_Terminal_ABSENT, Depth: 1},
	}}
	if err := VerifyMap(MapNodeHash(Hash{}, Hash{}), p, both); !errors.Is(err, ErrMapProof) {
		t.Errorf("an inner node of nothing, shown on both sides: %v", err)
	}
}

type brokenMap struct{ at int }

func (b brokenMap) MapNode(_ Label, depth int) (MapNode, error) {
	if depth == b.at {
		return MapNode{}, errors.New("disk")
	}
	return MapNode{Kind: MapInner, Left: Hash{1}, Right: Hash{1}}, nil
}

func TestProveMapReportsItsReader(t *testing.T) {
	if _, err := ProveMap(brokenMap{at: 3}, []Label{{}}); err == nil || err.Error() != "disk" {
		t.Errorf("got %v", err)
	}
	if _, err := ProveMap(brokenMap{at: -1}, []Label{{}}); err == nil || !strings.Contains(err.Error(), "depth 256") {
		t.Errorf("a tree without end: %v", err)
	}
}
