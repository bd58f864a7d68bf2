package log

import (
	"bytes"
	"slices"
	"testing"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"

	"quicprochat/kt"
)

// The compact range is compared with merkle's reference tree at every size, and the nodes that it gives to the tiles
// with the reference's roots of the subtrees that they stand for.
func TestCompactRange(t *testing.T) {
	const sizes = 2000
	ref := testonly.New(rfc6962.DefaultHasher)
	var c compactRange
	var nodes newNodes
	for i := range uint64(sizes) {
		if got, want := c.root(), ref.Hash(); !bytes.Equal(got[:], want) {
			t.Fatalf("root at size %d: %x, want %x", i, got, want)
		}
		leaf := testRecord(i).Leaf
		ref.AppendData(leaf)
		c.add(kt.LeafHash(leaf), &nodes)
		if c.size != i+1 {
			t.Fatalf("size %d after %d leaves", c.size, i+1)
		}
	}
	for level := range nodes {
		if len(nodes[level]) != sizes>>level {
			t.Fatalf("%d nodes of level %d", len(nodes[level]), level)
		}
	}
	for level := range tileHeight + 1 {
		for i, h := range nodes[level] {
			if want := subtreeRoot(nodes[0][i<<level : (i+1)<<level]); h != want {
				t.Errorf("node %d of level %d: %x, want %x", i, level, h, want)
			}
		}
		if want := ref.HashAt(1 << level); !bytes.Equal(nodes[level][0][:], want) {
			t.Errorf("first node of level %d: %x, want %x", level, nodes[level][0], want)
		}
	}
}

func TestSubtreeRootKeepsItsInput(t *testing.T) {
	hashes := make([]kt.Hash, tileWidth)
	for i := range hashes {
		hashes[i][0] = byte(i)
	}
	before := slices.Clone(hashes)
	first := subtreeRoot(hashes)
	if !slices.Equal(hashes, before) {
		t.Fatal("input was changed")
	}
	tree := newTileTree(hashes)
	if tree.node(0, 255) != hashes[255] || tree[1] != first {
		t.Fatal("tile tree and subtree root differ")
	}
	for height := range uint(tileHeight) {
		for i := range uint64(tileWidth >> height) {
			want := subtreeRoot(hashes[i<<height : (i+1)<<height])
			if got := tree.node(height, i); got != want {
				t.Fatalf("node %d at height %d: %x, want %x", i, height, got, want)
			}
		}
	}
}

// A set copy does not follow the original: groups work on copies of the log's range.
func TestCompactRangeSet(t *testing.T) {
	var a, b compactRange
	var nodes newNodes
	for i := range byte(7) {
		a.add(kt.Hash{i}, &nodes)
	}
	b.set(&a)
	want := a.root()
	for i := range byte(9) {
		b.add(kt.Hash{i}, &nodes)
	}
	if a.size != 7 || a.root() != want {
		t.Error("the original changed with its copy")
	}
}
