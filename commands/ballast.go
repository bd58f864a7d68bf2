package commands

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BallastFile is the name of a file in the data directory that holds nothing
// but room: it is removed when a write finds the disk full, because a log that
// can't be written can't be recovered either, and what frees space (Ack) must be
// written first.
const BallastFile = "ballast"

// maxBallast is the size of the ballast in bytes; on small disks it is a
// hundredth of the disk.
const maxBallast = 64 << 20

// ballastSize is the size for a disk of total bytes.
func ballastSize(total uint64) uint64 { return min(total/100, maxBallast) }

// makeBallast writes the ballast and syncs it, so that the room is really taken.
// One of another size is written anew; on an error nothing is left.
func makeBallast(fsys vfs.FS, dir string, size uint64) (err error) {
	path := fsys.PathJoin(dir, BallastFile)
	file, err := fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("make the ballast: %w", err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(fmt.Errorf("make the ballast: %w", err), fsys.Remove(path))
		}
	}()
	// Bytes that no file system compresses or keeps as a hole. They are no
	// secret, so the key is fixed.
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		return err
	}
	stream := cipher.NewCTR(block, make([]byte, aes.BlockSize))
	chunk := make([]byte, 1<<20)
	for size > 0 {
		part := chunk[:min(size, uint64(len(chunk)))]
		clear(part)
		stream.XORKeyStream(part, part)
		if _, err := file.Write(part); err != nil {
			return err
		}
		size -= uint64(len(part))
	}
	return file.Sync()
}

// ReleaseBallast removes the ballast of a data directory; released tells
// whether there was one.
func ReleaseBallast(fsys vfs.FS, dir string) (released bool, err error) {
	path := fsys.PathJoin(dir, BallastFile)
	switch _, err := fsys.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	}
	if err := fsys.Remove(path); err != nil {
		return false, err
	}
	// A power cut must not bring it back: the room is needed now.
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return true, err
	}
	return true, errors.Join(d.Sync(), d.Close())
}

// MakeRoom releases the ballast before a start on a disk with less free space
// than the ballast holds: opening a log writes. released tells whether it did.
func MakeRoom(fsys vfs.FS, dir string) (released bool, err error) {
	usage, err := fsys.GetDiskUsage(dir)
	if err != nil || usage.AvailBytes >= ballastSize(usage.TotalBytes) {
		return false, nil // who can't tell has no ballast either
	}
	return ReleaseBallast(fsys, dir)
}
