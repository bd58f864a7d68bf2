package datadir

import (
	"errors"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// onDisk tells whether fs is the operating system's file system, where files
// have modes and owners; file systems in memory have neither.
func onDisk(fs vfs.FS) bool { return vfs.Root(fs) == vfs.Default }

// exists tells whether a file or folder is there; other errors are returned.
func exists(fs vfs.FS, path string) (bool, error) {
	_, err := fs.Stat(path)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	}
	return false, err
}

// syncDir makes the entries of a folder durable.
func syncDir(fs vfs.FS, path string) error {
	d, err := fs.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes a folder and its missing parents (0755), each of them durable.
func makeDir(fs vfs.FS, path string, mode os.FileMode) error {
	there, err := exists(fs, path)
	if there || err != nil {
		return err
	}
	parent := fs.PathDir(path)
	if parent != path {
		if err := makeDir(fs, parent, 0o755); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(path, mode); err != nil {
		return err
	}
	return syncDir(fs, parent)
}

// restrict takes a folder's rights from everybody but its owner.
func restrict(fs vfs.FS, path string) error {
	if !onDisk(fs) {
		return nil
	}
	return os.Chmod(path, 0o700)
}

// writeFile makes a file with the given mode and content, synced; its folder is
// not synced. The mode is set before the content is written, whatever the umask.
func writeFile(fs vfs.FS, path string, content []byte, mode os.FileMode) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if onDisk(fs) {
		if err := os.Chmod(path, mode); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	// The copy is there because Write may change what it is given.
	if _, err := f.Write(append([]byte(nil), content...)); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

// readFile reads a small file. One that is larger than limit is an error: no
// file that this package reads is.
func readFile(fs vfs.FS, path string, limit int64) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if int64(len(content)) > limit {
		return nil, errors.New("file is too large")
	}
	return content, nil
}
