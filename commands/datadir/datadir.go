package datadir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/kt"
	"quicprochat/log"
)

// DefaultServerName is the name of a server that was created without one.
const DefaultServerName = "localhost"

// Options says how Open treats the directory.
type Options struct {
	// ServerName is the name the server shall have: at creation it is stored
	// for ever, later OpenLog holds it against the stored one. Empty means the
	// stored one, or DefaultServerName at creation.
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

	serverName string // as asked for; empty: any
	lock       io.Closer
}

// Open locks the data directory and reads its format and secrets; a new one is
// created first. The log is opened by OpenLog. Every error is one sentence that
// names cause and remedy; those that an operator has to settle are *Refused.
func Open(ctx context.Context, fs vfs.FS, dir string, o Options) (*Dir, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.ServerName != "" {
		if err := kt.ValidateServerName(o.ServerName); err != nil {
			return nil, &Refused{
				Kind:   ErrServerName,
				Cause:  fmt.Sprintf("--server-name %q can't be used, %v", o.ServerName, err),
				Remedy: "give a DNS name in lower case, such as chat.example.org",
				Err:    err,
			}
		}
	}
	if err := prepare(fs, dir, o.NoCreate); err != nil {
		return nil, err
	}
	lock, err := lockDir(fs, dir)
	if err != nil {
		return nil, err
	}
	d := &Dir{FS: fs, Path: dir, serverName: o.ServerName, lock: lock}
	if err := d.open(ctx, o); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

// prepare makes the folder that the lock needs. With noCreate it leaves no
// trace in a folder that is not a server's.
func prepare(fs vfs.FS, dir string, noCreate bool) error {
	if noCreate {
		switch s, err := inspect(fs, dir); {
		case err != nil:
			return explain(dir, "read", err)
		case s != stateReady:
			return notFound(dir, s)
		}
		return nil
	}
	return explain(dir, "create", makeDir(fs, dir, 0o700))
}

// open does what needs the lock.
func (d *Dir) open(ctx context.Context, o Options) error {
	s, err := inspect(d.FS, d.Path)
	if err != nil {
		return explain(d.Path, "read", err)
	}
	if s != stateReady {
		if o.NoCreate {
			return notFound(d.Path, s)
		}
		if err := d.create(ctx, s, o); err != nil {
			return explain(d.Path, "create", err)
		}
	}
	if err := sweep(d.FS, d.Path); err != nil {
		return explain(d.Path, "write", err)
	}
	format, err := log.ReadFormat(d.FS, d.Path)
	if err != nil {
		return explainFormat(d.Path, err)
	}
	d.StoreID = format.StoreID
	d.Secrets, err = readSecrets(d.FS, d.File(secretsDir))
	return err
}

// create makes the directory, or ends what a crash interrupted.
func (d *Dir) create(ctx context.Context, s state, o Options) error {
	if s == stateUnfinished {
		o.Logger.Info("ending the creation of the data directory that was interrupted", "dir", d.Path)
	} else {
		name := o.ServerName
		if name == "" {
			name = DefaultServerName
		}
		if err := create(ctx, d.FS, d.Path, name); err != nil {
			return err
		}
	}
	d.Created = true
	return finish(d.FS, d.Path)
}

// Close gives the directory free for other processes. The log and the views
// must be closed before.
func (d *Dir) Close() error { return d.lock.Close() }

// File returns the path of a file or folder of the directory.
func (d *Dir) File(name string) string { return d.FS.PathJoin(d.Path, name) }

// explain makes one sentence of an error of the file system; refusals and the
// end of a context are sentences already.
func explain(dir, verb string, err error) error {
	var refused *Refused
	switch {
	case err == nil, errors.As(err, &refused), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("can't %s data directory %s: give this user write access to it, or use another --data-dir (%w)", verb, dir, err)
	}
	return fmt.Errorf("can't %s data directory %s: check the disk (%w)", verb, dir, err)
}

// explainFormat turns the log's word about FORMAT into a refusal.
func explainFormat(dir string, err error) error {
	var format *log.FormatError
	if !errors.As(err, &format) {
		return explain(dir, "read", err)
	}
	if format.Version > log.FormatVersion {
		return &Refused{
			Kind:   ErrFormat,
			Cause:  fmt.Sprintf("data directory %s is of format %d, but this program knows formats up to %d", dir, format.Version, log.FormatVersion),
			Remedy: "use the newer quicprochat-server that wrote it (formats never go back)",
			Err:    err,
		}
	}
	if format.Version >= 0 && format.Version < log.FormatVersion {
		return &Refused{
			Kind:   ErrFormat,
			Cause:  fmt.Sprintf("data directory %s is of format %d, whose log has no heads for key transparency, and this program works with format %d", dir, format.Version, log.FormatVersion),
			Remedy: "start with a new data directory, or go on with the quicprochat-server that wrote this one",
			Err:    err,
		}
	}
	return &Refused{
		Kind:   ErrFormat,
		Cause:  fmt.Sprintf("FORMAT in data directory %s can't be used", dir),
		Remedy: "restore the directory from a backup",
		Err:    err,
	}
}
