package log

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/kt"
)

// FormatVersion is the version of the data directory that this program writes and reads.
const FormatVersion = kt.FormatVersion

// FormatFile is the name of the format file in a data directory.
const FormatFile = "FORMAT"

// The FORMAT file has exactly two lines, so that a person can read which program a directory belongs to:
//
//	quicprochat data directory, format 1
//	store 0123456789abcdef0123456789abcdef
const (
	formatTitle = "quicprochat data directory, format "
	formatStore = "store "
	formatLimit = 1024 // bytes read at most; a longer file is none of ours
)

// Format is the content of the FORMAT file: it names the layout of the whole data directory and the store.
type Format struct {
	Version int
	StoreID [16]byte // random, drawn at creation; binds the anchor to its log
}

// WriteFormat writes <dir>/FORMAT and syncs file and directory. It is the last step of a creation. The file appears
// whole or not at all.
func WriteFormat(fs vfs.FS, dir string, f Format) error {
	text := fmt.Sprintf("%s%d\n%s%x\n", formatTitle, f.Version, formatStore, f.StoreID)
	final, temp := fs.PathJoin(dir, FormatFile), fs.PathJoin(dir, FormatFile+".tmp")
	if err := writeFileSynced(fs, temp, []byte(text)); err != nil {
		return err
	}
	if err := fs.Rename(temp, final); err != nil {
		return fmt.Errorf("name the format file: %w", err)
	}
	return syncDir(fs, dir)
}

// ReadFormat reads <dir>/FORMAT. A version that is not FormatVersion, or a file that is no FORMAT file, is a
// *FormatError; a missing file is an error that wraps os.ErrNotExist.
func ReadFormat(fs vfs.FS, dir string) (Format, error) {
	path := fs.PathJoin(dir, FormatFile)
	file, err := fs.Open(path)
	if err != nil {
		return Format{}, fmt.Errorf("open the format file: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, formatLimit+1))
	if err != nil {
		return Format{}, fmt.Errorf("read the format file: %w", err)
	}
	f, err := parseFormat(string(text))
	if err != nil {
		return Format{}, &FormatError{Version: -1,
			Detail: fmt.Sprintf("%s is damaged or not a format file (%v): %s", path, err, restoreRemedy)}
	}
	if f.Version < FormatVersion {
		return f, &FormatError{Version: f.Version, Detail: fmt.Sprintf(
			"%s says format %d, of a log without heads, and this program works with format %d: start with a new data directory", path, f.Version, FormatVersion)}
	}
	if f.Version > FormatVersion {
		return f, &FormatError{Version: f.Version, Detail: fmt.Sprintf(
			"%s says format %d and this program knows formats up to %d: use the newer program that wrote it", path, f.Version, FormatVersion)}
	}
	return f, nil
}

// parseFormat is strict: what WriteFormat does not write is an error.
func parseFormat(text string) (Format, error) {
	var f Format
	rest, ok := strings.CutPrefix(text, formatTitle)
	if !ok || len(text) > formatLimit {
		return f, errors.New("unknown first line")
	}
	number, rest, _ := strings.Cut(rest, "\n")
	version, err := strconv.ParseUint(number, 10, 31)
	if err != nil || strconv.FormatUint(version, 10) != number {
		return f, errors.New("version is not a number")
	}
	f.Version = int(version)
	if f.Version > FormatVersion {
		return f, nil // whatever a newer format says further is not ours to judge
	}
	id, ok := strings.CutPrefix(rest, formatStore)
	id, ok2 := strings.CutSuffix(id, "\n")
	raw, err := hex.DecodeString(id)
	if !ok || !ok2 || err != nil || len(raw) != len(f.StoreID) || hex.EncodeToString(raw) != id {
		return f, errors.New("store id is not 32 hexadecimal digits")
	}
	copy(f.StoreID[:], raw)
	return f, nil
}

// writeFileSynced writes a new file and syncs it, but not its directory.
func writeFileSynced(fs vfs.FS, path string, data []byte) (err error) {
	file, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

func syncDir(fs vfs.FS, dir string) (err error) {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("open the directory %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync the directory %s: %w", dir, err)
	}
	return nil
}

// exists tells whether a path exists; an error other than "not there" is reported, never taken for an answer.
func exists(fs vfs.FS, path string) (bool, error) {
	_, err := fs.Stat(path)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	}
	return false, fmt.Errorf("look for %s: %w", path, err)
}
