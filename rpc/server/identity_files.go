package server

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// maxCertificateFile bounds what is read of a certificate or key file, bytes.
const maxCertificateFile = 1 << 20

// pending is the suffix of a file that is about to take another's place.
const pending = ".new"

// replacePair puts a new pair in the place of the old one, so that a crash at
// any point leaves a usable pair. The key waits beside until its certificate is
// in place:
//
//	1 write key.new
//	2 write cert.new, rename it to cert    before: the old pair is in place, key.new is dropped
//	3 rename key.new to key                before: cert is the new one, key.new belongs to it
//
// finishReplacement does what a crash left undone.
func (id *identity) replacePair(cert, key []byte) error {
	if err := id.write(id.keyPath+pending, key, 0o600); err != nil {
		return err
	}
	if err := id.replace(id.certPath, cert, 0o644); err != nil {
		return err
	}
	return id.move(id.keyPath+pending, id.keyPath)
}

// finishReplacement goes on where a crash stopped replacePair.
func (id *identity) finishReplacement() error {
	key, err := id.read(id.keyPath + pending)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if cert, err := id.read(id.certPath); err == nil {
		if _, err := parsePair(cert, key); err == nil {
			return id.move(id.keyPath+pending, id.keyPath)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return id.fs.Remove(id.keyPath + pending)
}

// replace writes a file beside its place and moves it there.
func (id *identity) replace(path string, content []byte, mode os.FileMode) error {
	if err := id.write(path+pending, content, mode); err != nil {
		return err
	}
	return id.move(path+pending, path)
}

// move renames a file and makes that durable.
func (id *identity) move(from, to string) error {
	if err := id.fs.Rename(from, to); err != nil {
		return err
	}
	dir, err := id.fs.OpenDir(id.fs.PathDir(to))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// write makes a synced file. Its mode is set before there is content in it.
func (id *identity) write(path string, content []byte, mode os.FileMode) error {
	f, err := id.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if vfs.Root(id.fs) == vfs.Default {
		if err := os.Chmod(path, mode); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if _, err := f.Write(append([]byte(nil), content...)); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

// read reads a small file.
func (id *identity) read(path string) ([]byte, error) {
	f, err := id.fs.Open(path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxCertificateFile+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(content) > maxCertificateFile {
		return nil, fmt.Errorf("%s is larger than any certificate", path)
	}
	return content, nil
}
