package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"quicprochat/kt"
)

// Files of a mirror beside those of C2SP tlog-tiles.
const (
	mirroredNote   = "checkpoint"
	incomingFolder = ".incoming"
	mirrorLock     = ".lock"
	unfinished     = ".new"
)

// lock makes the folder and keeps a second mirror out of it.
func (m *mirror) lock() (unlock func(), err error) {
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return nil, fmt.Errorf("folder of the copy: %w", err)
	}
	if unlock, err = lockFile(filepath.Join(m.dir, mirrorLock)); err != nil {
		return nil, fmt.Errorf("folder of the copy %s: %w", m.dir, err)
	}
	return unlock, nil
}

// readKnown reads the checkpoint of the copy, which was verified once.
func (m *mirror) readKnown() error {
	name := filepath.Join(m.dir, mirroredNote)
	note, err := readBounded(name, kt.MaxNoteSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := readCheckpoint(note)
	if err != nil {
		return fmt.Errorf("%s is no checkpoint: put it back from a copy, or remove the folder and start again", name)
	}
	m.known, m.note = &c, note
	return nil
}

func (m *mirror) file(p kt.TilePath) string {
	return filepath.Join(m.dir, filepath.FromSlash(p.String()))
}

func (m *mirror) incoming(p kt.TilePath) string {
	return filepath.Join(m.dir, incomingFolder, filepath.FromSlash(p.String()))
}

// write puts a resource beside the copy, unless the copy has it as it is.
func (m *mirror) write(p kt.TilePath, body []byte) error {
	for _, name := range []string{m.file(p), m.incoming(p)} {
		if info, err := os.Stat(name); err == nil && info.Size() == int64(len(body)) {
			if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, body) {
				return nil
			}
		}
	}
	name := m.incoming(p)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return placeFile(name, body)
}

// takeOver makes what came part of the copy, and shows the checkpoint that it was
// verified under. Partial resources go once nothing that is shown needs them.
func (m *mirror) takeOver(signed []byte) error {
	root := filepath.Join(m.dir, incomingFolder)
	var full []string
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(name, unfinished) {
			return err
		}
		path, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		target := filepath.Join(m.dir, path)
		if !strings.Contains(path, ".p"+string(filepath.Separator)) {
			full = append(full, target)
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.Rename(name, target)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := replaceFile(filepath.Join(m.dir, mirroredNote), signed, 0o644); err != nil {
		return err
	}
	for _, name := range full {
		if err := os.RemoveAll(name + ".p"); err != nil {
			return err
		}
	}
	return os.RemoveAll(root)
}

// discard forgets what came and did not hold; what came before something was
// missing may be needed again.
func (m *mirror) discard(wrong *findingError) error {
	if wrong.absent {
		return nil
	}
	return os.RemoveAll(filepath.Join(m.dir, incomingFolder))
}

// whole reports whether the copy's own leaves are still those of its checkpoint.
func (m *mirror) whole(ctx context.Context) (bool, error) {
	if m.known == nil {
		return true, nil
	}
	m.begin()
	for p := range kt.Tiles(kt.EntryBundle, 0, 0, m.known.Size) {
		body, err := os.ReadFile(m.file(p))
		width := p.Width
		if errors.Is(err, fs.ErrNotExist) { // a run that was killed has made it full
			p.Width = kt.TileWidth
			body, err = os.ReadFile(m.file(p))
		}
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return false, err
		}
		leaves, err := entries(body, p.Width)
		if err != nil {
			return false, nil
		}
		for _, leaf := range leaves[:width] {
			hash := kt.LeafHash(leaf)
			if err := m.tree.Append(hash[:], nil); err != nil {
				return false, err
			}
		}
	}
	root, err := m.tree.GetRootHash(nil)
	return err == nil && bytes.Equal(root, m.known.Root[:]), err
}

// firstConfig reads leaf 0 of what was copied.
func (m *mirror) firstConfig() (kt.Config, error) {
	if m.tree == nil {
		return kt.Config{}, errors.New("nothing was copied yet")
	}
	p := kt.TilePath{Kind: kt.EntryBundle, Width: int(min(m.tree.End(), kt.TileWidth))}
	body, err := m.read(p)
	if err != nil {
		return kt.Config{}, err
	}
	leaves, err := entries(body, p.Width)
	if err != nil || len(leaves) == 0 {
		return kt.Config{}, fmt.Errorf("the first leaf can't be read: %w", err)
	}
	leaf, err := kt.ParseLeaf(leaves[0])
	if err != nil || leaf.Class != kt.ClassConfig {
		return kt.Config{}, finding(kt.StepConfig, "the first leaf is no CONFIG: %v", err)
	}
	return leaf.Config, nil
}

// read gives a resource of the copy, or of what came; fs.ErrNotExist without a whole
// one.
func (m *mirror) read(p kt.TilePath) ([]byte, error) {
	for _, name := range []string{m.file(p), m.incoming(p)} {
		body, err := os.ReadFile(name)
		if err == nil && isWhole(p, body) {
			return body, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fs.ErrNotExist
}

// isWhole tells a resource from one that a power cut left without its end.
func isWhole(p kt.TilePath, body []byte) bool {
	switch p.Kind {
	case kt.EntryBundle:
		_, err := entries(body, p.Width)
		return err == nil
	case kt.DeltaBundle:
		delta, err := kt.ParseDelta(body)
		return err == nil && delta.Number == p.N && delta.Epochs() == p.Width
	}
	return len(body) == p.MaxSize()
}

// placeFile puts a file in its place, whole, but not synced: each run reads the
// copy again, and a sync for each file would take most of the time.
func placeFile(name string, content []byte) error {
	if err := os.WriteFile(name+unfinished, content, 0o644); err != nil {
		return err
	}
	return os.Rename(name+unfinished, name)
}

// copied serves what the copy has, and the rest from the source.
type copied struct {
	source
	mirror *mirror
}

func (c *copied) resource(ctx context.Context, p kt.TilePath) ([]byte, error) {
	body, err := c.mirror.read(p)
	if !errors.Is(err, fs.ErrNotExist) {
		return body, err
	}
	body, err = c.source.resource(ctx, p)
	if err == nil && p.Kind == kt.EntryBundle {
		c.mirror.fetched.Add(1)
	}
	return body, err
}
