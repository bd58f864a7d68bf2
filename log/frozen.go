package log

import (
	"os"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// frozenFS is the disk as Pebble sees it. After a failure of the log nothing reaches the real one any more, as if the
// process had been killed at that moment; what is there then is what a restart recovers. Without it Pebble's
// background work would go on: it might retry a failed sync, be told that it worked, and delete the write-ahead log
// that still held the events.
//
// A write-ahead log that cannot be written is such a failure. Pebble itself would panic at the next rotation, so it is
// told that all is well with those files; that the log has failed is seen by everybody who waits for a commit.
// Failures to write other files are passed on, and Pebble tries again.
//
// While the store is being opened every failed write is such a failure: an opening that fails midway leaves Pebble's
// goroutines with what it has freed, and they panic. So Pebble is told that all is well, whatever it writes then goes
// nowhere, and whoever opens the store looks at the failure.
type frozenFS struct {
	vfs.FS
	fail    *failure
	opening *atomic.Bool
	pause   func() // called before a table is written
}

// lost is a file that goes nowhere.
func lost() (vfs.File, error) { return vfs.NewMem().Create("lost", vfs.WriteCategoryUnspecified) }

// isWAL tells a write-ahead log by its name.
func isWAL(fs vfs.FS, path string) bool { return strings.HasSuffix(fs.PathBase(path), ".log") }

func (fs *frozenFS) wrap(f vfs.File, err error, critical bool) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &frozenFile{File: f, fail: fs.fail, opening: fs.opening, critical: critical}, nil
}

// make opens a file for writing.
func (fs *frozenFS) make(name string, open func() (vfs.File, error)) (vfs.File, error) {
	err := fs.fail.get()
	var f vfs.File
	if err == nil {
		f, err = open()
	}
	wal := isWAL(fs.FS, name)
	if err == nil || !wal && !fs.opening.Load() {
		return fs.wrap(f, err, wal)
	}
	_ = fs.fail.set(err)
	return lost()
}

// Create syncs the directory before a marker of Pebble's appears in it. Pebble creates a manifest, then the marker
// that names it, and only then syncs the directory: a power cut could leave the marker without its manifest, and the
// store would not open.
func (fs *frozenFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasSuffix(name, ".sst") {
		fs.pause()
	}
	return fs.make(name, func() (vfs.File, error) {
		if strings.HasPrefix(fs.PathBase(name), "marker.") {
			if err := syncDir(fs.FS, fs.PathDir(name)); err != nil {
				return nil, err
			}
		}
		return fs.FS.Create(name, c)
	})
}

func (fs *frozenFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.make(newname, func() (vfs.File, error) { return fs.FS.ReuseForWrite(oldname, newname, c) })
}

func (fs *frozenFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return fs.make(name, func() (vfs.File, error) { return fs.FS.OpenReadWrite(name, c, opts...) })
}

func (fs *frozenFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.Open(name, opts...)
	return fs.wrap(f, err, false)
}

// OpenDir: a directory that cannot be synced may lose the name of a write-ahead log.
func (fs *frozenFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	return fs.wrap(f, err, true)
}

// change runs what changes names, unless the disk is frozen.
func (fs *frozenFS) change(op func() error) error {
	err := fs.fail.get()
	if err == nil {
		err = op()
	}
	if err != nil && fs.opening.Load() {
		_ = fs.fail.set(err)
		return nil
	}
	return err
}

func (fs *frozenFS) Link(oldname, newname string) error {
	return fs.change(func() error { return fs.FS.Link(oldname, newname) })
}

func (fs *frozenFS) Remove(name string) error {
	if err := fs.fail.get(); err != nil {
		return err
	}
	return fs.FS.Remove(name) // what stays behind is found and removed at the next start
}

func (fs *frozenFS) RemoveAll(name string) error {
	return fs.change(func() error { return fs.FS.RemoveAll(name) })
}

func (fs *frozenFS) Rename(oldname, newname string) error {
	return fs.change(func() error { return fs.FS.Rename(oldname, newname) })
}

func (fs *frozenFS) MkdirAll(dir string, perm os.FileMode) error {
	return fs.change(func() error { return fs.FS.MkdirAll(dir, perm) })
}

func (fs *frozenFS) Unwrap() vfs.FS { return fs.FS }

type frozenFile struct {
	vfs.File
	fail     *failure
	opening  *atomic.Bool
	critical bool // a failed operation fails the log, and Pebble does not get to see it
}

func (f *frozenFile) do(op func() error) error {
	err := f.fail.get()
	if err == nil {
		err = op()
	}
	if err != nil && (f.critical || f.opening.Load()) {
		_ = f.fail.set(err)
		return nil
	}
	return err
}

func (f *frozenFile) Write(p []byte) (n int, err error) {
	err = f.do(func() (err error) { n, err = f.File.Write(p); return err })
	if err == nil {
		n = len(p)
	}
	return n, err
}

func (f *frozenFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.do(func() (err error) { n, err = f.File.WriteAt(p, off); return err })
	if err == nil {
		n = len(p)
	}
	return n, err
}

func (f *frozenFile) Preallocate(off, length int64) error {
	return f.do(func() error { return f.File.Preallocate(off, length) })
}

func (f *frozenFile) Sync() error     { return f.do(f.File.Sync) }
func (f *frozenFile) SyncData() error { return f.do(f.File.SyncData) }

func (f *frozenFile) SyncTo(length int64) (full bool, err error) {
	err = f.do(func() (err error) { full, err = f.File.SyncTo(length); return err })
	return full, err
}

func (f *frozenFile) Close() error {
	err := f.File.Close() // also when frozen: it frees the descriptor
	if err != nil && f.critical {
		_ = f.fail.set(err)
		return nil
	}
	return err
}
