package projections

import (
	"fmt"
	"path"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// syncFS keeps the views from being ahead of the log after a power cut. Without
// a write-ahead log a batch becomes durable when the table file that holds it
// is synced and then named in the manifest, in that order. syncFS lets the sync
// of a table wait until the log is durable up to all that the table may hold.
type syncFS struct {
	vfs.FS
	mark *syncMark
}

// Create notes what a table file may hold. Memory that is flushed was closed for
// writing before its file is created, so the mark of this moment covers it.
func (fs *syncFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := fs.FS.Create(name, category)
	if err != nil || !holdsRows(name) {
		return file, err
	}
	return &tableFile{File: file, mark: fs.mark, size: fs.mark.inFiles()}, nil
}

// Unwrap gives the file system below.
func (fs *syncFS) Unwrap() vfs.FS { return fs.FS }

// holdsRows tells tables and value files from Pebble's bookkeeping.
func holdsRows(name string) bool {
	switch ext := path.Ext(strings.ReplaceAll(name, `\`, "/")); ext {
	case ".sst", ".blob":
		return true
	}
	return false
}

// tableFile is a file of rows that were folded from the log's first size
// records.
type tableFile struct {
	vfs.File
	mark *syncMark
	size uint64
}

// Sync makes the file durable, after the log.
func (f *tableFile) Sync() error {
	if err := f.wait(); err != nil {
		return err
	}
	return f.File.Sync()
}

// SyncData is Sync without the file's metadata.
func (f *tableFile) SyncData() error {
	if err := f.wait(); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *tableFile) wait() error {
	if err := f.mark.wait(f.size); err != nil {
		return fmt.Errorf("views: sync: %w", err)
	}
	return nil
}
