package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// longestPath is what every system takes as the path of a unix socket, in bytes
// (sun_path has 104 to 108, with a zero at the end).
const longestPath = 103

// listen binds the socket. remove deletes its file.
func listen(path string) (l *net.UnixListener, remove func() error, err error) {
	fail := func(err error, remedy string) error {
		return fmt.Errorf("can't open the admin socket %s: %s (%w)", path, remedy, err)
	}
	if err := clearStale(path); err != nil {
		return nil, nil, err
	}
	short, done, err := shorten(path)
	if err != nil {
		return nil, nil, fail(err, "use a --data-dir with a shorter path")
	}
	defer done()
	l, err = net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, nil, fail(err, "give this user write access to the data directory, on a file system that has sockets")
	}
	l.SetUnlinkOnClose(false) // its name may be a detour that is gone by then
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, nil, errors.Join(fail(err, "give this user write access to the data directory"), l.Close())
	}
	return l, func() error {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("can't remove the admin socket: %w", err)
		}
		return nil
	}, nil
}

// clearStale removes what a killed server left behind.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("can't open the admin socket %s: give this user access to the data directory (%w)", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("can't open the admin socket: %s is no socket, move it away", path)
	}
	c, err := dial(path)
	if err == nil {
		c.Close()
		return fmt.Errorf("can't open the admin socket: another process answers on %s, stop it", path)
	}
	if !isStale(err) {
		return fmt.Errorf("can't open the admin socket %s: another process seems to hold it, stop it (%w)", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("can't replace the admin socket %s that a stopped server left behind: give this user write access to the data directory (%w)", path, err)
	}
	return nil
}

// isStale tells from the error of a connection that nobody listens.
func isStale(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// dial connects to the socket at path.
func dial(path string) (*net.UnixConn, error) {
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	d := net.Dialer{Timeout: time.Second}
	c, err := d.Dial("unix", short)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// shorten gives a name for path that a socket's address has room for, good until
// done is called.
func shorten(path string) (short string, done func(), err error) {
	if len(path) <= longestPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	short, err = through(dir, filepath.Base(path))
	if err != nil {
		return "", nil, errors.Join(err, dir.Close())
	}
	return short, func() { dir.Close() }, nil
}
