package datadir

import (
	"errors"
	"fmt"
	"os"
)

// others are the permission bits of everybody but the owner.
const others os.FileMode = 0o077

// CheckPrivate refuses (ErrMode) a file or folder of the operating system's
// file system that others than its owner may read, write or enter: secrets/
// and what is in it, and the key of a certificate. A symbolic link counts as
// what it leads to. A file that does not exist is fine.
func CheckPrivate(path string) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode()&os.ModeSymlink != 0 {
		info, err = os.Stat(path)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("can't check who may read %s: %w", path, err)
	}
	if info.Mode().Perm()&others == 0 {
		return nil
	}
	mode := "600"
	if info.IsDir() {
		mode = "700"
	}
	return &Refused{
		Kind:   ErrMode,
		Cause:  fmt.Sprintf("%s is a secret, but its mode %04o lets others than its owner at it", path, info.Mode().Perm()),
		Remedy: fmt.Sprintf("run chmod %s %s", mode, path),
	}
}
