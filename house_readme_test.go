package quicprochat_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReadmeQuickStartRuns copies the source tree and runs the quick start as it
// stands in README.md, only on another port.
func TestReadmeQuickStartRuns(t *testing.T) {
	copied := copyTree(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	address := freeAddress(t)
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", readmeBlock(t, "<!-- quickstart"))
	command.Dir = copied
	command.Env = append(os.Environ(), "QPC_LISTEN="+address, "QPC_SERVER="+address, "GOWORK=off")
	command.WaitDelay = 10 * time.Second
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("the quick start failed: %v\n%s", err, out)
	}
	for _, want := range []string{"Registered alice", "Logged in as bob", "Sent to bob", "alice: Hello Bob"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the quick start did not print %q:\n%s", want, out)
		}
	}
}

// readmeBlock returns the first code block behind a marker.
func readmeBlock(t *testing.T, marker string) string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), marker)
	_, rest, opened := strings.Cut(rest, "```sh\n")
	block, _, closed := strings.Cut(rest, "```")
	if !found || !opened || !closed {
		t.Fatalf("README.md has no code block behind %q", marker)
	}
	return block
}

// TestReadmeShowsTheTwoCommands: the main command and the test command stand
// there as the checks run them.
func TestReadmeShowsTheTwoCommands(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	ci, err := os.ReadFile(".ci/run")
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"go run ./cmd/quicprochat-server", "go test ./..."} {
		if !strings.Contains(string(readme), "\n```sh\n"+command+"\n```\n") {
			t.Errorf("README.md does not show %q as a block of its own", command)
		}
	}
	if first := strings.Index(string(ci), "\ngo "); first < 0 || !strings.HasPrefix(string(ci)[first:], "\ngo test ./...\n") {
		t.Error(".ci/run does not call the README's test command first")
	}
}

// copyTree copies what git knows or would know into a temporary folder.
func copyTree(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	root := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		content, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue // deleted, and not yet committed so
		}
		if err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(target, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// freeAddress is a loopback address that nobody listens on. It lies below the ports
// that sockets get which ask for none: one of those could have it by the time that
// the server is built.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		if socket, err := net.ListenPacket("udp4", address); err == nil {
			socket.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}
