package log

import "github.com/cockroachdb/pebble/v2/vfs"

// FormatVersion is the version of the data directory that this program writes and reads.
const FormatVersion = 0

// FormatFile is the name of the format file in a data directory.
const FormatFile = "FORMAT"

// Format is the content of the FORMAT file: it names the layout of the whole data directory and the store.
type Format struct {
	Version int
	StoreID [16]byte // random, drawn at creation; binds the anchor to its log
}

// WriteFormat writes <dir>/FORMAT and syncs file and directory. It is the last step of a creation.
func WriteFormat(fs vfs.FS, dir string, f Format) error { panic("not yet") }

// ReadFormat reads <dir>/FORMAT. A version that is not FormatVersion, or a file that is no FORMAT file, is a
// *FormatError; a missing file is an error that wraps os.ErrNotExist.
func ReadFormat(fs vfs.FS, dir string) (Format, error) { panic("not yet") }
