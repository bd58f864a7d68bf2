package projections

import (
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"quicprochat/kt"
)

// The tree over HEAD leaves is an RFC 6962 tree whose leaf e is the HEAD of epoch
// e. Its complete subtrees are rows, level 0 being leaf hashes; the nodes of the
// right edge are computed.

func headNodeKey(dst []byte, level uint, index uint64) []byte {
	dst = append(dst, prefixHeadNode, byte(level))
	for shift := 56; shift >= 0; shift -= 8 {
		dst = append(dst, byte(index>>shift))
	}
	return dst
}

// addHead appends leaf number epoch and every subtree that it completes.
func addHead(b *Batch, epoch uint64, leaf kt.Hash) error {
	hash, level := leaf, uint(0)
	if err := b.put(headNodeKey(b.scratch(), 0, epoch), hash[:]); err != nil {
		return err
	}
	for rest := epoch; rest&1 == 1; rest >>= 1 {
		left, err := headNode(b, level, rest-1)
		if err != nil {
			return err
		}
		hash = kt.Hash(rfc6962.DefaultHasher.HashChildren(left[:], hash[:]))
		level++
		if err := b.put(headNodeKey(b.scratch(), level, rest>>1), hash[:]); err != nil {
			return err
		}
	}
	return nil
}

func headNode(r Reader, level uint, index uint64) (kt.Hash, error) {
	hash, found, err := readRow(r, "heads tree", headNodeKey(r.scratch(), level, index), (*rowReader).array32)
	if err == nil && !found {
		err = r.fault(fmt.Errorf("%w of heads tree: node %d of level %d is missing", errRow, index, level))
	}
	return hash, err
}

// HeadsRoot is the root of the tree over the first size HEAD leaves.
func HeadsRoot(r Reader, size uint64) (kt.Hash, error) {
	if size == 0 {
		return kt.EmptyHeadsRoot, nil
	}
	ids := compact.RangeNodes(0, size, nil)
	var root kt.Hash
	for i := len(ids) - 1; i >= 0; i-- {
		hash, err := headNode(r, ids[i].Level, ids[i].Index)
		if err != nil {
			return kt.Hash{}, err
		}
		if i == len(ids)-1 {
			root = hash
		} else {
			root = kt.Hash(rfc6962.DefaultHasher.HashChildren(hash[:], root[:]))
		}
	}
	return root, nil
}

// HeadInclusion is the RFC 6962 path of the HEAD of an epoch in the tree over the
// first size HEAD leaves, leaf side first. There must be so many.
func HeadInclusion(r Reader, epoch, size uint64) ([][]byte, error) {
	nodes, err := proof.Inclusion(epoch, size)
	if err != nil {
		return nil, fmt.Errorf("views: heads tree: %w", err)
	}
	return proveHeads(r, nodes)
}

// HeadsConsistency is the RFC 6962 consistency proof between the trees over the
// first m and the first n HEAD leaves; empty when m is 0 or n.
func HeadsConsistency(r Reader, m, n uint64) ([][]byte, error) {
	if m == 0 {
		return nil, nil
	}
	nodes, err := proof.Consistency(m, n)
	if err != nil {
		return nil, fmt.Errorf("views: heads tree: %w", err)
	}
	return proveHeads(r, nodes)
}

func proveHeads(r Reader, nodes proof.Nodes) ([][]byte, error) {
	hashes := make([][]byte, len(nodes.IDs))
	for i, id := range nodes.IDs {
		hash, err := headNode(r, id.Level, id.Index)
		if err != nil {
			return nil, err
		}
		hashes[i] = hash[:]
	}
	return nodes.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
}
