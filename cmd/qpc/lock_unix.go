//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockPart keeps two qpc processes from changing one part of a home at once; it
// waits for the other and returns the unlock. Where the file system can't lock,
// the person is trusted not to run two.
func (h *home) lockPart(name string) (unlock func()) {
	file, err := os.OpenFile(h.path(name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return func() {}
	}
	_ = unix.Flock(int(file.Fd()), unix.LOCK_EX)
	return func() { _ = file.Close() }
}
