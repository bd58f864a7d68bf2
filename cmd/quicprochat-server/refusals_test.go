package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quicprochat/commands/datadir"
	"quicprochat/log"
	pb "quicprochat/proto/qpcv1"
)

// newDataDir makes a server's directory by init.
func newDataDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if code, _, stderr := call(t, []string{"QPC_LOG=warn"}, "init", "--data-dir", dir, "--server-name", "chat.example.org"); code != 0 || stderr != "" {
		t.Fatalf("init: code %d, %s", code, stderr)
	}
	return dir
}

// serveOnce starts a server in this process and stops it as soon as it serves.
func serveOnce(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out, errs := &notifying{fired: cancel}, new(tail)
	done := make(chan int, 1)
	go func() {
		done <- Run(ctx, append([]string{"--listen", "127.0.0.1:0"}, args...), []string{"QPC_LOG=error", "QPC_MIN_FREE=0"}, out, errs)
	}()
	select {
	case code = <-done:
	case <-time.After(time.Minute):
		t.Fatal("the server neither refused nor served within a minute")
	}
	return code, out.String(), errs.String()
}

// notifying calls fired when something is written to it.
type notifying struct {
	tail
	fired func()
}

func (n *notifying) Write(p []byte) (int, error) {
	defer n.fired()
	return n.tail.Write(p)
}

// refusedStart asserts that a start ends with the code and one sentence with
// the words.
func refusedStart(t *testing.T, wantCode int, words []string, args ...string) {
	t.Helper()
	code, stdout, stderr := serveOnce(t, args...)
	if code != wantCode || stdout != "" {
		t.Errorf("code %d, want %d; standard output %q", code, wantCode, stdout)
	}
	// Errors may have been logged before; the last line is the sentence.
	stderr = stderr[strings.LastIndexByte(stderr, '\n')+1:]
	if !strings.HasPrefix(stderr, "quicprochat-server: ") || !strings.Contains(stderr[20:], ": ") {
		t.Errorf("not one sentence with cause and remedy: %q", stderr)
	}
	for _, word := range words {
		if !strings.Contains(stderr, word) {
			t.Errorf("the refusal does not say %q: %q", word, stderr)
		}
	}
}

func TestServesAndStops(t *testing.T) {
	dir := newDataDir(t)
	code, stdout, stderr := serveOnce(t, "--data-dir", dir, "--no-create")
	if code != 0 || stderr != "" {
		t.Fatalf("code %d, %s", code, stderr)
	}
	lines := strings.Split(stdout, "\n")
	if !strings.HasPrefix(lines[0], "listening 127.0.0.1:") || !strings.HasSuffix(lines[0], " server-name chat.example.org") {
		t.Errorf("first line %q", lines[0])
	}
	if want := "clients pin " + filepath.Join(dir, "ca-cert.der"); !strings.Contains(stdout, want) {
		t.Errorf("standard output does not say %q: %s", want, stdout)
	}
	if strings.Contains(stdout, "created") {
		t.Errorf("an old directory was announced as a new one: %s", stdout)
	}
}

func TestFirstStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	code, stdout, stderr := serveOnce(t, "--data-dir", dir)
	if code != 0 || stderr != "" {
		t.Fatalf("code %d, %s", code, stderr)
	}
	for _, want := range []string{"created data directory " + dir, "the server name localhost is final", "--server-name", "clients pin"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the first start does not say %q: %s", want, stdout)
		}
	}
}

func TestRefusedConfiguration(t *testing.T) {
	dir := newDataDir(t)
	missing := filepath.Join(t.TempDir(), "missing")
	t.Run("other name", func(t *testing.T) {
		refusedStart(t, exitConfig, []string{`"chat.example.org"`, `"other.example.org"`, "final", "--server-name"}, "--data-dir", dir, "--server-name", "other.example.org")
	})
	t.Run("no create", func(t *testing.T) {
		refusedStart(t, exitConfig, []string{missing, "--no-create", "mount", "init"}, "--data-dir", missing, "--no-create")
	})
	t.Run("limits off in public", func(t *testing.T) {
		refusedStart(t, exitConfig, []string{"loopback", "127.0.0.1"}, "--data-dir", dir, "--limits", "off", "--listen", "0.0.0.0:0")
	})
	t.Run("foreign address", func(t *testing.T) {
		refusedStart(t, exitConfig, []string{"192.0.2.1:5001", "not an address of this machine"}, "--data-dir", dir, "--listen", "192.0.2.1:5001")
	})
	t.Run("half a certificate", func(t *testing.T) {
		refusedStart(t, exitConfig, []string{"absent.der", "missing"}, "--data-dir", dir, "--tls-cert", filepath.Join(dir, "absent.der"))
	})
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("--no-create left something behind: %v", err)
	}
}

func TestOccupied(t *testing.T) {
	dir := newDataDir(t)
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	missing := filepath.Join(t.TempDir(), "missing")
	t.Run("port", func(t *testing.T) {
		refusedStart(t, exitBusy, []string{udp.LocalAddr().String(), "in use", "--listen"}, "--data-dir", missing, "--listen", udp.LocalAddr().String())
	})
	t.Run("metrics port", func(t *testing.T) {
		refusedStart(t, exitBusy, []string{tcp.Addr().String(), "in use", "--metrics-listen"}, "--data-dir", missing, "--metrics-listen", tcp.Addr().String())
	})
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an occupied port made a data directory: %v", err)
	}
	t.Run("directory", func(t *testing.T) {
		held, err := datadir.Open(context.Background(), vfs.Default, dir, datadir.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		refusedStart(t, exitBusy, []string{dir, "in use", "stop"}, "--data-dir", dir)
	})
}

