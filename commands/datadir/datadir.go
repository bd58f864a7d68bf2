package datadir

import (
	"context"
	"io"
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// DefaultServerName is the name of a server that was created without one.
const DefaultServerName = "localhost"

// Options says how Open treats the directory.
type Options struct {
	// ServerName is the name the server shall have: at creation it is stored
	// for ever, later it must equal the stored one. Empty means the stored
	// one, or DefaultServerName at creation.
	ServerName string
	// NoCreate refuses a new directory, so that an unmounted disk never looks
	// like a new server.
	NoCreate bool
	// Logger receives what is worth knowing about creation; nil discards it.
	Logger *slog.Logger
}

// Dir is an open data directory, locked until Close.
type Dir struct {
	// FS is the file system that Path is on.
	FS vfs.FS
	// Path of the directory as it was given.
	Path string
	// StoreID ties FORMAT, anchor, log and snapshots together; random.
	StoreID [16]byte
	// Secrets of this server.
	Secrets *Secrets
	// Created reports whether this Open made the directory.
	Created bool

	lock io.Closer
}

// Open locks the data directory and reads its format and secrets; a new one is
// created first. Every error is one sentence naming cause and remedy; those
// that an operator has to settle are of type *Refused.
func Open(ctx context.Context, fs vfs.FS, dir string, o Options) (*Dir, error) {
	panic("not built")
}

// Close gives the directory free for other processes. The log and the views
// must be closed before.
func (d *Dir) Close() error { panic("not built") }

// File returns the path of a file or folder of the directory.
func (d *Dir) File(name string) string { return d.FS.PathJoin(d.Path, name) }
