package datadir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// lockFile is held by the process that uses the directory.
const lockFile = "LOCK"

// lockDir takes the directory for this process. The lock goes with the process:
// what a killed server leaves behind is not a lock.
func lockDir(fs vfs.FS, dir string) (io.Closer, error) {
	path := fs.PathJoin(dir, lockFile)
	if onDisk(fs) {
		// Locks of one process are told apart by the path: spell it one way.
		if resolved, err := filepath.EvalSymlinks(dir); err == nil {
			path = filepath.Join(resolved, lockFile)
		}
		if absolute, err := filepath.Abs(path); err == nil {
			path = absolute
		}
	}
	lock, err := fs.Lock(path)
	if err == nil {
		return lock, nil
	}
	by := ""
	switch whose(err) {
	case nobody:
		return nil, fmt.Errorf("can't lock the data directory %s: make it writable for this user (%w)", dir, err)
	case thisProcess:
		by = " by this process"
	case anotherProcess:
		by = holder(fs, path)
	}
	return nil, &Refused{
		Kind:   ErrLocked,
		Cause:  fmt.Sprintf("data directory %s is in use%s", dir, by),
		Remedy: "stop whoever uses it, or give this one another --data-dir",
		Err:    err,
	}
}

// unnamedHolder stands for a process that can't be named.
const unnamedHolder = " by another process"

type owner int

const (
	nobody owner = iota
	thisProcess
	anotherProcess
)

// whose tells who holds the lock that could not be had. A lock file that could
// not even be made gives an error with a path, and nobody holds it.
func whose(err error) owner {
	var pathError *os.PathError
	switch {
	case errors.As(err, &pathError):
		return nobody
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EACCES):
		return anotherProcess
	case strings.Contains(err.Error(), "lock held by current process"):
		return thisProcess
	}
	return nobody
}
