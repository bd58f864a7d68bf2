package sim

import (
	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/log"
)

// slowFS makes syncs take time, and lie, and knows which files have bytes that
// were not synced.
type slowFS struct {
	vfs.FS
	disk *Disk
}

type slowFile struct {
	vfs.File
	disk    *Disk
	name    string
	content *content
}

// open follows the content behind a name, a new one if it is created.
func (d *Disk) open(name string, created bool) *content {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.files[name]
	if c == nil || created {
		c = &content{}
		d.files[name] = c
	}
	return c
}

func (d *Disk) renamed(oldname, newname string, folder bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.moved[newname] = folder
	if c := d.files[oldname]; c != nil {
		d.files[newname] = c
		delete(d.files, oldname)
	}
}

func (d *Disk) wrote(c *content) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.unsynced = true
}

func (d *Disk) wasSynced(c *content) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.unsynced = false
}

func (fs *slowFS) wrap(name string, created bool, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &slowFile{File: f, disk: fs.disk, name: name, content: fs.disk.open(name, created)}, nil
}

func (fs *slowFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	return fs.wrap(name, true, f, err)
}

func (fs *slowFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(name, c, o...)
	return fs.wrap(name, false, f, err)
}

func (fs *slowFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(oldname, newname, c)
	if err == nil {
		fs.disk.renamed(oldname, newname, false)
	}
	return fs.wrap(newname, false, f, err)
}

func (fs *slowFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	return fs.wrap(name, false, f, err)
}

func (fs *slowFS) Rename(oldname, newname string) error {
	info, err := fs.FS.Stat(oldname)
	if err == nil {
		err = fs.FS.Rename(oldname, newname)
	}
	if err == nil {
		fs.disk.renamed(oldname, newname, info.IsDir())
	}
	return err
}

func (fs *slowFS) Unwrap() vfs.FS { return fs.FS }

func (f *slowFile) Write(p []byte) (int, error) {
	f.disk.wrote(f.content)
	return f.File.Write(p)
}

func (f *slowFile) WriteAt(p []byte, at int64) (int, error) {
	f.disk.wrote(f.content)
	return f.File.WriteAt(p, at)
}

func (f *slowFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *slowFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *slowFile) sync(do func() error) error {
	f.disk.spin(f.name)
	if f.disk.Lies != nil && f.disk.Lies(f.name) {
		return nil
	}
	if err := do(); err != nil {
		return err
	}
	f.disk.wasSynced(f.content)
	if f.disk.Anchored != nil && within(f.name, log.AnchorFile) {
		f.disk.Anchored(anchorSize(f.disk.fs))
	}
	return nil
}
