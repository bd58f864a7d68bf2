package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/pake"
	"quicprochat/rpc/server"
	"quicprochat/rpc/transparency"
)

// standIn serves what it is told to, under one address: a process that is stopped
// and started again.
type standIn struct {
	mu      sync.Mutex
	handler http.Handler
	answers []int // statuses given since forget
}

func newStandIn(t *testing.T) (*standIn, string) {
	s := new(standIn)
	served := httptest.NewServer(s)
	t.Cleanup(served.Close)
	return s, served.URL
}

func (s *standIn) serve(h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = h
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handler == nil {
		http.Error(w, "not started", http.StatusServiceUnavailable)
		return
	}
	recorded := httptest.NewRecorder()
	s.handler.ServeHTTP(recorded, r)
	s.answers = append(s.answers, recorded.Code)
	for name, values := range recorded.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(recorded.Code)
	_, _ = w.Write(recorded.Body.Bytes())
}

// forget forgets what was answered so far.
func (s *standIn) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = nil
}

// answered is whether the status was given since.
func (s *standIn) answered(status int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.answers {
		if one == status {
			return true
		}
	}
	return false
}

// loss is a server with a witness, both of which stop and start, and whose data
// directory is put back.
type loss struct {
	t            *testing.T
	dir          string
	node         *server.Node
	policy       transparency.WitnessPolicy // the server's
	publicURL    string
	log, witness *standIn
	key          *witnessKey
	stderr       bytes.Buffer // of the witness; read while it is stopped or idle
	stopWitness  func()
}

func newLoss(t *testing.T) *loss {
	l := &loss{t: t, dir: filepath.Join(t.TempDir(), "data"), stopWitness: func() {}}
	var witnessURL string
	l.log, l.publicURL = newStandIn(t)
	l.witness, witnessURL = newStandIn(t)
	var err error
	if l.key, err = openWitnessKey(filepath.Join(t.TempDir(), "key"), "witness.example.net"); err != nil {
		t.Fatal(err)
	}
	if l.policy, err = transparency.ParseWitnessPolicy(witnessURL + " " + l.key.String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.stop(); l.stopWitness() })
	return l
}

