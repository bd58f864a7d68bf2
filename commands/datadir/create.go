package datadir

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/log"
)

// newDir is where a directory is made before it is moved into place.
const newDir = ".new"

// owned are the names that a server keeps in its directory besides FORMAT and
// log/. Where one of them is found without these two, something was lost, and
// making a new server would bury it.
var owned = []string{"anchor", "blobs", "guard", "guard.evidence", vkeyFile, secretsDir, "snapshots", "views"}

// state is what a directory looks like before anything is changed.
type state int

const (
	// stateNew: neither FORMAT nor log/, nor anything else that a server owns.
	stateNew state = iota
	// stateUnfinished: .new/ is complete, but not all of it is in its place.
	stateUnfinished
	// stateReady: a server lives here.
	stateReady
)

// inspect finds out the state of the directory. It refuses one that was a
// server's but lacks what makes it one.
func inspect(fs vfs.FS, dir string) (state, error) {
	format, err := exists(fs, fs.PathJoin(dir, log.FormatFile))
	if err != nil {
		return 0, err
	}
	hasLog, err := exists(fs, fs.PathJoin(dir, "log"))
	if err != nil {
		return 0, err
	}
	complete, err := exists(fs, fs.PathJoin(dir, newDir, log.FormatFile))
	if err != nil {
		return 0, err
	}
	switch {
	case format && hasLog:
		return stateReady, nil
	case format:
		return 0, incomplete(dir, "log/ is missing although FORMAT is there")
	case complete:
		return stateUnfinished, nil
	case hasLog:
		return 0, incomplete(dir, "FORMAT is missing although log/ is there")
	}
	for _, name := range owned {
		found, err := exists(fs, fs.PathJoin(dir, name))
		if err != nil {
			return 0, err
		}
		if found {
			return 0, incomplete(dir, fmt.Sprintf("FORMAT and log/ are missing although %s is there", name))
		}
	}
	return stateNew, nil
}

func incomplete(dir, how string) error {
	return &Refused{
		Kind:   ErrDamaged,
		Cause:  fmt.Sprintf("data directory %s is incomplete, %s", dir, how),
		Remedy: "mount or restore the whole directory; for a new server, use an empty one",
	}
}

// create makes a new server's files inside .new/. The last one is its FORMAT,
// written when all others are durable.
func create(ctx context.Context, fs vfs.FS, dir, serverName string) error {
	building := fs.PathJoin(dir, newDir)
	if err := fs.RemoveAll(building); err != nil {
		return err
	}
	if err := makeDir(fs, building, 0o700); err != nil {
		return err
	}
	secrets, err := newSecrets()
	if err != nil {
		return err
	}
	if err := writeSecrets(fs, fs.PathJoin(building, secretsDir), secrets); err != nil {
		return err
	}
	format := log.Format{Version: log.FormatVersion, StoreID: randomID()}
	if err := writeGenesis(fs, building, serverName, format.StoreID, secrets); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := syncDir(fs, building); err != nil {
		return err
	}
	return log.WriteFormat(fs, building, format)
}

// finish moves a complete .new/ into place, FORMAT last. It may be repeated
// after a crash at any point.
func finish(fs vfs.FS, dir string) error {
	building := fs.PathJoin(dir, newDir)
	names, err := fs.List(building)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		// FORMAT is last; what it was written through may lie beside it.
		if strings.HasPrefix(name, log.FormatFile) {
			continue
		}
		if err := move(fs, fs.PathJoin(building, name), fs.PathJoin(dir, name)); err != nil {
			return err
		}
	}
	if err := syncDir(fs, dir); err != nil {
		return err
	}
	if err := syncDir(fs, building); err != nil {
		return err
	}
	if err := fs.Rename(fs.PathJoin(building, log.FormatFile), fs.PathJoin(dir, log.FormatFile)); err != nil {
		return err
	}
	return syncDir(fs, dir)
}

// move renames one entry. An entry that stands in both places was moved by an
// earlier try whose removal of the old name was lost in a power cut: the one in
// place is complete, because its content was durable before.
func move(fs vfs.FS, from, to string) error {
	there, err := exists(fs, to)
	if err != nil {
		return err
	}
	if there {
		return fs.RemoveAll(from)
	}
	return fs.Rename(from, to)
}

// sweep removes what a finished creation left of .new/.
func sweep(fs vfs.FS, dir string) error {
	building := fs.PathJoin(dir, newDir)
	there, err := exists(fs, building)
	if !there || err != nil {
		return err
	}
	return errors.Join(fs.RemoveAll(building), syncDir(fs, dir))
}

// notFound refuses to create.
func notFound(dir string, s state) error {
	cause := fmt.Sprintf("there is no server in data directory %s", dir)
	if s == stateUnfinished {
		cause = fmt.Sprintf("the creation of data directory %s was interrupted", dir)
	}
	return &Refused{
		Kind:   ErrNotFound,
		Cause:  cause + ", and --no-create forbids to make one",
		Remedy: "mount the disk that it should be on, or create it with quicprochat-server init --data-dir " + quote(dir),
	}
}

// quote makes a path fit for a shell command in a remedy.
func quote(path string) string {
	if strings.ContainsAny(path, " \t\n\"'$&;()<>|*?`\\") {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}
