package main

import (
	"context"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"quicprochat/kt"
)

// tree reads hashes of the log under one signed root. The library authenticates
// each tile against the root before it is used, so the proofs that are made of
// them are checked, whoever served them.
type tree struct {
	ctx context.Context
	src source
	at  tlog.Tree
}

func newTree(ctx context.Context, src source, c kt.Checkpoint) *tree {
	return &tree{ctx, src, tlog.Tree{N: int64(c.Size), Hash: tlog.Hash(c.Root)}}
}

func (t *tree) reader() tlog.HashReader { return tlog.TileHashReader(t.at, t) }

// Height implements tlog.TileReader.
func (t *tree) Height() int { return 8 }

// ReadTiles implements tlog.TileReader.
func (t *tree) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	paths := make([]kt.TilePath, len(tiles))
	for i, tile := range tiles {
		paths[i] = kt.TilePath{Kind: kt.HashTile, Level: tile.L, N: uint64(tile.N), Width: tile.W}
	}
	var data [][]byte
	err := fetchAll(t.ctx, t.src, slices.Values(paths), fetchers, func(_ kt.TilePath, body []byte) error {
		data = append(data, body)
		return nil
	})
	return data, err
}

// SaveTiles implements tlog.TileReader: nothing is kept.
func (t *tree) SaveTiles([]tlog.Tile, [][]byte) {}

// lastPath is the inclusion path of the last leaf.
func (t *tree) lastPath() ([][]byte, error) { return t.path(uint64(t.at.N) - 1) }

// beginning is the root over the first size leaves.
func (t *tree) beginning(size uint64) (kt.Hash, error) {
	root, err := tlog.TreeHash(int64(size), t.reader())
	return kt.Hash(root), err
}

// consistency shows what the first size leaves are.
func (t *tree) consistency(size uint64) ([][]byte, error) {
	proof, err := tlog.ProveTree(t.at.N, int64(size), t.reader())
	return hashes(proof), err
}

// pathOf is the inclusion path of a leaf that was found; nil where there is none to
// be had.
func (t *tree) pathOf(index uint64, leaf []byte) [][]byte {
	if len(leaf) == 0 || index >= uint64(t.at.N) {
		return nil
	}
	path, err := t.path(index)
	if err != nil {
		return nil
	}
	return path
}

func hashes(path []tlog.Hash) [][]byte {
	out := make([][]byte, len(path))
	for i := range path {
		out[i] = path[i][:]
	}
	return out
}

// path is the inclusion path of a leaf.
func (t *tree) path(index uint64) ([][]byte, error) {
	path, err := tlog.ProveRecord(t.at.N, int64(index), t.reader())
	return hashes(path), err
}