// start boots the server; stop ends it.
func (l *loss) start() {
	l.t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	l.node, err = server.Boot(l.t.Context(), server.Config{
		Dir: l.dir, PacketConn: socket, Limits: server.LimitsOff, Witnesses: l.policy, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.log.serve(l.node.PublicLog())
}

func (l *loss) stop() {
	if l.node == nil {
		return
	}
	l.log.serve(nil)
	if err := l.node.Shutdown(context.Background()); err != nil {
		l.t.Error(err)
	}
	l.node = nil
}

// startWitness starts the witness with a verifier key and a state folder.
func (l *loss) startWitness(vkey, state string) {
	l.t.Helper()
	l.stopWitness()
	flags := auditFlags{sourceFlags: sourceFlags{URL: l.publicURL}, trustFlags: trustFlags{VKey: vkey, Freshness: time.Hour}, State: state}
	audit, err := flags.auditor(&app{stderr: &l.stderr})
	if err != nil {
		l.t.Fatal(err)
	}
	metrics, err := openMetrics("", &l.stderr)
	if err != nil {
		l.t.Fatal(err)
	}
	l.stopWitness = func() {
		l.witness.serve(nil)
		if err := audit.close(); err != nil {
			l.t.Error(err)
		}
		l.stopWitness = func() {}
	}
	if err := audit.sameGeneration(); err != nil {
		l.t.Fatal(err)
	}
	l.witness.serve(&witness{ctx: l.t.Context(), audit: audit, key: l.key, metrics: metrics, stderr: &l.stderr})
}

// dial connects somebody who wants the witness's word, and keeps the state of
// before.
func (l *loss) dial(state *kt.State) *client.Client {
	l.t.Helper()
	ca, err := os.ReadFile(l.node.CAFile())
	if err != nil {
		l.t.Fatal(err)
	}
	policy, err := kt.ParsePolicy(1, []string{l.key.String()})
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := client.Dial(l.t.Context(), client.Config{
		Addr: l.node.Addr().String(), CACert: ca, KSF: pake.InsecureKSF(),
		Transparency: client.Transparency{Policy: policy, Update: func(change func(*kt.State) bool) error { change(state); return nil }},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}

// eventually waits for what other goroutines do; the test's own limit ends it.
func (l *loss) eventually(what string, done func() bool) {
	l.t.Helper()
	for !done() {
		select {
		case <-l.t.Context().Done():
			l.t.Fatalf("never: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// proved waits until the witness has cosigned enough to prove a name.
func (l *loss) proved(c *client.Client, name string) *kt.Person {
	l.t.Helper()
	var found *kt.Person
	l.eventually("a proof of "+name+" that the witness signed", func() bool {
		person, err := c.LookupUser(l.t.Context(), name)
		if err != nil && !errors.Is(err, kt.ErrPolicy) && client.ReasonOf(err) != pb.Reason_NOT_SUPPORTED {
			l.t.Fatalf("%s: %v", name, err)
		}
		found = person
		return err == nil && person.Exists()
	})
	return found
}

// putBack makes one directory a copy of another.
func (l *loss) putBack(to, from string) {
	l.t.Helper()
	if err := os.RemoveAll(to); err != nil {
		l.t.Fatal(err)
	}
	err := os.CopyFS(to, os.DirFS(from))
	if err == nil {
		err = filepath.WalkDir(to, func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() { // as in the original: nobody else may look at secrets
				return os.Chmod(path, 0o700)
			}
			return os.Chmod(path, 0o600)
		})
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// join registers somebody, with keys of the name, and logs in.
func (l *loss) join(c *client.Client, name string) {
	l.t.Helper()
	identity, device := keyFrom(name), keyFrom(name+"/1")
	if _, err := c.Register(l.t.Context(), client.RegisterParams{Username: name, Password: []byte(name), IdentityKey: identity, DeviceKey: device}); err != nil {
		l.t.Fatal(err)
	}
	l.login(c, name)
}

func (l *loss) login(c *client.Client, name string) {
	l.t.Helper()
	if _, err := c.Login(l.t.Context(), name, []byte(name), keyFrom(name+"/1")); err != nil {
		l.t.Fatal(err)
	}
}

// TestWitnessThroughALoss: a server is put back to an old copy, which the witness
// finds; its operator declares the loss; the witness cosigns nothing of the next
// generation until its own operator consents; and whoever wants the witness's word
// goes on once the person and the witness do.
func TestWitnessThroughALoss(t *testing.T) {
	l := newLoss(t)
	l.start() // makes the directory
	vkey, err := os.ReadFile(l.node.VerifierKeyFile())
	if err != nil {
		t.Fatal(err)
	}
	states := t.TempDir()
	first, second := filepath.Join(states, "first"), filepath.Join(states, "second")
	l.startWitness(string(vkey), first)
	known := new(kt.State)
	alice := l.dial(known)
	l.join(alice, "alice")
	l.proved(alice, "alice")
	l.stop()
	old := filepath.Join(t.TempDir(), "old")
	l.putBack(old, l.dir)

	// What comes now is lost, and the witness has signed it.
	l.start()
	alice = l.dial(known)
	l.login(alice, "alice")
	l.join(l.dial(new(kt.State)), "carol")
	l.proved(alice, "carol")
	l.stop()
	l.putBack(l.dir, old)

	l.start()
	alice = l.dial(known)
	l.login(alice, "alice")
	if _, err := alice.LookupUser(t.Context(), "alice"); client.ReasonOf(err) != pb.Reason_SIGNING_STOPPED {
		t.Fatalf("an old copy whose witness has seen more: %v", err)
	}
	l.stop()

	stopped, err := server.OpenStopped(t.Context(), server.Config{Dir: l.dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if g, err := stopped.BeginGeneration(t.Context()); err != nil || g.Origin != "localhost/2" {
		t.Fatalf("%+v, %v", g, err)
	}
	if err := stopped.Close(); err != nil {
		t.Fatal(err)
	}

	// The witness goes on to run as it was, and signs nothing.
	before := readFile(t, filepath.Join(first, stateFile))
	l.witness.forget()
	l.start()
	l.eventually("a submission that the witness refuses", func() bool { return l.witness.answered(http.StatusNotFound) })
	if l.witness.answered(http.StatusOK) || l.witness.answered(http.StatusConflict) {
		t.Errorf("the witness answers %v about a generation that its operator has not agreed to", l.witness.answers)
	}
	alice = l.dial(known)
	l.login(alice, "alice")
	var anew *kt.NewGenerationError
	if _, err := alice.LookupUser(t.Context(), "alice"); !errors.As(err, &anew) || anew.Shown != 2 {
		t.Fatalf("alice, who has not agreed: %v", err)
	}
	if err := alice.ConsentToGeneration(2); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.LookupUser(t.Context(), "alice"); client.ReasonOf(err) != pb.Reason_NOT_SUPPORTED && !errors.Is(err, kt.ErrPolicy) {
		t.Errorf("alice has agreed, the witness has not: %v", err)
	}
	l.stopWitness()
	if after := readFile(t, filepath.Join(first, stateFile)); !bytes.Equal(before, after) {
		t.Errorf("the witness's state went on:\n%s", after)
	}
	if said := l.stderr.String(); strings.Count(said, "the log was begun anew: localhost/2 is submitted, after localhost/1") != 1 {
		t.Errorf("the witness's operator is told %q", said)
	}

	// Its operator agrees: the new key, a folder of its own, the same witness. A
	// folder that knows the lost part is refused, or it would stop the server.
	newKey := strings.TrimSpace(string(readFile(t, l.node.VerifierKeyFile())))
	code, stdout, stderr := call(t, "witness", "--url", l.publicURL, "--vkey", newKey, "--state", first, "--key", filepath.Join(states, "k"), "--name", "w.example", "--listen", "127.0.0.1:0")
	if code != exitUsage || !strings.Contains(stderr, "is of localhost/1, and --vkey of localhost/2: use another --state") {
		t.Errorf("the folder of before: status %d\n%s%s", code, stdout, stderr)
	}
	l.startWitness(newKey, second)
	l.stop() // it would submit again by itself, after a rest
	l.start()
	alice = l.dial(known)
	l.login(alice, "alice")
	l.proved(alice, "alice")
	if known.Consented != 2 || known.Cosigned == nil {
		t.Errorf("alice knows %+v", known)
	}
	if person, err := alice.LookupUser(t.Context(), "carol"); err != nil || person.Exists() {
		t.Errorf("carol, who came in the lost part: %+v, %v", person, err)
	}

	// An auditor of before has a file that proves the loss to others.
	code, _, stderr = call(t, "follow", "--once", "--url", l.publicURL, "--vkey", string(vkey), "--state", first)
	if code != exitEvidence || !strings.Contains(stderr, "begun anew (localhost/2 after localhost/1)") {
		t.Errorf("follow: status %d\n%s", code, stderr)
	}
	files, err := filepath.Glob(filepath.Join(first, "evidence-*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("evidence: %v, %v", files, err)
	}
	for _, key := range []string{string(vkey), newKey} {
		code, stdout, stderr = call(t, "verify", "--vkey", key, files[0])
		if code != exitEvidence || !strings.Contains(stdout, "PROVED: the log was begun anew") {
			t.Errorf("verify: status %d\n%s%s", code, stdout, stderr)
		}
	}
}

// keyFrom is the private key of a name.
func keyFrom(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
