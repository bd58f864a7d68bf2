//go:build !unix

package datadir

import "github.com/cockroachdb/pebble/v2/vfs"

// holder names the process that holds the lock; it can't be told here.
func holder(vfs.FS, string) string { return unnamedHolder }
