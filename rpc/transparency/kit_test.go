package transparency

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/note"

	"quicprochat/kt"
	"quicprochat/log"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Pebble keeps these for the life of the process.
		goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2/vfs.(*diskHealthCheckingFS).startTickerLocked.func1"))
}

const testOrigin = "chat.example.org/1"

// testLog is a log on disk with a key that signs its checkpoints.
type testLog struct {
	t   testing.TB
	log *log.Log
	key ed25519.PrivateKey
}

func newTestLog(t testing.TB) *testLog {
	t.Helper()
	l := &testLog{t: t, key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))}
	config, err := kt.NewConfig("chat.example.org", l.key.Public().(ed25519.PublicKey), kt.NewVRFPrivateKey([32]byte{1}).PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	if err := vfs.Default.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	store := [16]byte{1}
	if err := log.Create(vfs.Default, dir, store, log.Record{Leaf: kt.AppendConfigLeaf(nil, config), Event: []byte("config")}); err != nil {
		t.Fatal(err)
	}
	if l.log, err = log.Open(vfs.Default, dir, log.Options{StoreID: store}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.log.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// payloadKey is that of the payload beside record i.
func payloadKey(i uint64) (k log.PayloadKey) {
	binary.BigEndian.PutUint64(k.ID[:], i)
	return k
}

// grow appends records of the classes OPAQUE and KT with commitments to their
// events, in groups, until the log has size leaves; every tenth has a payload.
func (l *testLog) grow(size uint64) {
	l.t.Helper()
	for l.log.Size() < size {
		g := l.log.NewGroup()
		for n := 0; n < 2000 && g.Next() < size; n++ {
			l.append(g)
		}
		p, err := g.Commit()
		if err != nil {
			l.t.Fatal(err)
		}
		if err := p.Wait(); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *testLog) append(g *log.Group) {
	i := g.Next()
	event := binary.BigEndian.AppendUint64([]byte("event "), i)
	r := log.Record{Event: event, Opening: kt.Opening{byte(i), byte(i >> 8), byte(i >> 16), 1}}
	context := kt.OpaqueContext(20)
	c := kt.Commit(r.Opening, context[:], event)
	r.Leaf = kt.AppendOpaqueLeaf(nil, c)
	if i%7 == 0 {
		r.Leaf = kt.AppendKTLeaf(nil, kt.Label(c), c)
	}
	g.Append(r)
	if i%10 == 0 {
		g.PutPayload(payloadKey(i), event)
	}
}

// note signs a checkpoint of the log's size and root.
func (l *testLog) note() []byte {
	l.t.Helper()
	root, err := l.log.RootAt(l.log.Size())
	if err != nil {
		l.t.Fatal(err)
	}
	return l.sign(l.log.Size(), root)
}

func (l *testLog) sign(size uint64, root kt.Hash) []byte {
	l.t.Helper()
	signer, err := note.NewSigner(l.signerKey())
	if err != nil {
		l.t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: checkpointText(testOrigin, size, root)}, signer)
	if err != nil {
		l.t.Fatal(err)
	}
	return signed
}

// source serves the log at its present size.
func (l *testLog) source() Source {
	published := Published{Note: l.note(), Size: l.log.Size(), Epochs: 300}
	return Source{
		Log: l.log, Published: func() Published { return published }, Logger: slog.New(slog.DiscardHandler),
		Delta: func(n uint64, width int) ([]byte, error) { return []byte{byte(n), byte(width)}, nil },
	}
}

// serve serves a handler on loopback and returns the URL, with a slash.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(listener, h, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := contextWithTimeout(time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return "http://" + listener.Addr().String() + "/"
}
