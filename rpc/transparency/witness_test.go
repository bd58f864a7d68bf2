package transparency

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

// testWitness is a witness written after C2SP tlog-witness and
// tlog-cosignature alone; it shares no code with the server's side.
type testWitness struct {
	name string
	key  ed25519.PrivateKey
	log  note.Verifier

	mu       sync.Mutex
	size     uint64
	root     []byte
	asked    int
	accepted int
	// answer, if set, takes the place of everything.
	answer http.HandlerFunc
}

func newTestWitness(t testing.TB, l *testLog, name string) *testWitness {
	t.Helper()
	v, err := note.NewVerifier(l.verifierKey())
	if err != nil {
		t.Fatal(err)
	}
	seed := sha256.Sum256([]byte(name))
	return &testWitness{name: name, key: ed25519.NewKeyFromSeed(seed[:]), log: v}
}

func (w *testWitness) keyBytes() []byte {
	return append([]byte{4}, w.key.Public().(ed25519.PublicKey)...)
}

func (w *testWitness) keyID() []byte {
	sum := sha256.Sum256(append([]byte(w.name+"\n"), w.keyBytes()...))
	return sum[:4]
}

// vkey is the line that stands in the server's file.
func (w *testWitness) vkey() string {
	return fmt.Sprintf("%s+%x+%s", w.name, w.keyID(), base64.StdEncoding.EncodeToString(w.keyBytes()))
}

func (w *testWitness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.answer != nil {
		w.answer(rw, r)
		return
	}
	if r.Method != http.MethodPost || r.URL.Path != "/prefix/add-checkpoint" {
		http.NotFound(rw, r)
		return
	}
	status, body := w.addCheckpoint(r.Body)
	if status == http.StatusConflict {
		rw.Header().Set("Content-Type", "text/x.tlog.size")
	}
	rw.WriteHeader(status)
	_, _ = io.WriteString(rw, body)
}

func (w *testWitness) addCheckpoint(r io.Reader) (int, string) {
	body, err := io.ReadAll(r)
	if err != nil {
		return http.StatusBadRequest, err.Error()
	}
	head, signed, _ := strings.Cut(string(body), "\n\n")
	lines := strings.Split(head, "\n")
	old, err := strconv.ParseUint(strings.TrimPrefix(lines[0], "old "), 10, 64)
	if err != nil {
		return http.StatusBadRequest, "old"
	}
	var path [][]byte
	for _, line := range lines[1:] {
		h, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return http.StatusBadRequest, "proof"
		}
		path = append(path, h)
	}
	opened, err := note.Open([]byte(signed), note.VerifierList(w.log))
	if err != nil {
		return http.StatusForbidden, err.Error()
	}
	text := strings.Split(opened.Text, "\n")
	if text[0] != testOrigin {
		return http.StatusNotFound, "origin"
	}
	size, _ := strconv.ParseUint(text[1], 10, 64)
	root, _ := base64.StdEncoding.DecodeString(text[2])
	switch {
	case old > size:
		return http.StatusBadRequest, "old size above the checkpoint's"
	case old != w.size, old == size && old > 0 && !bytes.Equal(root, w.root):
		return http.StatusConflict, fmt.Sprintf("%d\n", w.size)
	case old == 0 && len(path) > 0:
		return http.StatusUnprocessableEntity, "proof"
	case old > 0:
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, old, size, path, w.root, root); err != nil {
			return http.StatusUnprocessableEntity, err.Error()
		}
	}
	w.size, w.root = size, root
	w.accepted++
	return http.StatusOK, w.sign(opened.Text)
}

