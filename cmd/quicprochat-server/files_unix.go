//go:build unix

package main

import "golang.org/x/sys/unix"

// restrictFiles makes every file of this process private to its user unless its
// maker asks otherwise: log and views hold who writes to whom.
func restrictFiles() { unix.Umask(0o077) }
