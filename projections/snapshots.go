package projections

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A snapshot file is <dir>/snapshots/<size>, size in decimal. It is written under
// the name unfinished and renamed when it is durable, so a file with a number is
// whole or damaged, never cut short; what a crash leaves is overwritten.
const unfinished = "unfinished"

// Write writes the snapshot to <dir>/snapshots/<size> and returns the digest of
// its rows. It waits until the log is durable up to the snapshot's size, and is
// durable on return. One is written at a time. The caller records it by a
// SnapshotTaken event.
func (s *Snapshot) Write(fsys vfs.FS, dir string) (Hash, error) {
	if err := s.views.mark.wait(s.size); err != nil {
		return Hash{}, fmt.Errorf("views: snapshot: %w", err)
	}
	folder := fsys.PathJoin(dir, snapshotsDir)
	if err := fsys.MkdirAll(folder, 0o700); err != nil {
		return Hash{}, fmt.Errorf("views: snapshot: %w", err)
	}
	part := fsys.PathJoin(folder, unfinished)
	digest, err := writeSnapshotFile(fsys, part, s)
	if err == nil {
		err = fsys.Rename(part, snapshotPath(fsys, dir, s.size))
	}
	if err == nil {
		err = syncDir(fsys, folder)
	}
	if err == nil {
		err = syncDir(fsys, dir)
	}
	if err != nil {
		return Hash{}, fmt.Errorf("views: snapshot: %w", err)
	}
	return digest, nil
}

func writeSnapshotFile(fsys vfs.FS, path string, s *Snapshot) (digest Hash, err error) {
	file, err := fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return digest, err
	}
	digest, err = writeSnapshot(file, s, s.size)
	if err == nil {
		err = file.Sync()
	}
	return digest, errors.Join(err, file.Close())
}

// WriteSnapshot writes the views as of the last Commit: see Snapshot.Write.
func (v *Views) WriteSnapshot(fsys vfs.FS, dir string) (size uint64, digest Hash, err error) {
	s := v.Snapshot()
	digest, err = s.Write(fsys, dir)
	return s.Size(), digest, errors.Join(err, s.Close())
}

func snapshotPath(fsys vfs.FS, dir string, size uint64) string {
	return fsys.PathJoin(dir, snapshotsDir, strconv.FormatUint(size, 10))
}

// ListSnapshots lists the sizes of the snapshots under <dir>/snapshots, smallest
// first. Whether they are good is VerifySnapshot's business.
func ListSnapshots(fsys vfs.FS, dir string) ([]uint64, error) {
	names, err := fsys.List(fsys.PathJoin(dir, snapshotsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("views: snapshots: %w", err)
	}
	var sizes []uint64
	for _, name := range names {
		size, err := strconv.ParseUint(name, 10, 64)
		if err == nil && strconv.FormatUint(size, 10) == name {
			sizes = append(sizes, size)
		}
	}
	slices.Sort(sizes)
	return sizes, nil
}

// VerifySnapshot reads a whole snapshot file, checks it and returns its digest.
// Errors about its content wrap ErrBadSnapshot.
func VerifySnapshot(fsys vfs.FS, dir string, size uint64) (Hash, error) {
	return readSnapshotFile(fsys, dir, size, func(_, _ []byte) error { return nil })
}

func readSnapshotFile(fsys vfs.FS, dir string, size uint64, each func(key, value []byte) error) (Hash, error) {
	file, err := fsys.Open(snapshotPath(fsys, dir, size))
	if err != nil {
		return Hash{}, fmt.Errorf("views: snapshot: %w", err)
	}
	inside, digest, err := readSnapshot(file, each)
	if err == nil && inside != size {
		err = fmt.Errorf("%w: it is of size %d", ErrBadSnapshot, inside)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return Hash{}, fmt.Errorf("snapshot %d: %w", size, err)
	}
	return digest, nil
}

// RemoveSnapshot removes a snapshot; one that does not exist is an error.
func RemoveSnapshot(fsys vfs.FS, dir string, size uint64) error {
	if err := fsys.Remove(snapshotPath(fsys, dir, size)); err != nil {
		return fmt.Errorf("views: snapshot: %w", err)
	}
	return syncDir(fsys, fsys.PathJoin(dir, snapshotsDir))
}

// restoreBatchBytes bounds the batches that fill a store.
const restoreBatchBytes = 1 << 20

// restore fills an empty store from a snapshot file.
func (v *Views) restore(fsys vfs.FS, dir string, size uint64) error {
	batch := v.db.NewBatch()
	defer func() { _ = batch.Close() }()
	_, err := readSnapshotFile(fsys, dir, size, func(key, value []byte) error {
		if err := batch.Set(key, value, nil); err != nil {
			return err
		}
		if batch.Len() < restoreBatchBytes {
			return nil
		}
		if err := batch.Commit(pebble.NoSync); err != nil {
			return err
		}
		batch = v.db.NewBatch()
		return nil
	})
	if err != nil {
		return err
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	return v.restoredCursor(size)
}

// restoredCursor checks that the rows say the same size as the file.
func (v *Views) restoredCursor(size uint64) error {
	value, found, err := getFrom(v.db, keyOf(nil, prefixMeta))
	if err != nil {
		return err
	}
	in := rowReader{rest: value}
	if format, cursor := in.u32(), in.u64(); !found || format != viewsFormat || cursor != size {
		return fmt.Errorf("%w: rows of format %d and size %d in a snapshot of size %d", ErrBadSnapshot, format, cursor, size)
	}
	return nil
}
