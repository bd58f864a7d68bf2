package projections

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"quicprochat/kt"
)

// naiveMap is the map's definition, written down, over a plain list.
type naiveMap []naiveLeaf

type naiveLeaf struct {
	bits string // of the label
	kt.MapLeaf
}

func newNaiveMap(leaves []kt.MapLeaf) (m naiveMap) {
	for _, leaf := range leaves {
		m = append(m, naiveLeaf{bitsOf(leaf.Label), leaf})
	}
	return m
}

// node is what stands at the place that bits lead to.
func (m naiveMap) node(bits string) kt.MapNode {
	var under naiveMap
	for _, leaf := range m {
		if strings.HasPrefix(leaf.bits, bits) {
			under = append(under, leaf)
		}
	}
	switch len(under) {
	case 0:
		return kt.MapNode{}
	case 1:
		return kt.MapNode{Kind: kt.MapLeafNode, Leaf: under[0].MapLeaf}
	}
	return kt.MapNode{Kind: kt.MapInner, Left: under.node(bits + "0").Hash(), Right: under.node(bits + "1").Hash()}
}

func bitsOf(label kt.Label) string {
	var bits strings.Builder
	for _, b := range label {
		fmt.Fprintf(&bits, "%08b", b)
	}
	return bits.String()
}

// insertAll writes leaves into the map, in groups.
func (w *world) insertAll(leaves []kt.MapLeaf, group int) {
	w.t.Helper()
	for i, leaf := range leaves {
		if err := insertLabel(w.reader(), leaf); err != nil {
			w.t.Fatalf("insert: %v", err)
		}
		if (i+1)%group == 0 {
			w.commit()
		}
	}
	w.commit()
}

// drawLeaves draws labels of which many have long common beginnings.
func drawLeaves(t *rapid.T) []kt.MapLeaf {
	var leaves []kt.MapLeaf
	seen := map[kt.Label]bool{}
	for i := range rapid.IntRange(0, 30).Draw(t, "labels") {
		label := kt.Label(sha256.Sum256([]byte{byte(i)}))
		if len(leaves) > 0 && rapid.Bool().Draw(t, "close") {
			label = rapid.SampledFrom(leaves).Draw(t, "to").Label
			bit := rapid.IntRange(0, 255).Draw(t, "bit")
			label[bit/8] ^= 0x80 >> (bit % 8)
		}
		if !seen[label] {
			seen[label] = true
			leaves = append(leaves, kt.MapLeaf{Label: label, Commitment: kt.Hash{byte(i), 1}})
		}
	}
	return leaves
}

func TestMapIsTheDefinedOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		leaves := drawLeaves(t)
		w := emptyWorld(t)
		defer w.close()
		w.insertAll(leaves, rapid.IntRange(1, 9).Draw(t, "group"))
		root, err := MapRoot(w.reader())
		if want := newNaiveMap(leaves).node("").Hash(); err != nil || root != want {
			t.Fatalf("root of %d labels: %x, %v, want %x", len(leaves), root, err, want)
		}
		snap := w.views.Snapshot()
		defer snap.Close()
		view, naive := NewMapView(snap), newNaiveMap(leaves)
		for _, leaf := range append(leaves, kt.MapLeaf{}, kt.MapLeaf{Label: kt.Label(bytesOf("nobody"))}) {
			bits := bitsOf(leaf.Label)
			for depth := 0; depth <= 256; depth += 1 + depth/8 {
				got, err := view.MapNode(leaf.Label, depth)
				if want := naive.node(bits[:depth]); err != nil || got != want {
					t.Fatalf("node at depth %d of %x: %+v, %v, want %+v", depth, leaf.Label, got, err, want)
				}
			}
		}
	})
}

func TestMapDoesNotDependOnOrder(t *testing.T) {
	leaves := make([]kt.MapLeaf, 300)
	for i := range leaves {
		leaves[i] = benchLeaf(i)
	}
	w := emptyWorld(t)
	defer w.close()
	w.insertAll(leaves, 7)
	slices.Reverse(leaves)
	v := emptyWorld(t)
	defer v.close()
	v.insertAll(leaves, 100)
	if w.digest() != v.digest() {
		t.Error("the order in which labels came is in the rows")
	}
	if err := insertLabel(w.reader(), leaves[5]); err == nil {
		t.Error("a label was taken twice")
	}
}

func TestMapViewOfWrongDepth(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.commit()
	snap := w.views.Snapshot()
	defer snap.Close()
	for _, depth := range []int{-1, 257} {
		if _, err := NewMapView(snap).MapNode(kt.Label{}, depth); err == nil {
			t.Errorf("depth %d has a node", depth)
		}
	}
}

func benchLeaf(i int) kt.MapLeaf {
	label := kt.Label(sha256.Sum256(binary.BigEndian.AppendUint64([]byte("label"), uint64(i))))
	return kt.MapLeaf{Label: label, Commitment: kt.Hash(label)}
}

// BenchmarkMapInsert adds labels to a map of 100,000, in groups of 64.
func BenchmarkMapInsert(b *testing.B) {
	w := newWorld(b)
	const have = 100_000
	fillMap(w, have)
	b.ReportAllocs()
	b.ResetTimer()
	batch := w.reader()
	for i := 0; i < b.N; i++ {
		if err := insertLabel(batch, benchLeaf(have+i)); err != nil {
			b.Fatal(err)
		}
		if i%64 == 63 {
			w.commit()
			batch = w.reader()
		}
	}
	b.StopTimer()
	w.close()
}

// BenchmarkMapRoot reads the root of a map of 100,000 labels, as each HEAD does.
func BenchmarkMapRoot(b *testing.B) {
	w := newWorld(b)
	fillMap(w, 100_000)
	batch := w.reader()
	for b.Loop() {
		if _, err := MapRoot(batch); err != nil {
			b.Fatal(err)
		}
	}
	w.close()
}

func fillMap(w *world, n int) {
	for i := range n {
		if err := insertLabel(w.reader(), benchLeaf(i)); err != nil {
			w.t.Fatalf("insert: %v", err)
		}
		if i%512 == 0 {
			w.commit()
		}
	}
	w.commit()
}

// BenchmarkMapPath walks to one label of 100,000: all nodes on its way, with the
// pages in memory and without.
func BenchmarkMapPath(b *testing.B) {
	for name, fresh := range map[string]bool{"warm": false, "cold": true} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			fillMap(w, 100_000)
			snap := w.views.Snapshot()
			view := NewMapView(snap)
			i := 0
			for b.Loop() {
				if fresh {
					view = NewMapView(snap)
				}
				i = (i + 7919) % 100_000
				label := benchLeaf(i).Label
				for depth := 0; ; depth++ {
					n, err := view.MapNode(label, depth)
					if err != nil {
						b.Fatal(err)
					}
					if n.Kind != kt.MapInner {
						break
					}
				}
			}
			snap.Close()
			w.close()
		})
	}
}