func (w *testWitness) sign(text string) string {
	now := uint64(time.Now().Unix())
	raw := binary.BigEndian.AppendUint64(w.keyID(), now)
	raw = append(raw, ed25519.Sign(w.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", now, text))...)
	return fmt.Sprintf("— %s %s\n", w.name, base64.StdEncoding.EncodeToString(raw))
}

// witnessed is a test log with witnesses that are served on loopback, and what
// the server's side tells.
type witnessed struct {
	*testLog
	witnesses []*testWitness
	policy    WitnessPolicy
	cosigned  chan offered
	stopped   chan *KnowsBetterError
}

func newWitnessed(t *testing.T, count, quorum int) *witnessed {
	t.Helper()
	w := &witnessed{testLog: newTestLog(t), cosigned: make(chan offered, 100), stopped: make(chan *KnowsBetterError, 1)}
	text := fmt.Sprintf("# witnesses of the test\nquorum %d\n", quorum)
	for i := range count {
		one := newTestWitness(t, w.testLog, fmt.Sprintf("witness%d.example.net", i))
		w.witnesses = append(w.witnesses, one)
		text += serve(t, one) + "prefix/ " + one.vkey() + " # one\n"
	}
	var err error
	if w.policy, err = ParseWitnessPolicy(text); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *witnessed) start() *Witnesses {
	w.t.Helper()
	s := NewWitnesses(WitnessOptions{
		WitnessPolicy: w.policy, Prove: w.log.ConsistencyProof, Every: time.Millisecond, Logger: testLogger(w.t),
		Cosigned: func(signed []byte, size uint64) { w.cosigned <- offered{note: signed, size: size} },
		Stop:     func(err *KnowsBetterError) { w.stopped <- err },
	})
	w.t.Cleanup(s.Close)
	return s
}

// await waits for a cosigned note of a size, and checks that it opens under the
// log's key and a policy of all its signers.
func (w *witnessed) await(size uint64, signers int) {
	w.t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case got := <-w.cosigned:
			if got.size < size || bytes.Count(got.note, []byte("— ")) < 1+signers {
				continue
			}
			var verifiers []note.Verifier
			for _, one := range w.policy.Witnesses {
				verifiers = append(verifiers, one.Key)
			}
			logKey, _ := note.NewVerifier(w.verifierKey())
			opened, err := note.Open(got.note, note.VerifierList(append(verifiers, logKey)...))
			if err != nil || len(opened.Sigs) != 1+signers || len(opened.UnverifiedSigs) > 0 {
				w.t.Fatalf("cosigned note: %v\n%s", err, got.note)
			}
			return
		case err := <-w.stopped:
			w.t.Fatal(err)
		case <-timeout:
			w.t.Fatalf("no note of size %d with %d cosignatures", size, signers)
		}
	}
}

func TestWitnessesCosign(t *testing.T) {
	w := newWitnessed(t, 3, 2)
	s := w.start()
	for _, size := range []uint64{1, 2, 700, 701, 5000} {
		w.grow(size)
		s.Offer(w.note(), size, nil)
		w.await(size, 3)
	}
	s.Close()
	// A server that starts anew learns from the conflict how far they are.
	s = w.start()
	w.grow(5001)
	s.Offer(w.note(), 5001, nil)
	w.await(5001, 3)
	// The same note again is no conflict.
	s.Close()
	s = w.start()
	s.Offer(w.note(), 5001, nil)
	w.await(5001, 3)
}

// TestQuorum: a witness that is away does not keep the others from cosigning,
// and is left alone for ever longer.
func TestQuorum(t *testing.T) {
	w := newWitnessed(t, 3, 2)
	away := w.witnesses[1]
	away.answer = func(rw http.ResponseWriter, _ *http.Request) {
		http.Error(rw, "on holiday", http.StatusServiceUnavailable)
	}
	s := w.start()
	for size := uint64(2); size < 40; size++ {
		w.grow(size)
		s.Offer(w.note(), size, nil)
		w.await(size, 2)
	}
	away.mu.Lock()
	defer away.mu.Unlock()
	if away.asked == 0 || away.asked > 20 {
		t.Errorf("the witness that is away was asked %d times in 38 rounds", away.asked)
	}
}

