//go:build unix

package datadir

import (
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// holder names the process that holds the lock, " by process 4711", or says
// less when that can't be told. It must not be called while this process itself
// holds the lock: closing the lock file gives such a lock up.
func holder(fs vfs.FS, path string) string {
	if !onDisk(fs) {
		return unnamedHolder
	}
	f, err := os.Open(path)
	if err != nil {
		return unnamedHolder
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return unnamedHolder
	}
	if lock.Type == unix.F_UNLCK || lock.Pid <= 0 {
		return unnamedHolder
	}
	return fmt.Sprintf(" by process %d", lock.Pid)
}
