package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quicprochat/kt"
	"quicprochat/rpc/transparency"
)

// testWitness is the witness of a fake log, in this process.
type testWitness struct {
	*witness
	log    *fakeLog
	dir    string
	stderr bytes.Buffer
}

func newTestWitness(t *testing.T, l *fakeLog) *testWitness {
	t.Helper()
	w := &testWitness{log: l, dir: t.TempDir()}
	w.open(l.serve())
	t.Cleanup(func() { w.audit.close() })
	return w
}

// open starts the witness on its files, as a new process does.
func (w *testWitness) open(url string) {
	t := w.log.t
	t.Helper()
	key, err := openWitnessKey(filepath.Join(w.dir, "key"), "witness.example.net")
	if err != nil {
		t.Fatal(err)
	}
	flags := auditFlags{sourceFlags: sourceFlags{URL: url}, trustFlags: trustFlags{VKey: w.log.vkey(), Freshness: time.Hour}, State: filepath.Join(w.dir, "state")}
	audit, err := flags.auditor(&app{stderr: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := openMetrics("", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	w.witness = &witness{ctx: t.Context(), audit: audit, key: key, metrics: metrics, stderr: &w.stderr}
}

// submit posts a request.
func (w *testWitness) submit(a kt.AddCheckpoint) (status int, body, contentType string) {
	recorded := httptest.NewRecorder()
	w.ServeHTTP(recorded, httptest.NewRequest(http.MethodPost, "/add-checkpoint", bytes.NewReader(a.Append(nil))))
	return recorded.Code, recorded.Body.String(), recorded.Header().Get("Content-Type")
}

func (l *fakeLog) consistency(from, to uint64) []kt.Hash {
	l.t.Helper()
	path, err := l.tree.ConsistencyProof(from, to)
	if err != nil {
		l.t.Fatal(err)
	}
	var hashes []kt.Hash
	for _, h := range path {
		hashes = append(hashes, kt.Hash(h))
	}
	return hashes
}

// TestWitnessRules goes through the answers of C2SP tlog-witness.
func TestWitnessRules(t *testing.T) {
	l := newFakeLog(t)
	w := newTestWitness(t, l)
	l.grow(40)
	first, size := l.signed, l.size()
	cosigned := func(status int, body string, signed []byte) {
		t.Helper()
		if status != http.StatusOK {
			t.Fatalf("%d %s\n%s", status, body, &w.stderr)
		}
		if _, added, err := kt.AddCosignature(signed, []byte(body), w.key.Witness); err != nil || !added {
			t.Fatalf("%q is no cosignature: %v", body, err)
		}
		if got := w.audit.folder.state.Vouched; got != string(signed) {
			t.Errorf("vouched for %q", got)
		}
	}
	want := func(a kt.AddCheckpoint, status int, body string) {
		t.Helper()
		got, said, kind := w.submit(a)
		if got != status || (body != "" && said != body) || (status == http.StatusConflict) != (kind == "text/x.tlog.size") {
			t.Errorf("%d %q (%s), want %d %q\n%s", got, said, kind, status, body, &w.stderr)
		}
	}
	want(kt.AddCheckpoint{Old: 7, Note: first}, http.StatusConflict, "0\n")
	want(kt.AddCheckpoint{Old: size + 1, Note: first}, http.StatusBadRequest, "")
	want(kt.AddCheckpoint{Old: 0, Proof: []kt.Hash{{}}, Note: first}, http.StatusUnprocessableEntity, "")
	want(kt.AddCheckpoint{Old: 0, Note: []byte("no note\n")}, http.StatusBadRequest, "")
	want(kt.AddCheckpoint{Old: 0, Note: l.sign("other.example.org/1", size, kt.Hash{})}, http.StatusNotFound, "")
	right := l.key
	l.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	forged := l.noteAt(size)
	l.key = right
	want(kt.AddCheckpoint{Old: 0, Note: forged}, http.StatusForbidden, "")

	status, body, _ := w.submit(kt.AddCheckpoint{Note: first})
	cosigned(status, body, first)
	status, body, _ = w.submit(kt.AddCheckpoint{Old: size, Note: first}) // again
	cosigned(status, body, first)
	l.grow(30)
	second, grown := l.signed, l.size()
	want(kt.AddCheckpoint{Note: second}, http.StatusConflict, fmt.Sprintf("%d\n", size))
	want(kt.AddCheckpoint{Old: size, Note: second}, http.StatusUnprocessableEntity, "")
	want(kt.AddCheckpoint{Old: size, Proof: l.consistency(size-1, grown), Note: second}, http.StatusUnprocessableEntity, "")
	want(kt.AddCheckpoint{Old: size, Note: l.sign(fakeOrigin, size, kt.Hash{1})}, http.StatusConflict, fmt.Sprintf("%d\n", size))

	// What was cosigned is known after a restart.
	if err := w.audit.close(); err != nil {
		t.Fatal(err)
	}
	w.open(l.serve())
	status, body, _ = w.submit(kt.AddCheckpoint{Old: size, Proof: l.consistency(size, grown), Note: second})
	cosigned(status, body, second)
	want(kt.AddCheckpoint{Old: grown, Note: first}, http.StatusBadRequest, "")

	recorded := httptest.NewRecorder()
	w.ServeHTTP(recorded, httptest.NewRequest(http.MethodGet, "/add-checkpoint", nil))
	if recorded.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", recorded.Code)
	}
	recorded = httptest.NewRecorder()
	w.ServeHTTP(recorded, httptest.NewRequest(http.MethodPost, "/other", nil))
	if recorded.Code != http.StatusNotFound {
		t.Errorf("another path: %d", recorded.Code)
	}
}

// TestWitnessAudits: a log that is consistent and lies is not cosigned.
func TestWitnessAudits(t *testing.T) {
	l := newFakeLog(t)
	w := newTestWitness(t, l)
	l.grow(40)
	size := l.size()
	if status, body, _ := w.submit(kt.AddCheckpoint{Note: l.signed}); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	before, err := os.ReadFile(filepath.Join(w.dir, "state", stateFile))
	if err != nil {
		t.Fatal(err)
	}
	h := l.head()
	h.MapRoot[5] ^= 1
	l.force(kt.AppendHeadLeaf(nil, h))
	l.publish()
	status, body, _ := w.submit(kt.AddCheckpoint{Old: size, Proof: l.consistency(size, size+1), Note: l.signed})
	if status != http.StatusForbidden || strings.Contains(body, "—") {
		t.Errorf("%d %s", status, body)
	}
	if !strings.Contains(w.stderr.String(), "EVIDENCE AGAINST THE SERVER (map)") {
		t.Errorf("the operator is told %q", &w.stderr)
	}
	if after, _ := os.ReadFile(filepath.Join(w.dir, "state", stateFile)); !bytes.Equal(before, after) {
		t.Error("the state went on")
	}
	// The log out of reach: come again.
	l.tell(func(string, []byte) []byte { return nil })
	l.show(l.noteAt(size))
	if status, _, _ := w.submit(kt.AddCheckpoint{Old: size, Proof: l.consistency(size, size+1), Note: l.noteAt(size + 1)}); status != http.StatusForbidden {
		t.Errorf("a log that does not serve what it signed: %d", status)
	}
}

// TestServersWitnessClient: the server's own client and this witness understand
// each other.
func TestServersWitnessClient(t *testing.T) {
	l := newFakeLog(t)
	w := newTestWitness(t, l)
	served := httptest.NewServer(w)
	defer served.Close()
	policy, err := transparency.ParseWitnessPolicy(served.URL + " " + w.key.String())
	if err != nil {
		t.Fatal(err)
	}
	cosigned := make(chan []byte, 10)
	client := transparency.NewWitnesses(transparency.WitnessOptions{
		WitnessPolicy: policy, Every: time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		Prove:    func(from, to uint64) ([][]byte, error) { return l.tree.ConsistencyProof(from, to) },
		Cosigned: func(signed []byte, _ uint64) { cosigned <- signed },
		Stop:     func(err *transparency.KnowsBetterError) { t.Error(err) },
	})
	defer client.Close()
	for range 3 {
		l.grow(20)
		client.Offer(l.signed, l.size(), nil)
		select {
		case got := <-cosigned:
			if p, err := kt.ParsePolicy(1, []string{w.key.String()}); err != nil || p.Met(got) != nil {
				t.Errorf("%v\n%s", err, got)
			}
		case <-time.After(time.Minute):
			t.Fatalf("no cosignature: %s", &w.stderr)
		}
	}
	// An old copy of the log asks before it signs anything.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := client.Ask(ctx, l.noteAt(2), 2); err == nil || !strings.Contains(err.Error(), "old copy") {
		t.Errorf("an old copy is told %v", err)
	}
}

func TestWitnessKeyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if _, err := openWitnessKey(file, ""); err == nil || statusOf(err) != exitUsage {
		t.Errorf("no key and no name: %v", err)
	}
	made, err := openWitnessKey(file, "w.example")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	again, err := openWitnessKey(file, "")
	if err != nil || again.String() != made.String() || !again.private.Equal(made.private) {
		t.Errorf("%v, %v", again, err)
	}
	if _, err := openWitnessKey(file, "other.example"); statusOf(err) != exitUsage {
		t.Errorf("another name: %v", err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openWitnessKey(file, ""); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
	for _, line := range []string{"", "PRIVATE+KEY+", made.String(), strings.Replace(made.secret(), "+", "-", 1), strings.ToLower(made.secret()), made.secret() + "A"} {
		if k, err := parseWitnessKey(line); err == nil {
			t.Errorf("%q was taken for %v", line, k)
		}
	}
}
