package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
	"go.uber.org/goleak"

	"quicprochat/kt"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(tidyTests{m}, map[string]func(){"qpc-audit": main})
}

// tidyTests runs the tests and leaves no goroutines.
type tidyTests struct{ *testing.M }

func (m tidyTests) Run() int {
	code := m.M.Run()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(
		// Pebble keeps these for the life of the process.
		goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2/vfs.(*diskHealthCheckingFS).startTickerLocked.func1"),
	); err != nil && code == 0 {
		println(err.Error())
		return 1
	}
	return code
}

// fakeLog is a log in memory that is served as C2SP tlog-tiles, with a tree made
// by the Merkle library's own tests. It can be made to lie.
type fakeLog struct {
	t        testing.TB
	key      ed25519.PrivateKey
	now      uint64 // Unix milliseconds
	replayer *kt.Replayer

	mu       sync.Mutex
	leaves   [][]byte
	heads    []int // indexes of the HEAD leaves
	hidden   int   // index of a leaf that no delta shows; -1: none
	tree     *testonly.Tree
	signed   []byte // what /checkpoint shows
	requests map[string]int
	// lie, if set, changes what is served.
	lie func(path string, body []byte) []byte
}

const fakeOrigin = "chat.example.org/1"

func newFakeLog(t testing.TB) *fakeLog {
	t.Helper()
	l := &fakeLog{
		t: t, key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)), now: uint64(time.Now().UnixMilli()),
		replayer: kt.NewReplayer(), hidden: -1, tree: testonly.New(rfc6962.DefaultHasher), requests: map[string]int{},
	}
	l.add(kt.AppendConfigLeaf(nil, l.config()))
	l.seal()
	l.publish()
	return l
}

func (l *fakeLog) config() kt.Config {
	c, err := kt.NewConfig("chat.example.org", l.key.Public().(ed25519.PublicKey), kt.NewVRFPrivateKey([32]byte{1}).PublicKey())
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// vkey is the log's verifier key.
func (l *fakeLog) vkey() string {
	line, err := kt.VerifierKey(fakeOrigin, l.key.Public().(ed25519.PublicKey))
	if err != nil {
		l.t.Fatal(err)
	}
	return line
}

// add appends a leaf that holds.
func (l *fakeLog) add(leaf []byte) {
	l.t.Helper()
	if err := l.replayer.Append(leaf); err != nil {
		l.t.Fatal(err)
	}
	l.force(leaf)
}

// force appends any leaf.
func (l *fakeLog) force(leaf []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if kt.Class(leaf[0]) == kt.ClassHead {
		l.heads = append(l.heads, len(l.leaves))
	}
	l.leaves = append(l.leaves, leaf)
	l.tree.AppendData(leaf)
}

// ktLeaf is the leaf of the n-th key event.
func ktLeaf(n uint64) []byte {
	label := kt.Label(sha256.Sum256(binary.BigEndian.AppendUint64(nil, n)))
	return kt.AppendKTLeaf(nil, label, sha256.Sum256(label[:]))
}

func opaqueLeaf(n uint64) []byte {
	return kt.AppendOpaqueLeaf(nil, sha256.Sum256(binary.BigEndian.AppendUint64([]byte("o"), n)))
}

// grow appends key events and other events, with a head after every few, and
// publishes.
func (l *fakeLog) grow(events int) {
	l.t.Helper()
	for range events {
		n := l.size()
		if n%3 == 0 {
			l.add(ktLeaf(n))
		} else {
			l.add(opaqueLeaf(n))
		}
		if n%7 == 0 {
			l.seal()
		}
	}
	l.seal()
	l.publish()
}

func (l *fakeLog) size() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.leaves))
}

// head is the honest next head.
func (l *fakeLog) head() kt.Head { return l.replayer.NextHead(l.now) }

func (l *fakeLog) seal() { l.add(kt.AppendHeadLeaf(nil, l.head())) }

// publish signs what is there.
func (l *fakeLog) publish() { l.show(l.noteAt(l.size())) }

func (l *fakeLog) show(signed []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.signed = signed
}

func (l *fakeLog) noteAt(size uint64) []byte {
	l.mu.Lock()
	root := kt.Hash(l.tree.HashAt(size))
	l.mu.Unlock()
	return l.sign(fakeOrigin, size, root)
}

