package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"quicprochat/kt"
)

// mirrorCommand copies the public log.
type mirrorCommand struct {
	sourceFlags `embed:""`
	trustFlags  `embed:""`
	Dir         string `arg:"" placeholder:"DIR" help:"Folder of the copy."`
}

// Help is shown by mirror --help.
func (*mirrorCommand) Help() string {
	return `The folder has the layout of C2SP tlog-tiles (checkpoint, tile/…, kt/delta/…): any
static web server can serve it, and 'qpc-audit follow --url' can audit it. Entry
bundles are copied, hash tiles are made of them. Every run reads the whole copy
again, fetches what is missing and compares the root with the signed one; only then
the checkpoint is replaced. An interrupted run is taken up where it ended.`
}

// Run is called by kong.
func (c *mirrorCommand) Run(ctx context.Context, a *app) (err error) {
	pinned, err := c.pin()
	if err != nil {
		return err
	}
	policy, err := c.policy()
	if err != nil {
		return err
	}
	src, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	m := &mirror{dir: c.Dir, src: src, progress: newProgress(a.stderr).tell}
	size, fetched, err := m.update(ctx, pinned, policy)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "mirrored %d leaves into %s, %d bundles fetched; the root is the signed one\n", size, c.Dir, fetched)
	return err
}

// mirror is a copy of a log on disk.
type mirror struct {
	dir      string
	src      source
	progress func(done, total uint64)

	tree    *compact.Range
	tiles   [8][]byte    // hashes of the tile that is not full yet, by level
	fetched atomic.Int64 // bundles; several at a time
}

// update brings the copy up to the newest checkpoint.
func (m *mirror) update(ctx context.Context, pinned *pin, policy kt.WitnessPolicy) (size uint64, fetched int64, err error) {
	signed, err := m.src.checkpoint(ctx)
	if err != nil {
		return 0, 0, err
	}
	to, err := readCheckpoint(signed)
	if err != nil {
		return 0, 0, unsettled("what the server shows is no checkpoint: %v", err)
	}
	if pinned != nil {
		if err := pinned.opens(signed); err != nil {
			return 0, 0, finding(kt.StepConfig, "the checkpoint is not signed by the key given with --vkey: %v", err)
		}
	}
	if err := m.notBack(to); err != nil {
		return 0, 0, err
	}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return 0, 0, err
	}
	if err := m.copyEntries(ctx, to); err != nil {
		return 0, 0, err
	}
	root, err := m.tree.GetRootHash(nil)
	if err != nil {
		return 0, 0, err
	}
	if kt.Hash(root) != to.Root {
		return 0, 0, finding(kt.StepConsistency, "the %d leaves that were copied have root %x, the checkpoint says %x; if the copy was damaged, remove %s and start again", to.Size, root, to.Root, m.dir)
	}
	if err := m.authenticate(signed, pinned); err != nil {
		return 0, 0, err
	}
	if err := m.copyDeltas(ctx, to); err != nil {
		return 0, 0, err
	}
	if err := policy.Met(signed); err != nil {
		return 0, 0, fmt.Errorf("policy: %w", err)
	}
	return to.Size, m.fetched.Load(), replaceFile(filepath.Join(m.dir, "checkpoint"), signed, 0o644)
}

