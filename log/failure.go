package log

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// failure is the one-way switch of a log whose disk can no longer be trusted. What a failed write left behind is
// unknown, so nothing is tried again in place: a restart recovers from what is really there.
type failure struct {
	once sync.Once
	err  atomic.Pointer[error]
	ch   chan struct{}
}

func newFailure() *failure { return &failure{ch: make(chan struct{})} }

// set records the first cause and gives the error that every later write gets.
func (f *failure) set(cause error) error {
	f.once.Do(func() {
		err := fmt.Errorf("%w: %w", ErrFailed, cause)
		f.err.Store(&err)
		close(f.ch)
	})
	return f.get()
}

// get is nil while the log works.
func (f *failure) get() error {
	if p := f.err.Load(); p != nil {
		return *p
	}
	return nil
}

// fencedFS lets nothing reach the disk after a failure. Without it Pebble's background work would go on: it might
// retry a failed sync, be told that it worked, and delete the write-ahead log that still held the events.
type fencedFS struct {
	vfs.FS
	fail *failure
}

type fencedFile struct {
	vfs.File
	fail *failure
}

func (fs *fencedFS) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &fencedFile{File: f, fail: fs.fail}, nil
}

func (fs *fencedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := fs.fail.get(); err != nil {
		return nil, err
	}
	return fs.wrap(fs.FS.Create(name, c))
}

func (fs *fencedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return fs.wrap(fs.FS.Open(name, opts...))
}

func (fs *fencedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := fs.fail.get(); err != nil {
		return nil, err
	}
	return fs.wrap(fs.FS.OpenReadWrite(name, c, opts...))
}

func (fs *fencedFS) OpenDir(name string) (vfs.File, error) { return fs.wrap(fs.FS.OpenDir(name)) }

func (fs *fencedFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := fs.fail.get(); err != nil {
		return nil, err
	}
	return fs.wrap(fs.FS.ReuseForWrite(oldname, newname, c))
}

func (fs *fencedFS) Link(oldname, newname string) error {
	if err := fs.fail.get(); err != nil {
		return err
	}
	return fs.FS.Link(oldname, newname)
}

func (fs *fencedFS) Remove(name string) error {
	if err := fs.fail.get(); err != nil {
		return err
	}
	return fs.FS.Remove(name)
}

func (fs *fencedFS) RemoveAll(name string) error {
	if err := fs.fail.get(); err != nil {
		return err
	}
	return fs.FS.RemoveAll(name)
}

func (fs *fencedFS) Rename(oldname, newname string) error {
	if err := fs.fail.get(); err != nil {
		return err
	}
	return fs.FS.Rename(oldname, newname)
}

func (fs *fencedFS) MkdirAll(dir string, perm os.FileMode) error {
	if err := fs.fail.get(); err != nil {
		return err
	}
	return fs.FS.MkdirAll(dir, perm)
}

func (fs *fencedFS) Unwrap() vfs.FS { return fs.FS }

func (f *fencedFile) Write(p []byte) (int, error) {
	if err := f.fail.get(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *fencedFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fail.get(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *fencedFile) Sync() error {
	if err := f.fail.get(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *fencedFile) SyncData() error {
	if err := f.fail.get(); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *fencedFile) SyncTo(length int64) (bool, error) {
	if err := f.fail.get(); err != nil {
		return false, err
	}
	return f.File.SyncTo(length)
}