// TestLessThanAQuorum is no cosigned note.
func TestLessThanAQuorum(t *testing.T) {
	w := newWitnessed(t, 3, 2)
	for i, answer := range []http.HandlerFunc{
		func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, w.witnesses[0].sign("other text\n"))
		},
		func(rw http.ResponseWriter, _ *http.Request) {
			http.Redirect(rw, &http.Request{}, "/elsewhere", http.StatusFound)
		},
	} {
		w.witnesses[i].answer = answer
	}
	s := w.start()
	s.Offer(w.note(), 1, nil)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		w.witnesses[2].mu.Lock()
		accepted := w.witnesses[2].accepted
		w.witnesses[2].mu.Unlock()
		if accepted > 1 { // a second round began
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no second round")
		}
	}
	if len(w.cosigned) > 0 {
		t.Errorf("cosigned: %s", (<-w.cosigned).note)
	}
}

// TestNotesAreCoalesced: many notes in a short time are few submissions.
func TestNotesAreCoalesced(t *testing.T) {
	w := newWitnessed(t, 1, 1)
	block := make(chan struct{})
	one := w.witnesses[0]
	one.answer = func(rw http.ResponseWriter, _ *http.Request) {
		<-block
		one.answer = nil // before anything is asked again: the caller holds the lock
		rw.WriteHeader(http.StatusBadGateway)
	}
	s := w.start()
	s.Offer(w.note(), 1, nil)
	for size := uint64(2); size <= 200; size++ {
		w.grow(size)
		s.Offer(w.note(), size, nil)
	}
	close(block)
	w.await(200, 1)
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.asked > 6 {
		t.Errorf("%d submissions for 200 notes", one.asked)
	}
}

// TestWitnessKnowsBetter: the cases in which signing stops, and those in which a
// start does.
func TestWitnessKnowsBetter(t *testing.T) {
	for name, spoil := range map[string]func(w *witnessed){
		"a larger size":              func(w *witnessed) { w.witnesses[0].size, w.witnesses[0].root = 5000, make([]byte, 32) },
		"another root, same size":    func(w *witnessed) { w.witnesses[0].size, w.witnesses[0].root = 100, make([]byte, 32) },
		"another root, smaller size": func(w *witnessed) { w.witnesses[0].size, w.witnesses[0].root = 60, make([]byte, 32) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWitnessed(t, 1, 1)
			w.grow(100)
			spoil(w)
			theirs := w.witnesses[0].size
			s := w.start()
			answered, err := s.Ask(t.Context(), w.note(), 100)
			better, ok := err.(*KnowsBetterError)
			if theirs >= 100 && (!ok || better.Theirs != theirs || better.Ours != 100) {
				t.Errorf("asked before the first signature: %d, %v", answered, err)
			}
			if theirs < 100 && (err != nil || answered != 1) { // asking proves nothing
				t.Errorf("asked before the first signature: %d, %v", answered, err)
			}
			s.Offer(w.note(), 100, nil)
			select {
			case got := <-w.stopped:
				if got.Witness != w.witnesses[0].name || got.Theirs != theirs || !strings.Contains(got.Error(), "put the newest copy") {
					t.Errorf("%+v", got)
				}
			case <-time.After(time.Minute):
				t.Fatal("signing was not stopped")
			}
			if w.witnesses[0].accepted > 0 {
				t.Error("the witness cosigned")
			}
		})
	}
}

// TestWitnessWasShownMore: that a witness knows a note which this server signed
// a moment ago is no reason to stop.
func TestWitnessWasShownMore(t *testing.T) {
	w := newWitnessed(t, 1, 1)
	one := w.witnesses[0]
	w.grow(10)
	old := w.note()
	w.grow(20)
	newer := w.note()
	s := w.start()
	one.answer = func(rw http.ResponseWriter, _ *http.Request) {
		s.Offer(newer, 20, nil)
		one.size, one.root, one.answer = 20, nil, nil
		root := w.log.Root()
		one.root = root[:]
		rw.Header().Set("Content-Type", "text/x.tlog.size")
		rw.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(rw, "20\n")
	}
	s.Offer(old, 10, nil)
	w.await(20, 1)
}

