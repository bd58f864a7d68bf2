package kt

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// naiveRoot is the map's definition, word for word, over a list of leaves.
func naiveRoot(leaves []MapLeaf, depth int) Hash {
	switch len(leaves) {
	case 0:
		return Hash{}
	case 1:
		return MapLeafHash(leaves[0].Label, leaves[0].Commitment)
	}
	var sides [2][]MapLeaf
	for _, leaf := range leaves {
		bit := leaf.Label[depth/8] >> (7 - depth%8) & 1
		sides[bit] = append(sides[bit], leaf)
	}
	return MapNodeHash(naiveRoot(sides[0], depth+1), naiveRoot(sides[1], depth+1))
}

// naiveMap is a MapReader over a list.
type naiveMap []MapLeaf

func (n naiveMap) MapNode(prefix Label, depth int) (MapNode, error) {
	var under []MapLeaf
	var sides [2][]MapLeaf
	for _, leaf := range n {
		if !samePrefix(&leaf.Label, &prefix, depth) {
			continue
		}
		under = append(under, leaf)
		if depth < 256 {
			bit := labelBit(&leaf.Label, depth)
			sides[bit] = append(sides[bit], leaf)
		}
	}
	switch len(under) {
	case 0:
		return MapNode{}, nil
	case 1:
		return MapNode{Kind: MapLeafNode, Leaf: under[0]}, nil
	}
	return MapNode{Kind: MapInner, Left: naiveRoot(sides[0], depth+1), Right: naiveRoot(sides[1], depth+1)}, nil
}

// mapOf inserts leaves one after the other.
func mapOf(t testing.TB, leaves ...MapLeaf) *Map {
	t.Helper()
	m := new(Map)
	for _, leaf := range leaves {
		if err := m.Insert(leaf.Label, leaf.Commitment); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func label(b ...byte) (l Label) {
	copy(l[:], b)
	return l
}

// longPrefix are labels that part only in the last bits.
func longPrefix() []MapLeaf {
	a, b, c := Label{0: 7}, Label{0: 7, 31: 1}, Label{0: 7, 31: 2}
	return []MapLeaf{{a, Hash{1}}, {b, Hash{2}}, {c, Hash{3}}, {Label{0: 0x87}, Hash{4}}}
}

func TestMapRootsByHand(t *testing.T) {
	a, b := MapLeaf{label(0x00), Hash{1}}, MapLeaf{label(0x80), Hash{2}}
	c := MapLeaf{label(0xc0), Hash{3}}
	hash := func(l MapLeaf) Hash { return MapLeafHash(l.Label, l.Commitment) }
	for _, test := range []struct {
		name   string
		leaves []MapLeaf
		want   Hash
	}{
		{"empty", nil, Hash{}},
		{"one leaf is the root", []MapLeaf{b}, hash(b)},
		{"two that part at once", []MapLeaf{b, a}, MapNodeHash(hash(a), hash(b))},
		{"two that part one bit later", []MapLeaf{c, b}, MapNodeHash(Hash{}, MapNodeHash(hash(b), hash(c)))},
		{"three", []MapLeaf{a, c, b}, MapNodeHash(hash(a), MapNodeHash(hash(b), hash(c)))},
	} {
		m := mapOf(t, test.leaves...)
		if got := m.Root(); got != test.want || m.Len() != uint64(len(test.leaves)) {
			t.Errorf("%s: root %x of %d, want %x", test.name, got, m.Len(), test.want)
		}
	}
}

func TestMapIsTheNaiveTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		leaves := drawLeaves(t)
		var m Map
		for i, leaf := range leaves {
			if err := m.Insert(leaf.Label, leaf.Commitment); err != nil {
				t.Fatal(err)
			}
			// In between or not: remembered hashes must never be stale.
			if rapid.Bool().Draw(t, "root now") {
				if got, want := m.Root(), naiveRoot(leaves[:i+1], 0); got != want {
					t.Fatalf("root of %d leaves is %x, want %x", i+1, got, want)
				}
			}
		}
		if m.Root() != naiveRoot(leaves, 0) {
			t.Fatal("another root")
		}
		for i, leaf := range leaves {
			if c, found := m.Find(leaf.Label); !found || c != leaf.Commitment {
				t.Fatalf("leaf %d is not found", i)
			}
			before := m.Root()
			if err := m.Insert(leaf.Label, Hash{9}); !errors.Is(err, ErrMapDuplicate) || m.Root() != before {
				t.Fatalf("a label was bound twice: %v", err)
			}
			depth := rapid.IntRange(0, 256).Draw(t, "depth")
			got, _ := m.MapNode(leaf.Label, depth)
			if want, _ := naiveMap(leaves).MapNode(leaf.Label, depth); got != want {
				t.Fatalf("node at depth %d is %+v, want %+v", depth, got, want)
			}
		}
	})
}

// drawLeaves gives distinct labels, some of which share long prefixes.
func drawLeaves(t *rapid.T) []MapLeaf {
	var leaves []MapLeaf
	for i := range rapid.IntRange(0, 24).Draw(t, "leaves") {
		leaf := MapLeaf{Commitment: Hash{byte(i), 1}}
		if len(leaves) > 0 && rapid.Bool().Draw(t, "near") {
			leaf.Label = leaves[rapid.IntRange(0, len(leaves)-1).Draw(t, "neighbour")].Label
			bit := rapid.IntRange(0, 255).Draw(t, "bit")
			leaf.Label[bit/8] ^= 0x80 >> (bit % 8)
		} else {
			copy(leaf.Label[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "label"))
		}
		if !slices.ContainsFunc(leaves, func(l MapLeaf) bool { return l.Label == leaf.Label }) {
			leaves = append(leaves, leaf)
		}
	}
	return leaves
}

// claimsOf are all leaves as present and labels near them, and far, as absent.
func claimsOf(leaves []MapLeaf, random *rand.Rand) []MapClaim {
	var claims []MapClaim
	has := func(l Label) bool {
		return slices.ContainsFunc(leaves, func(x MapLeaf) bool { return x.Label == l }) ||
			slices.ContainsFunc(claims, func(x MapClaim) bool { return x.Label == l })
	}
	for _, leaf := range leaves {
		if random.IntN(2) == 0 && !has(Label{}) {
			claims = append(claims, MapClaim{})
		}
		claims = append(claims, MapClaim{leaf.Label, true, leaf.Commitment})
		near := leaf.Label
		bit := random.IntN(256)
		near[bit/8] ^= 0x80 >> (bit % 8)
		if !has(near) {
			claims = append(claims, MapClaim{Label: near})
		}
	}
	if far := (Label{byte(random.Uint32()), byte(random.Uint32())}); !has(far) {
		claims = append(claims, MapClaim{Label: far})
	}
	random.Shuffle(len(claims), func(i, j int) { claims[i], claims[j] = claims[j], claims[i] })
	return claims
}

func labelsOf(claims []MapClaim) (labels []Label) {
	for _, c := range claims {
		labels = append(labels, c.Label)
	}
	return labels
}