func (l *fakeLog) sign(origin string, size uint64, root kt.Hash) []byte {
	l.t.Helper()
	signed, err := kt.SignCheckpoint(kt.Checkpoint{Origin: origin, Size: size, Root: root}, l.key)
	if err != nil {
		l.t.Fatal(err)
	}
	return signed
}

// tell has the log answer what lie makes of the truth; nil is the truth. A request
// that its client has given up may still be on its way.
func (l *fakeLog) tell(lie func(path string, body []byte) []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lie = lie
}

// ServeHTTP serves everything that was appended, published or not.
func (l *fakeLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/")
	l.requests[path]++
	body := l.signed
	if path != "checkpoint" {
		p, err := kt.ParseTilePath(path)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		if body = l.resource(p); body == nil {
			http.NotFound(w, r)
			return
		}
	}
	if l.lie != nil {
		body = l.lie(path, bytes.Clone(body))
	}
	if body == nil {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(body)
}

func (l *fakeLog) resource(p kt.TilePath) []byte {
	first, last := p.N*kt.TileWidth, p.N*kt.TileWidth+uint64(p.Width)
	switch p.Kind {
	case kt.EntryBundle:
		if last > uint64(len(l.leaves)) {
			return nil
		}
		var b []byte
		for _, leaf := range l.leaves[first:last] {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(leaf))), leaf...)
		}
		return b
	case kt.HashTile:
		if last<<(8*p.Level) > uint64(len(l.leaves)) {
			return nil
		}
		var b []byte
		for i := first; i < last; i++ {
			b = append(b, l.node(uint(8*p.Level), i)...)
		}
		return b
	}
	if last > uint64(len(l.heads)) {
		return nil
	}
	d := kt.Delta{Number: p.N}
	begin := 0
	if first > 0 {
		begin = l.heads[first-1] + 1
	}
	for i := begin; i <= l.heads[last-1]; i++ {
		if class := kt.Class(l.leaves[i][0]); i != l.hidden && (class == kt.ClassKT || class == kt.ClassHead || class == kt.ClassConfig) {
			d.Leaves = append(d.Leaves, kt.IndexedLeaf{Index: uint64(i), Leaf: l.leaves[i]})
		}
	}
	return kt.AppendDelta(nil, d)
}

// node is the root over the leaves of one perfect subtree.
func (l *fakeLog) node(level uint, index uint64) []byte {
	r := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	for _, leaf := range l.leaves[index<<level : (index+1)<<level] {
		if err := r.Append(rfc6962.DefaultHasher.HashLeaf(leaf), nil); err != nil {
			l.t.Fatal(err)
		}
	}
	root, err := r.GetRootHash(nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return root
}

// serve serves the log on loopback.
func (l *fakeLog) serve() string {
	s := httptest.NewServer(l)
	l.t.Cleanup(s.Close)
	return s.URL
}

// asked is how many requests there were since the last call.
func (l *fakeLog) asked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, times := range l.requests {
		n += times
	}
	clear(l.requests)
	return n
}

// askedFor is how often a path was asked for since then.
func (l *fakeLog) askedFor(path string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests[path]
}

// call runs the program in this process.
func call(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	code = run(ctx, args, strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

// audited is a log with an auditor's state folder.
type audited struct {
	*fakeLog
	url, state string
	flags      []string
}

func newAudited(t testing.TB, flags ...string) *audited {
	l := newFakeLog(t)
	return &audited{fakeLog: l, url: l.serve(), state: filepath.Join(t.TempDir(), "state"), flags: flags}
}

// check runs follow --once.
func (a *audited) check() (code int, said string) {
	a.t.Helper()
	code, stdout, stderr := call(a.t, append([]string{"follow", "--once", "--url", a.url, "--state", a.state, "--vkey", a.vkey()}, a.flags...)...)
	return code, stdout + stderr
}

// want runs follow --once and expects an exit status and some words.
func (a *audited) want(status int, words ...string) string {
	a.t.Helper()
	code, said := a.check()
	if code != status {
		a.t.Fatalf("status %d, want %d:\n%s", code, status, said)
	}
	for _, w := range words {
		if !strings.Contains(said, w) {
			a.t.Errorf("it does not say %q:\n%s", w, said)
		}
	}
	return said
}