func TestRefusedModes(t *testing.T) {
	dir := newDataDir(t)
	for _, name := range []string{"secrets", "secrets/opaque-1", "secrets/log-key", "server-key.der"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, info.Mode().Perm()|0o040); err != nil {
				t.Fatal(err)
			}
			refusedStart(t, exitConfig, []string{path, "run chmod"}, "--data-dir", dir)
			if err := os.Chmod(path, info.Mode().Perm()); err != nil {
				t.Fatal(err)
			}
		})
	}
	if code, _, stderr := serveOnce(t, "--data-dir", dir); code != 0 {
		t.Errorf("after all was put right: code %d, %s", code, stderr)
	}
}

func TestRefusedData(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		words []string
	}{
		"newer format":   {newerFormat, []string{"format 2", "newer quicprochat-server"}},
		"missing FORMAT": {remove("FORMAT"), []string{"FORMAT is missing", "restore"}},
		"missing log":    {remove("log"), []string{"log/ is missing", "mount or restore"}},
		"missing anchor": {remove("anchor"), []string{"anchor", "restore"}},
		"missing secret": {remove("secrets/vrf-seed"), []string{"vrf-seed", "backup"}},
		"spoiled anchor": {zero("anchor"), []string{"anchor"}},
		"spoiled log":    {spoilStore, []string{"damaged", "restore"}},
		"shorter log":    {shorterLog, []string{"1 records", "anchor proves 2", "restore"}},
		"clock behind":   {logFrom(time.Hour), []string{"clock", "--accept-time"}},
		"clock ahead":    {logFrom(-8 * 24 * time.Hour), []string{"clock", "--accept-time"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newDataDir(t)
			c.spoil(t, dir)
			refusedStart(t, exitConfig, c.words, "--data-dir", dir)
		})
	}
}

// TestAcceptTime: one start may overrule the clock rule; the next one needs no
// flag when the log then has a fresh event, and the flag again when it has not.
func TestAcceptTime(t *testing.T) {
	dir := newDataDir(t)
	logFrom(-8*24*time.Hour)(t, dir)
	if code, _, stderr := serveOnce(t, "--data-dir", dir, "--accept-time"); code != 0 || stderr != "" {
		t.Errorf("code %d, %s", code, stderr)
	}
}

func newerFormat(t *testing.T, dir string) {
	t.Helper()
	format, err := log.ReadFormat(vfs.Default, dir)
	if err != nil {
		t.Fatal(err)
	}
	format.Version = log.FormatVersion + 1
	if err := log.WriteFormat(vfs.Default, dir, format); err != nil {
		t.Fatal(err)
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func zero(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, info.Size()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// spoilStore changes a byte in the middle of each file that holds records.
func spoilStore(t *testing.T, dir string) {
	t.Helper()
	spoiled := 0
	for _, pattern := range []string{"*.sst", "*.log"} {
		files, err := filepath.Glob(filepath.Join(dir, "log", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(content) < 100 {
				continue
			}
			content[60] ^= 0x10
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			spoiled++
		}
	}
	if spoiled == 0 {
		t.Fatal("the log's store has no file with records")
	}
}

// shorterLog puts an older log beside a newer anchor, as a restored backup of
// one half would.
func shorterLog(t *testing.T, dir string) {
	t.Helper()
	old := filepath.Join(t.TempDir(), "log")
	if err := os.CopyFS(old, os.DirFS(filepath.Join(dir, "log"))); err != nil {
		t.Fatal(err)
	}
	d, err := datadir.Open(context.Background(), vfs.Default, dir, datadir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := d.OpenLog(nil)
	if err != nil {
		t.Fatal(err)
	}
	first, err := l.Record(0)
	if err != nil {
		t.Fatal(err)
	}
	group := l.NewGroup()
	group.Append(first)
	pending, err := group.Commit()
	if err != nil {
		t.Fatal(err)
	}
	if err := pending.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := l.WriteAnchor(pending.Size(), pending.Root()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Close(), d.Close(), os.RemoveAll(filepath.Join(dir, "log")), os.CopyFS(filepath.Join(dir, "log"), os.DirFS(old))); err != nil {
		t.Fatal(err)
	}
}

// logFrom replaces the log by one whose first event is of another time.
func logFrom(offset time.Duration) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := rewriteGenesis(dir, time.Now().Add(offset)); err != nil {
			t.Fatal(err)
		}
	}
}

func rewriteGenesis(dir string, at time.Time) error {
	d, err := datadir.Open(context.Background(), vfs.Default, dir, datadir.Options{})
	if err != nil {
		return err
	}
	defer d.Close()
	l, _, err := d.OpenLog(nil)
	if err != nil {
		return err
	}
	record, err := l.Record(0)
	if err := errors.Join(err, l.Close()); err != nil {
		return err
	}
	var event pb.Event
	if err := proto.Unmarshal(record.Event, &event); err != nil {
		return err
	}
	event.TimeMs = uint64(at.UnixMilli())
	if record.Event, err = proto.Marshal(&event); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "log")), os.Remove(filepath.Join(dir, "anchor"))); err != nil {
		return err
	}
	if err := log.Create(vfs.Default, dir, d.StoreID, record); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	return nil
}
