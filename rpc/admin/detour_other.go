//go:build !linux

package admin

import (
	"fmt"
	"os"
)

// through finds no detour on this system.
func through(*os.File, string) (string, error) {
	return "", fmt.Errorf("the path is longer than the %d bytes that a socket's address has room for", longestPath)
}
