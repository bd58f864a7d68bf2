package server

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/commands"
	"quicprochat/kt"
	"quicprochat/log"
	"quicprochat/rpc/transparency"
)

// cosigner is a witness that cosigns whatever it is shown, and keeps it; or, with
// knows set, says that it has seen so much more.
type cosigner struct {
	url, vkey string
	mu        sync.Mutex
	seen      []uint64
	knows     uint64
	away      bool
}

func newCosigner(t *testing.T) *cosigner {
	seed := sha256.Sum256([]byte("a witness"))
	key := ed25519.NewKeyFromSeed(seed[:])
	witness, err := kt.NewWitness("witness.example.net", key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	w := &cosigner{vkey: witness.String()}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		add, err := kt.ParseAddCheckpoint(body)
		switch {
		case w.away || err != nil:
			http.Error(rw, "not now", http.StatusServiceUnavailable)
			return
		case w.knows > 0:
			rw.Header().Set("Content-Type", "text/x.tlog.size")
			rw.WriteHeader(http.StatusConflict)
			fmt.Fprintln(rw, w.knows)
			return
		}
		_, size, err := kt.PeekNote(add.Note)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		w.seen = append(w.seen, size)
		lines, err := kt.Cosign(add.Note, "witness.example.net", key, uint64(time.Now().Unix()))
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = rw.Write(lines)
	}))
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

func (w *cosigner) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *cosigner) policy(t *testing.T) transparency.WitnessPolicy {
	policy, err := transparency.ParseWitnessPolicy(w.url + " " + w.vkey + "\n")
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// bootWitnessed starts a node on a file system in memory.
func bootWitnessed(t *testing.T, fs vfs.FS, policy transparency.WitnessPolicy) *Node {
	t.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	node, err := Boot(t.Context(), Config{
		FS: fs, Dir: "/data", PacketConn: socket, Limits: LimitsOff, Witnesses: policy, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// eventually waits for what other goroutines do; the test's own time limit ends it.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for !done() {
		select {
		case <-t.Context().Done():
			t.Fatalf("never: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestWithoutWitnesses: a node without witnesses has none of it.
func TestWithoutWitnesses(t *testing.T) {
	w := newWitnessing(transparency.WitnessPolicy{}, new(log.Log), slog.New(slog.DiscardHandler))
	if w != nil || w.ask() != nil || w.collectors() != nil {
		t.Error("witnesses that nobody named")
	}
	w.begin(nil)
	w.close()
}

// TestWitnessesCosign: the newest checkpoint comes to the witness, and what it
// signed is what the public log shows and what Cosigned proofs are made under.
// Each checkpoint is given back.
func TestWitnessesCosign(t *testing.T) {
	witness := newCosigner(t)
	fs := vfs.NewMem()
	node := bootWitnessed(t, fs, witness.policy(t))
	var shown []byte
	eventually(t, "a cosigned checkpoint", func() bool {
		c := node.engine.CosignedCheckpoint()
		if c == nil {
			return false
		}
		defer c.Release()
		shown = slices.Clone(c.Note)
		return true
	})
	policy, err := kt.ParsePolicy(1, []string{witness.vkey})
	if err != nil {
		t.Fatal(err)
	}
	if err := policy.Met(shown); err != nil {
		t.Errorf("the cosigned note: %v", err)
	}
	answer := httptest.NewRecorder()
	node.PublicLog().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/checkpoint", nil))
	if err := policy.Met(answer.Body.Bytes()); answer.Code != http.StatusOK || err != nil {
		t.Errorf("the public log shows %d, %s: %v", answer.Code, answer.Body, err)
	}
	if err := node.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := len(node.witnessing.held); n != 0 {
		t.Errorf("%d checkpoints were not given back", n)
	}

	// At the next start the witness is asked before anything is signed; one that does
	// not answer stops nothing, one that knows more stops signing.
	witness.set(func() { witness.away = true })
	node = bootWitnessed(t, fs, witness.policy(t))
	if err := node.engine.SigningStopped(); err != nil {
		t.Errorf("a witness that is away: %v", err)
	}
	if err := node.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	witness.set(func() { witness.away, witness.knows = false, 1000 })
	node = bootWitnessed(t, fs, witness.policy(t))
	if err := node.engine.SigningStopped(); err == nil {
		t.Error("signing goes on though a witness knows more of the log")
	}
	if c := node.engine.Checkpoint(); c != nil {
		c.Release()
		t.Error("a checkpoint is shown though a witness knows more of the log")
	}
	if err := node.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestFeedTakesNewerCheckpoints: a checkpoint is offered once, and none that is not
// larger than the last one.
func TestFeedTakesNewerCheckpoints(t *testing.T) {
	witness := newCosigner(t)
	witness.set(func() { witness.away = true })
	node := bootWitnessed(t, vfs.NewMem(), transparency.WitnessPolicy{})
	defer func() {
		if err := node.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	eventually(t, "a checkpoint", func() bool {
		c := node.engine.Checkpoint()
		if c != nil {
			c.Release()
		}
		return c != nil
	})
	w := newWitnessing(witness.policy(t), node.log, slog.New(slog.DiscardHandler))
	defer w.close()
	w.engine.Store(node.engine)
	first := w.feed(node.engine, 0)
	if first == 0 || w.feed(node.engine, first) != first {
		t.Errorf("fed %d, then another one of that size", first)
	}
	w.mu.Lock()
	held := len(w.held)
	w.mu.Unlock()
	if held != 1 {
		t.Errorf("%d checkpoints are held", held)
	}
	w.cosigned([]byte("a note of a size that nobody offered"), first+1)
	if c := node.engine.CosignedCheckpoint(); c != nil {
		c.Release()
		t.Error("a cosigned checkpoint of a size that nobody offered")
	}
}

// TestShownNote: strangers are shown the newest cosigned note, and the newest
// signed one where there is none.
func TestShownNote(t *testing.T) {
	node := bootWitnessed(t, vfs.NewMem(), transparency.WitnessPolicy{})
	defer func() {
		if err := node.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	var c *commands.Checkpoint
	eventually(t, "a checkpoint", func() bool { c = node.engine.Checkpoint(); return c != nil })
	defer c.Release()
	shown := new(shownNote)
	if p := shown.published(node.engine); string(p.Note) != string(c.Note) || p.Size != c.Size || p.Epochs != c.Head.Epoch+1 {
		t.Errorf("without witnesses %+v is shown", p)
	}
	node.engine.ShowCosigned(c, append(slices.Clone(c.Note), "— a cosignature\n"...))
	if p := shown.published(node.engine); string(p.Note) == string(c.Note) || p.Size != c.Size {
		t.Errorf("with a cosigned note %+v is shown", p)
	}
	later := &shownNote{size: c.Size + 1}
	if p := later.published(node.engine); string(p.Note) != string(c.Note) {
		t.Errorf("a cosigned note that is older than what was shown: %+v", p)
	}
}
