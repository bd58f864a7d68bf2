//go:build unix

package datadir

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestModesOfANewDirectory: private is private, whatever the umask.
func TestModesOfANewDirectory(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "a", "data")
	created(t, vfs.Default, dir, "")
	want := map[string]fs.FileMode{".": 0o700, "secrets": 0o700, "log.vkey": 0o644, "log": 0o700}
	for _, name := range allSecrets {
		want["secrets/"+name] = 0o600
	}
	for name, mode := range want {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %04o, want %04o", name, info.Mode().Perm(), mode)
		}
	}
}

func TestWrongModesStopTheStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	created(t, vfs.Default, dir, "")
	for _, name := range append([]string{""}, allSecrets...) {
		path := filepath.Join(dir, "secrets", name)
		good := fs.FileMode(0o600)
		if name == "" {
			good = 0o700
		}
		for _, bad := range []fs.FileMode{0o040, 0o004, 0o020, 0o002, 0o010, 0o066} {
			if err := os.Chmod(path, good|bad); err != nil {
				t.Fatal(err)
			}
			_, err := Open(context.Background(), vfs.Default, dir, Options{})
			refused(t, err, ErrMode, path, fmt.Sprintf("chmod %o %s", good, path))
		}
		if err := os.Chmod(path, good); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, vfs.Default, dir, Options{})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCheckPrivate(t *testing.T) {
	dir := t.TempDir()
	key, link := filepath.Join(dir, "server-key.der"), filepath.Join(dir, "link.der")
	if err := CheckPrivate(key); err != nil {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(key, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(key, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{key, link} {
		if err := CheckPrivate(path); err != nil {
			t.Errorf("%s, mode 0600: %v", path, err)
		}
	}
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{key, link} {
		refused(t, CheckPrivate(path), ErrMode, "chmod 600 "+path)
	}
}

func TestLocked(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"disk": vfs.Default, "memory": vfs.NewMem()} {
		t.Run(name, func(t *testing.T) {
			dir := "data"
			if name == "disk" {
				dir = t.TempDir()
			}
			d := open(t, fs, dir, Options{})
			_, err := Open(context.Background(), fs, dir, Options{})
			refused(t, err, ErrLocked, dir, "--data-dir", "stop")
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = open(t, fs, dir, Options{})
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestLockedByAnotherProcess runs this test binary a second time: the refusal
// names the process, its end frees the lock, and one directory is one directory
// however its path is spelled.
func TestLockedByAnotherProcess(t *testing.T) {
	if dir := os.Getenv("DATADIR_TEST_HOLD"); dir != "" {
		d := open(t, vfs.Default, dir, Options{})
		fmt.Println("holding")
		os.Stdin.Read(make([]byte, 1)) // until the pipe is closed, or SIGKILL
		_ = d
		return
	}
	dir := t.TempDir()
	holder := exec.Command(os.Args[0], "-test.run=^TestLockedByAnotherProcess$")
	holder.Env = append(os.Environ(), "DATADIR_TEST_HOLD="+dir)
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "holding\n" {
		t.Fatalf("the other process said %q (%v)", line, err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, link} {
		_, err = Open(context.Background(), vfs.Default, path, Options{})
		refused(t, err, ErrLocked, path, fmt.Sprintf("process %d", holder.Process.Pid))
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // it was killed
	d := open(t, vfs.Default, dir, Options{})
	openLog(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestUnwritable: what the system refuses is told with a remedy as well.
func TestUnwritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(context.Background(), vfs.Default, filepath.Join(file, "data"), Options{})
	if err == nil || !strings.Contains(err.Error(), "check the disk") {
		t.Errorf("a directory below a file: %v", err)
	}
}
