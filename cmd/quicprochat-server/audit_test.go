package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// auditProgram builds qpc-audit.
func auditProgram(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "qpc-audit")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", name, "../qpc-audit").CombinedOutput(); err != nil {
		t.Fatalf("go build ../qpc-audit: %v\n%s", err, out)
	}
	return name
}

// background is a program that prints lines, until the test ends.
type background struct {
	t       *testing.T
	command *exec.Cmd
	ended   chan struct{}
	stderr  *tail

	mu    sync.Mutex
	lines []string
}

func startBackground(t *testing.T, program string, args ...string) *background {
	t.Helper()
	b := &background{t: t, command: exec.Command(program, args...), ended: make(chan struct{}), stderr: new(tail)}
	b.command.Env = withoutSettings(os.Environ())
	b.command.Stderr = b.stderr
	out, err := b.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(b.ended)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			b.mu.Lock()
			b.lines = append(b.lines, scanner.Text())
			b.mu.Unlock()
		}
		_ = b.command.Wait()
	}()
	t.Cleanup(func() { _ = b.command.Process.Kill(); <-b.ended })
	return b
}

// stop interrupts the program and expects that it ends with status 0.
func (b *background) stop() {
	b.t.Helper()
	_ = b.command.Process.Signal(syscall.SIGTERM)
	<-b.ended
	if code := b.command.ProcessState.ExitCode(); code != 0 {
		b.t.Errorf("%v ended with %d: %s", b.command.Args, code, b.stderr)
	}
}

// await waits until the lines printed from number from on satisfy enough.
func (b *background) await(what string, enough func(lines []string) bool) []string {
	b.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b.mu.Lock()
		lines := b.lines
		b.mu.Unlock()
		if enough(lines) {
			return lines
		}
		ended := false
		select {
		case <-b.ended:
			ended = true
		default:
		}
		if ended || time.Now().After(deadline) {
			b.t.Fatalf("%v: no %s within a minute:\n%s\n%s", b.command.Args, what, strings.Join(lines, "\n"), b.stderr)
		}
	}
}

// verdict is a line of qpc-audit follow --json.
type verdict struct {
	Verdict  string `json:"verdict"`
	Error    string `json:"error"`
	Size     uint64 `json:"size"`
	Cosigned int    `json:"cosigned"`
}

func verdicts(t *testing.T, lines []string) (all []verdict) {
	t.Helper()
	for _, line := range lines {
		var v verdict
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, v)
	}
	return all
}

// auditWorld is a server that shows its log, a witness and an auditor.
type auditWorld struct {
	t                                  *testing.T
	audit, dir, url, kt, witnessesFile string
	listen                             string
	witness                            *background
	witnessKey                         string
}