// TestAsk: what a start hears from witnesses that know less, as much, nothing,
// or do not answer.
func TestAsk(t *testing.T) {
	w := newWitnessed(t, 4, 1)
	w.grow(100)
	old := w.note()
	w.grow(150)
	s := w.start()
	s.Offer(w.note(), 150, nil)
	w.await(150, 4)
	w.witnesses[1].size = 0
	w.witnesses[2].answer = func(rw http.ResponseWriter, _ *http.Request) {
		http.Error(rw, "never heard of it", http.StatusNotFound)
	}
	w.witnesses[3].answer = func(rw http.ResponseWriter, _ *http.Request) {
		http.Error(rw, "broken", http.StatusInternalServerError)
	}
	if answered, err := s.Ask(t.Context(), w.note(), 150); answered != 3 || err != nil {
		t.Errorf("nobody knows better: %d, %v", answered, err)
	}
	if _, err := s.Ask(t.Context(), old, 100); err == nil || err.(*KnowsBetterError).Theirs != 150 {
		t.Errorf("an old copy: %v", err)
	}
}

func TestWitnessAnswersThatAreNone(t *testing.T) {
	w := newWitnessed(t, 1, 1)
	w.grow(10)
	conflict := func(kind, body string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", kind)
			rw.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(rw, body)
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"conflict without a type":  conflict("text/plain", "5\n"),
		"conflict without a size":  conflict("text/x.tlog.size", "many\n"),
		"conflict without an end":  conflict("text/x.tlog.size", "5"),
		"conflict again and again": conflict("text/x.tlog.size", "5\n"),
		"an empty success":         func(http.ResponseWriter, *http.Request) {},
		"control characters":       func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "a\x1b[31mb\nc", http.StatusTeapot) },
	} {
		w.witnesses[0].answer = answer
		var old uint64
		_, err := w.policy.Witnesses[0].submit(t.Context(), http.DefaultClient, w.note(), 10, &old, w.log.ConsistencyProof)
		if err == nil || strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("%s: %q", name, err)
		}
	}
}

func TestWitnessPolicyFile(t *testing.T) {
	l := newTestLog(t)
	a, b := newTestWitness(t, l, "a.example"), newTestWitness(t, l, "b.example")
	good := "https://a.example/x " + a.vkey() + "\n\n  # comment\nhttp://127.0.0.1:80 " + b.vkey()
	p, err := ParseWitnessPolicy(good)
	if err != nil || len(p.Witnesses) != 2 || p.Quorum != 2 || p.Witnesses[0].URL != "https://a.example/x" || p.Witnesses[1].Key.Name() != "b.example" {
		t.Errorf("%+v %v", p, err)
	}
	if p, err := ParseWitnessPolicy(good + "\nquorum 1\n"); err != nil || p.Quorum != 1 {
		t.Errorf("%+v %v", p, err)
	}
	for _, bad := range []string{
		"", "# nothing", "quorum 1", good + "\nquorum 3", good + "\nquorum 0", good + "\nquorum x", good + "\nquorum 1\nquorum 1",
		"https://a.example", a.vkey(), "ftp://a.example " + a.vkey(), "https://u@a.example " + a.vkey(), "https://a.example?x " + a.vkey(),
		"https://a.example " + l.verifierKey(), "https://a.example " + a.vkey() + " x", good + "\nhttps://c.example " + a.vkey(),
	} {
		if p, err := ParseWitnessPolicy(bad); err == nil {
			t.Errorf("%q was taken for %+v", bad, p)
		}
	}
}