// notBack refuses a checkpoint that is older than the copy's.
func (m *mirror) notBack(to kt.Checkpoint) error {
	old, err := os.ReadFile(filepath.Join(m.dir, "checkpoint"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	before, err := readCheckpoint(old)
	if err == nil && before.Size > to.Size {
		return unsettled("the server shows a checkpoint of %d leaves, the copy has one of %d: a cache is stale, or the server was put back to an old copy", to.Size, before.Size)
	}
	return err
}

// copyEntries reads every bundle, from the copy or from the source, makes the
// tiles of them, and writes what is new.
func (m *mirror) copyEntries(ctx context.Context, to kt.Checkpoint) error {
	m.tree = (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	paths := kt.Tiles(kt.EntryBundle, 0, 0, to.Size)
	err := fetchAll(ctx, &copied{source: m.src, mirror: m}, paths, func(p kt.TilePath, body []byte) error {
		leaves, err := entries(body, p.Width)
		if err != nil {
			return finding(kt.StepLeaf, "%s: %v", p, err)
		}
		if err := m.write(p, body); err != nil {
			return err
		}
		for _, leaf := range leaves {
			if err := m.append(leaf); err != nil {
				return err
			}
		}
		m.progress(m.tree.End(), to.Size)
		return nil
	})
	if err != nil {
		return absent(err)
	}
	for level, hashes := range m.tiles {
		if width := len(hashes) / len(kt.Hash{}); width > 0 {
			n := (to.Size >> (8 * level)) / kt.TileWidth
			if err := m.write(kt.TilePath{Kind: kt.HashTile, Level: level, N: n, Width: width}, hashes); err != nil {
				return err
			}
		}
	}
	return nil
}

// append adds a leaf to the tree and writes the tiles that it completes.
func (m *mirror) append(leaf []byte) error {
	var err error
	add := func(id compact.NodeID, hash []byte) {
		if id.Level%8 != 0 || err != nil {
			return
		}
		level := int(id.Level / 8)
		m.tiles[level] = append(m.tiles[level], hash...)
		if len(m.tiles[level]) == kt.TileWidth*len(kt.Hash{}) {
			err = m.write(kt.TilePath{Kind: kt.HashTile, Level: level, N: id.Index / kt.TileWidth, Width: kt.TileWidth}, m.tiles[level])
			m.tiles[level] = m.tiles[level][:0]
		}
	}
	hash := rfc6962.DefaultHasher.HashLeaf(leaf)
	if appendErr := m.tree.Append(hash, add); appendErr != nil {
		return appendErr
	}
	return err
}

// copyDeltas copies the deltas of the checkpoint's heads. They follow from the
// leaves; who audits the copy compares them.
func (m *mirror) copyDeltas(ctx context.Context, to kt.Checkpoint) error {
	epochs, err := epochsOf(ctx, &copied{source: m.src, mirror: m}, to)
	if err != nil {
		return absent(err)
	}
	err = fetchAll(ctx, &copied{source: m.src, mirror: m}, kt.Tiles(kt.DeltaBundle, 0, 0, epochs), func(p kt.TilePath, body []byte) error {
		if delta, err := kt.ParseDelta(body); err != nil || delta.Number != p.N {
			return finding(kt.StepLeaf, "%s: %v", p, err)
		}
		return m.write(p, body)
	})
	return absent(err)
}

// authenticate checks the checkpoint's signature by the newest CONFIG of the
// copied log, for whoever had no key in advance.
func (m *mirror) authenticate(signed []byte, pinned *pin) error {
	if pinned != nil {
		return nil // it was opened before
	}
	first, err := m.firstConfig()
	if err != nil {
		return err
	}
	if _, err := kt.OpenCheckpoint(signed, first.Origin, first.LogKey); err != nil {
		return finding(kt.StepConfig, "the checkpoint is not signed by the key that the log's first leaf names; if the key was changed since, give the new one with --vkey: %v", err)
	}
	return nil
}

// firstConfig reads leaf 0 of the copy.
func (m *mirror) firstConfig() (kt.Config, error) {
	p := kt.TilePath{Kind: kt.EntryBundle, Width: int(min(m.tree.End(), kt.TileWidth))}
	body, err := os.ReadFile(m.file(p))
	if err != nil {
		return kt.Config{}, err
	}
	leaves, err := entries(body, p.Width)
	if err != nil {
		return kt.Config{}, err
	}
	leaf, err := kt.ParseLeaf(leaves[0])
	if err != nil || leaf.Class != kt.ClassConfig {
		return kt.Config{}, finding(kt.StepConfig, "the first leaf is no CONFIG: %v", err)
	}
	return leaf.Config, nil
}

func (m *mirror) file(p kt.TilePath) string {
	return filepath.Join(m.dir, filepath.FromSlash(p.String()))
}

// write puts a resource into the copy, unless it is there as it is. A full one
// takes the place of its partial ones.
func (m *mirror) write(p kt.TilePath, body []byte) error {
	name := m.file(p)
	if info, err := os.Stat(name); err == nil && info.Size() == int64(len(body)) {
		if old, err := os.ReadFile(name); err == nil && string(old) == string(body) {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := placeFile(name, body); err != nil {
		return err
	}
	if p.Width == kt.TileWidth {
		return os.RemoveAll(name + ".p")
	}
	return nil
}

// placeFile puts a file in its place, whole, but not synced: each run reads the
// copy again, and a sync for each file would take most of the time.
func placeFile(name string, content []byte) error {
	if err := os.WriteFile(name+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// copied serves what the copy has, and the rest from the source. An entry bundle
// that a power cut left without its end is fetched again.
type copied struct {
	source
	mirror *mirror
}

func (c *copied) resource(ctx context.Context, p kt.TilePath) ([]byte, error) {
	body, err := os.ReadFile(c.mirror.file(p))
	whole := err == nil
	if whole && p.Kind == kt.EntryBundle {
		_, err := entries(body, p.Width)
		whole = err == nil
	}
	if whole || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return body, err
	}
	body, err = c.source.resource(ctx, p)
	if err == nil && p.Kind == kt.EntryBundle {
		c.mirror.fetched.Add(1)
	}
	return body, err
}