func newAuditWorld(t *testing.T) *auditWorld {
	w := &auditWorld{t: t, audit: auditProgram(t), dir: filepath.Join(t.TempDir(), "data"), listen: "127.0.0.1:0"}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.kt = listener.Addr().String()
	w.url = "http://" + w.kt
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := call(t, nil, "init", "--data-dir", w.dir); code != 0 {
		t.Fatal(stderr)
	}
	files := t.TempDir()
	w.witness = startBackground(t, w.audit, "witness", "--url", w.url, "--vkey", w.vkey(), "--listen", "127.0.0.1:0",
		"--key", filepath.Join(files, "witness.key"), "--name", "witness.example.net", "--state", filepath.Join(files, "witness"))
	said := w.witness.await("key and address", func(lines []string) bool { return len(lines) == 2 })
	w.witnessKey = strings.TrimPrefix(said[0], "witness ")
	w.witnessesFile = filepath.Join(files, "witnesses")
	text := strings.TrimPrefix(said[1], "listening ") + " " + w.witnessKey + "\n"
	if err := os.WriteFile(w.witnessesFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *auditWorld) vkey() string { return filepath.Join(w.dir, "log.vkey") }

func (w *auditWorld) start() *child {
	w.t.Helper()
	c := serverProcess(w.t, "--data-dir", w.dir, "--listen", w.listen, "--limits", "off", "--no-create", "--kt-listen", w.kt, "--witness", w.witnessesFile)
	w.listen = c.address
	return c
}

// checkpoint asks for the newest note that the server shows.
func (w *auditWorld) checkpoint() (status int, note string) {
	answer, err := http.Get(w.url + "/checkpoint")
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// awaitCosigned waits until a note is shown that the witness has signed and that
// has at least a size.
func (w *auditWorld) awaitCosigned(size uint64, server *child) uint64 {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		status, note := w.checkpoint()
		var n uint64
		if lines := strings.Split(note, "\n"); status == http.StatusOK && len(lines) > 3 {
			fmt.Sscan(lines[1], &n)
			if n >= size && strings.Contains(note, "— witness.example.net ") {
				return n
			}
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("no cosigned note of size %d: %d %s\n%s\n%s", size, status, note, w.witness.stderr, server.log)
		}
	}
}

// TestAuditThroughKills: an auditor and a witness beside a loaded server stay
// satisfied through kill -9 and restarts. The same server, restored from an old
// copy of its files, signs nothing, because the witness knows better, and says
// how to go on; with the newest copy put back it goes on.
func TestAuditThroughKills(t *testing.T) {
	if kills() == 0 {
		return
	}
	t.Parallel() // most of it is waiting
	w := newAuditWorld(t)
	server := w.start()
	follow := startBackground(t, w.audit, "follow", "--json", "--interval", "1s", "--url", w.url, "--vkey", w.vkey(),
		"--witness", w.witnessKey, "--state", filepath.Join(t.TempDir(), "follow"))
	satisfied := func(more int) {
		t.Helper()
		before := len(follow.await("a line", func(lines []string) bool { return true }))
		follow.await("satisfied checks", func(lines []string) bool {
			n := 0
			for _, v := range verdicts(t, lines[before:]) {
				if v.Verdict == "satisfied" && v.Cosigned == 1 {
					n++
				}
			}
			return n >= more
		})
	}
	l := startLoad(t, server.address, w.dir)
	for range max(1, kills()/10) {
		l.awaitProgress(server)
		satisfied(1)
		if _, err := server.kill(); err != nil {
			t.Fatal(err)
		}
		server = w.start()
	}
	l.awaitProgress(server)
	satisfied(2)
	l.finish()
	w.checkFollow(follow)

	stopCleanly(t, server)
	old := filepath.Join(t.TempDir(), "old")
	if err := os.CopyFS(old, os.DirFS(w.dir)); err != nil {
		t.Fatal(err)
	}
	server = w.start()
	size := w.awaitCosigned(1, server)
	p := loadPerson(t.Context(), t, "latecomer", server.address, w.dir) // a key that the old copy does not know
	p.close()
	w.awaitCosigned(size+1, server)
	stopCleanly(t, server)
	w.restoreOld(old)
}

// checkFollow: nothing but satisfaction, and silence while the server was away.
func (w *auditWorld) checkFollow(follow *background) {
	w.t.Helper()
	follow.stop()
	last := uint64(0)
	for _, v := range verdicts(w.t, follow.lines) {
		// Right after a start the newest note may not be cosigned yet.
		pending := v.Verdict == "unsettled" && strings.HasPrefix(v.Error, "policy:")
		if v.Verdict != "satisfied" && v.Verdict != "unreachable" && !pending {
			w.t.Errorf("follow said %+v", v)
		}
		if v.Size > 0 && v.Size < last {
			w.t.Errorf("follow saw %d leaves after %d", v.Size, last)
		}
		last = max(last, v.Size)
	}
	w.t.Logf("%d checks, %d leaves", len(follow.lines), last)
}

// restoreOld puts an old copy in place, and then the newest one back.
func (w *auditWorld) restoreOld(old string) {
	newest := w.dir + ".newest"
	for _, step := range [][2]string{{w.dir, newest}, {old, w.dir}} {
		if err := os.Rename(step[0], step[1]); err != nil {
			w.t.Fatal(err)
		}
	}
	restrictCopy(w.t, newest, w.dir)
	server := w.start()
	if said := server.log.String(); !strings.Contains(said, "no checkpoint is signed any more") || !strings.Contains(said, "witness.example.net has cosigned") ||
		!strings.Contains(said, "put the newest copy of the data directory back") || !strings.Contains(said, "admin new-generation --accept-loss") {
		w.t.Errorf("a server restored from an old copy says:\n%s", said)
	}
	if status, note := w.checkpoint(); status == http.StatusOK {
		w.t.Errorf("it shows a checkpoint:\n%s", note)
	}
	stopCleanly(w.t, server)
	if err := os.RemoveAll(w.dir); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(newest, w.dir); err != nil {
		w.t.Fatal(err)
	}
	server = w.start()
	size := w.awaitCosigned(1, server)
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	command := exec.CommandContext(ctx, w.audit, "follow", "--once", "--url", w.url, "--vkey", w.vkey(), "--witness", w.witnessKey, "--state", filepath.Join(w.t.TempDir(), "late"))
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err != nil || !strings.Contains(out.String(), "satisfied") {
		w.t.Errorf("an audit after the newest copy is back, %d leaves: %v\n%s", size, err, &out)
	}
	stopCleanly(w.t, server)
	w.witness.stop()
}

// restrictCopy gives files the modes of their originals: a copy loses them.
func restrictCopy(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.Walk(from, func(name string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rest, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(filepath.Join(to, rest)); err != nil {
			return nil // made later
		}
		return os.Chmod(filepath.Join(to, rest), info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}
