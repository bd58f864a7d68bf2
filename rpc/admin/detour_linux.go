package admin

import (
	"fmt"
	"os"
)

// through names a file by the open folder that it is in.
func through(dir *os.File, name string) (string, error) {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name), nil
}
