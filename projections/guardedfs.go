package projections

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// breakdown is the one-way switch of views whose disk failed. What a failed
// write left behind is unknown; the log tells at the next start.
type breakdown struct {
	once     sync.Once
	err      atomic.Pointer[error]
	failed   chan struct{} // closed with the first failure
	opened   atomic.Bool   // Pebble has opened the store
	serving  atomic.Bool   // the store is in use: Pebble works in the background
	released chan struct{} // closed when the store is about to be closed
	letGo    sync.Once
	told     func(error) // called once, with the first failure
}

func newBreakdown(told func(error)) *breakdown {
	return &breakdown{failed: make(chan struct{}), released: make(chan struct{}), told: told}
}

// set records the first cause.
func (b *breakdown) set(cause error) {
	b.once.Do(func() {
		b.err.Store(&cause)
		close(b.failed)
		b.told(cause)
	})
}

// get is nil while the store works.
func (b *breakdown) get() error {
	if p := b.err.Load(); p != nil {
		return *p
	}
	return nil
}

// hold gives the error of a store that failed. Pebble tries again at once what
// failed in the background, for ever; so it is held here until the store closes.
// While Pebble opens a store, what a compaction finds must not fail the opening:
// that would take away what the compaction works with. The store is closed then
// as soon as it is open.
func (b *breakdown) hold() error {
	if !b.opened.Load() {
		return nil
	}
	err := b.get()
	if err != nil && b.serving.Load() {
		<-b.released
	}
	return err
}

func (b *breakdown) release() { b.letGo.Do(func() { close(b.released) }) }

// guardedFS is the disk as Pebble sees it: after a failure nothing reaches the
// real one any more. A directory that can't be synced is such a failure by
// itself, and Pebble, which would panic, is not told.
type guardedFS struct {
	vfs.FS
	down *breakdown
}

// open opens a file for writing.
func (fs *guardedFS) open(open func() (vfs.File, error)) (vfs.File, error) {
	if err := fs.down.hold(); err != nil {
		return nil, err
	}
	f, err := open()
	if err != nil {
		return nil, err
	}
	return &guardedFile{File: f, down: fs.down}, nil
}

func (fs *guardedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.open(func() (vfs.File, error) { return fs.FS.Create(name, c) })
}

func (fs *guardedFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.open(func() (vfs.File, error) { return fs.FS.ReuseForWrite(oldname, newname, c) })
}

func (fs *guardedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return fs.open(func() (vfs.File, error) { return fs.FS.OpenReadWrite(name, c, opts...) })
}

func (fs *guardedFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &guardedDir{File: f, down: fs.down}, nil
}

// change runs what changes names.
func (fs *guardedFS) change(op func() error) error {
	if err := fs.down.hold(); err != nil {
		return err
	}
	return op()
}

func (fs *guardedFS) Link(oldname, newname string) error {
	return fs.change(func() error { return fs.FS.Link(oldname, newname) })
}

func (fs *guardedFS) Remove(name string) error {
	return fs.change(func() error { return fs.FS.Remove(name) })
}

func (fs *guardedFS) RemoveAll(name string) error {
	return fs.change(func() error { return fs.FS.RemoveAll(name) })
}

func (fs *guardedFS) Rename(oldname, newname string) error {
	return fs.change(func() error { return fs.FS.Rename(oldname, newname) })
}

func (fs *guardedFS) MkdirAll(dir string, perm os.FileMode) error {
	return fs.change(func() error { return fs.FS.MkdirAll(dir, perm) })
}

func (fs *guardedFS) Unwrap() vfs.FS { return fs.FS }

type guardedFile struct {
	vfs.File
	down *breakdown
}

func (f *guardedFile) Write(p []byte) (int, error) {
	if err := f.down.hold(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *guardedFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.down.hold(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *guardedFile) do(op func() error) error {
	if err := f.down.hold(); err != nil {
		return err
	}
	return op()
}

func (f *guardedFile) Preallocate(off, length int64) error {
	return f.do(func() error { return f.File.Preallocate(off, length) })
}

func (f *guardedFile) Sync() error     { return f.do(f.File.Sync) }
func (f *guardedFile) SyncData() error { return f.do(f.File.SyncData) }

func (f *guardedFile) SyncTo(length int64) (full bool, err error) {
	err = f.do(func() (err error) { full, err = f.File.SyncTo(length); return err })
	return full, err
}

type guardedDir struct {
	vfs.File
	down *breakdown
}

func (d *guardedDir) Sync() error {
	if d.down.get() == nil {
		if err := d.File.Sync(); err != nil {
			d.down.set(fmt.Errorf("views: sync a directory: %w", err))
		}
	}
	return nil
}
