package sim

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// blockSize is what a disk writes at once: after a power cut a block is old or
// new, never half.
const blockSize = 4096

// merger adds to the durable state of a disk some of what was written and not
// synced: each new name, and each changed block of a file whose name was durable,
// with a chance. A file with a new name comes whole when its content was synced,
// and so does a folder that was renamed, whose content was durable before.
type merger struct {
	to, from *vfs.MemFS
	percent  int
	rng      *rand.Rand
	files    map[string]*content
	moved    map[string]bool // folders that were renamed
}

func (m *merger) survives() bool { return m.rng.IntN(100) < m.percent }

// folder merges one folder that both have.
func (m *merger) folder(path string) error {
	names, err := m.from.List(path)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := m.entry(m.from.PathJoin(path, name)); err != nil {
			return fmt.Errorf("merge %s: %w", name, err)
		}
	}
	return nil
}

func (m *merger) entry(path string) error {
	info, err := m.from.Stat(path)
	if err != nil {
		return err
	}
	_, err = m.to.Stat(path)
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch {
	case info.IsDir():
		if !there {
			if !m.survives() {
				return nil
			}
			if m.moved[path] {
				return m.whole(path)
			}
			if err := m.to.MkdirAll(path, 0o700); err != nil {
				return err
			}
		}
		return m.folder(path)
	case there:
		return m.blocks(path)
	case m.survives():
		now, err := readAll(m.from, path)
		if err != nil {
			return err
		}
		var old []byte
		if c := m.files[path]; c == nil || !c.unsynced {
			old = now
		}
		return writeAll(m.to, path, m.mix(old, now))
	}
	return nil
}

// whole takes a folder as it is: one that was renamed is one name, whatever it
// holds.
func (m *merger) whole(path string) error {
	if err := m.to.MkdirAll(path, 0o700); err != nil {
		return err
	}
	names, err := m.from.List(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := m.from.PathJoin(path, name)
		info, err := m.from.Stat(path)
		if err != nil {
			return err
		}
		if info.IsDir() {
			err = m.whole(path)
		} else {
			err = m.copy(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *merger) copy(path string) error {
	content, err := readAll(m.from, path)
	if err != nil {
		return err
	}
	return writeAll(m.to, path, content)
}

// blocks merges the content of a file whose name was durable.
func (m *merger) blocks(path string) error {
	old, err := readAll(m.to, path)
	if err != nil {
		return err
	}
	now, err := readAll(m.from, path)
	if err != nil {
		return err
	}
	return writeAll(m.to, path, m.mix(old, now))
}

// mix takes each block of now that differs from old, or leaves it.
func (m *merger) mix(old, now []byte) []byte {
	merged := slices.Clone(old)
	for at := 0; at < len(now); at += blockSize {
		block := now[at:min(at+blockSize, len(now))]
		if at+len(block) <= len(old) && slices.Equal(block, old[at:at+len(block)]) {
			continue
		}
		if !m.survives() {
			continue
		}
		if grow := at + len(block) - len(merged); grow > 0 {
			merged = append(merged, make([]byte, grow)...) // lost blocks before it read as zeros
		}
		copy(merged[at:], block)
	}
	return merged
}

func readAll(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(f)
	return content, errors.Join(err, f.Close())
}

// writeAll replaces a file.
func writeAll(fs vfs.FS, path string, content []byte) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(slices.Clone(content))
	return errors.Join(err, f.Sync(), f.Close())
}
