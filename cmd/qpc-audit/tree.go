package main

import (
	"context"

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
	err := fetchAll(t.ctx, t.src, paths, func(_ kt.TilePath, body []byte) error {
		data = append(data, body)
		return nil
	})
	return data, err
}

// SaveTiles implements tlog.TileReader: nothing is kept.
func (t *tree) SaveTiles([]tlog.Tile, [][]byte) {}

// lastPath is the inclusion path of the last leaf.
func (t *tree) lastPath() ([][]byte, error) { return t.path(uint64(t.at.N) - 1) }

// contains checks that an earlier tree is the beginning of this one.
func (t *tree) contains(c kt.Checkpoint) error {
	proof, err := tlog.ProveTree(t.at.N, int64(c.Size), t.reader())
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, t.at.N, t.at.Hash, int64(c.Size), tlog.Hash(c.Root))
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
