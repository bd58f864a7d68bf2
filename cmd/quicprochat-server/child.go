package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a server that runs as a process of its own.
type child struct {
	command *exec.Cmd
	address string // where it listens
	log     *tail
	ended   chan struct{}
	result  error // of Wait; written before ended is closed
}

// startSelf runs this program as a server and waits until it serves.
func startSelf(ctx context.Context, dataDir, listen string) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("can't find this program's file: %w", err)
	}
	// A demonstration works on a nearly full disk, too, and needs no ballast.
	command := exec.Command(program, "serve", "--data-dir", dataDir, "--listen", listen, "--min-free", "0")
	command.Env = append(withoutSettings(os.Environ()), "QPC_LOG=info")
	return startChild(ctx, command)
}

// withoutSettings drops the variables that configure a server: what a child
// does follows from its flags alone.
func withoutSettings(environ []string) []string {
	var kept []string
	for _, entry := range environ {
		if !strings.HasPrefix(entry, "QPC_") && !strings.HasPrefix(entry, "RUST_LOG=") {
			kept = append(kept, entry)
		}
	}
	return kept
}

// startChild starts a server and waits until it says where it listens. When it
// does not, it is ended.
func startChild(ctx context.Context, command *exec.Cmd) (*child, error) {
	c := &child{command: command, log: new(tail), ended: make(chan struct{})}
	command.Stderr = c.log
	command.WaitDelay = waitDelay
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("can't start the server: %w", err)
	}
	address := make(chan string, 1)
	go func() {
		readAnnouncement(stdout, address)
		c.result = command.Wait()
		close(c.ended)
	}()
	select {
	case c.address = <-address:
		if c.address != "" {
			return c, nil
		}
		<-c.ended
		return nil, fmt.Errorf("the server ended instead of serving (%v): %s", c.command.ProcessState, c.log)
	case <-ctx.Done():
		c.kill()
		return nil, fmt.Errorf("the server did not come up: %w", ctx.Err())
	}
}

// readAnnouncement gives the address of the first line, or "" when there is
// none, and reads on until the process ends, so that it never blocks.
func readAnnouncement(stdout io.Reader, address chan<- string) {
	reader := bufio.NewReader(stdout)
	line, _ := reader.ReadString('\n') // an error shows as a line without fields
	if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "listening" {
		address <- fields[1]
	} else {
		address <- ""
	}
	_, _ = io.Copy(io.Discard, reader)
}

func (c *child) pid() int { return c.command.Process.Pid }

// kill ends the process with SIGKILL and tells how it ended. It may be called
// again, and on a child that never came to be.
func (c *child) kill() (state string, err error) {
	if c == nil {
		return "", nil
	}
	if err := c.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return "", err
	}
	<-c.ended
	return c.command.ProcessState.String(), nil
}

// stop asks the process to end and expects that it ends cleanly.
func (c *child) stop(ctx context.Context) error {
	if err := c.command.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-c.ended:
		if c.result != nil {
			return fmt.Errorf("the server did not stop cleanly: %w", c.result)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the server did not stop: %w", ctx.Err())
	}
}

// lastWords are the end of what the server logged.
func (c *child) lastWords() string {
	if c == nil {
		return ""
	}
	return c.log.String()
}

// waitDelay bounds how long the pipes of a dead child are waited for.
const waitDelay = 5 * time.Second

// tail keeps the last lines written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// tailSize is how much of a child's log is kept, in bytes.
const tailSize = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if excess := len(t.text) - tailSize; excess > 0 {
		t.text = t.text[excess:]
		if end := bytes.IndexByte(t.text, '\n'); end >= 0 {
			t.text = t.text[end+1:]
		}
	}
	return len(p), nil
}

// String gives what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
