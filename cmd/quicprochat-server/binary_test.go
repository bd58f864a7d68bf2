package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/commands/datadir"
	"quicprochat/log"
	"quicprochat/projections"
)

// builtDir is where the real program was built; TestMain removes it.
var builtDir string

// built is the real program, built once for all tests that need it.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "quicprochat-server-")
	if err != nil {
		return "", err
	}
	builtDir = dir
	program := filepath.Join(dir, "quicprochat-server")
	command := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, ".")
	command.Stderr = os.Stderr
	return program, command.Run()
})

// program builds the real binary.
func program(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatalf("go build: %v", err)
	}
	return path
}

// serverProcess starts the real binary and kills it at the end of the test.
// How full the test's disk is is no matter.
func serverProcess(t *testing.T, args ...string) *child {
	t.Helper()
	command := exec.Command(program(t), args...)
	command.Env = append(withoutSettings(os.Environ()), "QPC_MIN_FREE=0")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := startChild(ctx, command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.kill() })
	return c
}

// stopCleanly ends a server with SIGTERM and expects exit code 0.
func stopCleanly(t *testing.T, c *child) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.stop(ctx); err != nil {
		t.Fatalf("%v\n%s", err, c.log)
	}
}

// TestReadmeCommand starts and stops the command as README.md writes it. Only
// address and directory are others, by variables.
func TestReadmeCommand(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	const line = "go run ./cmd/quicprochat-server"
	if !strings.Contains(string(readme), "\n"+line+"\n") {
		t.Fatalf("README.md does not show the command %q", line)
	}
	words := strings.Fields(line)
	command := exec.Command(words[0], words[1:]...)
	command.Dir = "../.."
	dir := filepath.Join(t.TempDir(), "data")
	command.Env = append(withoutSettings(os.Environ()), "QPC_LISTEN=127.0.0.1:0", "QPC_DATA_DIR="+dir, "QPC_MIN_FREE=0")
	// The go command and the server form a group, as in a terminal, where Ctrl-C
	// reaches both.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c, err := startChild(ctx, command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-c.pid(), syscall.SIGKILL) })
	if err := syscall.Kill(-c.pid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.ended:
		// An interrupted go command ends with 1 itself, but tells the exit
		// status of a program that did not end with 0.
		if said := c.log.String(); !strings.Contains(said, "stopping") || strings.Contains(said, "exit status") {
			t.Errorf("it did not stop cleanly: %s", said)
		}
	case <-ctx.Done():
		t.Fatalf("it did not stop: %s", c.log)
	}
	if _, err := os.Stat(filepath.Join(dir, "FORMAT")); err != nil {
		t.Error(err)
	}
}

// TestHangup: SIGHUP to the real program reads the certificate again; one that
// can't be used leaves the server as it was.
func TestHangup(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	c := serverProcess(t, "--data-dir", dir, "--listen", "127.0.0.1:0")
	hangup := func(want string) {
		t.Helper()
		if err := c.command.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); !strings.Contains(c.log.String(), want); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no %q in the log: %s", want, c.log)
			}
		}
	}
	hangup("certificate loaded")
	if err := os.WriteFile(filepath.Join(dir, "server-cert.der"), []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangup("the one in use stays")
	p, err := newPerson(t.Context(), "alice", c.address, dir)
	if err != nil {
		t.Fatalf("after a failed reload: %v", err)
	}
	p.close()
	stopCleanly(t, c)
}

// viewsState is what the views of a stopped server amount to.
type viewsState struct {
	cursor uint64
	digest projections.Hash
}

// readViews opens the views of a stopped server.
func readViews(t *testing.T, dataDir string) viewsState {
	t.Helper()
	d, err := datadir.Open(context.Background(), vfs.Default, dataDir, datadir.Options{NoCreate: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, _, err := d.OpenLog(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	v, err := projections.Open(vfs.Default, dataDir, projections.Options{LogSize: l.Size()})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	s := v.Snapshot()
	defer s.Close()
	digest, err := projections.Digest(s)
	if err != nil {
		t.Fatal(err)
	}
	return viewsState{v.Cursor(), digest}
}

// foldViews folds the first size events of a stopped server's log in memory.
func foldViews(t *testing.T, dataDir string, size uint64) viewsState {
	t.Helper()
	d, err := datadir.Open(context.Background(), vfs.Default, dataDir, datadir.Options{NoCreate: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, _, err := d.OpenLog(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	v, err := projections.DropAndRecreate(vfs.NewMem(), "folded", projections.Options{LogSize: size})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	batch := v.NewBatch()
	err = l.Iterate(0, size, func(index uint64, r log.Record) error {
		event, err := projections.DecodeEvent(r.Event)
		if err != nil {
			return err
		}
		return projections.Apply(batch, &projections.Entry{Index: index, Leaf: r.Leaf, Opening: r.Opening, Raw: r.Event, Event: event})
	})
	if err == nil {
		err = batch.Commit()
	}
	if err != nil {
		t.Fatal(err)
	}
	s := v.Snapshot()
	defer s.Close()
	digest, err := projections.Digest(s)
	if err != nil {
		t.Fatal(err)
	}
	return viewsState{v.Cursor(), digest}
}
