package commands_test

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/kt"
	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// serverName is what statements in tests are made for.
const serverName = "chat.example"

// world is an engine over a log in memory, with people who have keys and
// sessions. It lives inside a synctest bubble: time stands still unless a step
// sleeps.
type world struct {
	t       tester
	fs      vfs.FS
	dir     string
	storeID [16]byte
	quotas  bool
	vrf     *kt.VRFPrivateKey
	log     *log.Log
	engine  *commands.Engine

	budget    commands.Budget // what limiters say of FetchKeyPackage
	settle    func()          // waits until nothing moves any more
	start     time.Time
	shown     uint64 // log records already printed
	keyEvents uint64 // of the newest HEAD printed
	keys      map[string]ed25519.PrivateKey
	tokens    map[string][]byte   // by session name
	requests  map[string][]byte   // request ids by name
	names     map[string]string   // bytes → name, for printing
	counts    map[string]int      // names given so far, by kind
	last      func() []string     // sends the last request again
	passed    []*commands.Passing // not shown yet
}

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
	Context() context.Context
}

func newWorld(t tester, quotas bool) *world { return newWorldOn(t, vfs.NewMem(), quotas) }

// newWorldOn makes a world on an empty file system.
func newWorldOn(t tester, fs vfs.FS, quotas bool) *world {
	w := &world{
		t: t, fs: fs, dir: "data", storeID: [16]byte{1}, quotas: quotas,
		vrf:    kt.NewVRFPrivateKey(seedFrom("vrf")),
		settle: synctest.Wait,
		start:  time.Now(),
		keys:   map[string]ed25519.PrivateKey{}, tokens: map[string][]byte{}, requests: map[string][]byte{},
		names: map[string]string{}, counts: map[string]int{},
	}
	w.check(w.fs.MkdirAll(w.dir, 0o700))
	root, err := w.fs.OpenDir("")
	w.check(err)
	w.check(errors.Join(root.Sync(), root.Close()))
	w.check(log.Create(w.fs, w.dir, w.storeID, w.firstRecord()))
	w.open()
	w.boot()
	w.shown = w.log.Size()
	t.Cleanup(func() { w.check(w.log.Close()) })
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// firstRecord is the CONFIG at index 0.
func (w *world) firstRecord() log.Record {
	config, err := kt.NewConfig(serverName, w.key("log").Public().(ed25519.PublicKey), w.vrf.PublicKey())
	w.check(err)
	leaf := kt.AppendConfigLeaf(nil, config)
	event := &pb.Event{TimeMs: w.now(), Body: &pb.Event_ServerConfigured{
		ServerConfigured: &pb.ServerConfigured{Config: leaf[1:]},
	}}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(event)
	w.check(err)
	return log.Record{Leaf: leaf, Event: raw}
}

func (w *world) open() {
	var err error
	w.log, err = log.Open(w.fs, w.dir, log.Options{StoreID: w.storeID})
	w.check(err)
}

func (w *world) boot() {
	var err error
	w.engine, err = commands.Start(w.t.Context(), commands.Options{
		Log: w.log, FS: w.fs, Dir: w.dir, Quotas: w.quotas, AcceptTime: true,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		LogKey: w.key("log"), VRF: w.vrf,
	})
	w.check(err)
}

func (w *world) stop() {
	w.check(w.engine.Stop(context.Background()))
}

// digest is the digest of the published views.
func (w *world) digest() projections.Hash {
	view := w.view()
	defer view.Release()
	digest, err := projections.Digest(view.Reader)
	w.check(err)
	return digest
}

func (w *world) view() *commands.View {
	view, err := w.engine.View()
	w.check(err)
	return view
}

// rebuild stops the engine, drops the views and starts again: folding the log
// must give what stood there.
func (w *world) rebuild() {
	size, before := w.log.Size(), w.digest()
	w.stop()
	w.check(w.fs.RemoveAll(w.fs.PathJoin(w.dir, "views")))
	w.boot()
	w.sameViews(size, before)
}

// sameViews checks views after a restart: they are what the log says, and up to
// the size before it the log says what the views were. A start adds its HEAD.
func (w *world) sameViews(size uint64, before projections.Hash) bool {
	folded, err := commands.DigestOf(w.log, size)
	w.check(err)
	if folded != before {
		w.t.Errorf("the log gives digest %x at %d, the views had %x", folded, size, before)
	}
	now, err := commands.DigestOf(w.log, size+1)
	w.check(err)
	if w.log.Size() != size+1 || w.digest() != now {
		w.t.Errorf("after a restart the log has %d records of %d, and the views digest %x, not %x", w.log.Size(), size+1, w.digest(), now)
	}
	return folded == before && w.digest() == now
}

// sleep lets time pass while everything is closed, so that a month costs no
// months of housekeeping timers, and then lets housekeeping come by once.
func (w *world) sleep(d time.Duration) {
	if d > time.Minute {
		w.stop()
		w.check(w.log.Close())
		time.Sleep(d - 15*time.Second)
		w.open()
		w.boot()
		d = 15 * time.Second
	}
	time.Sleep(d)
}

// now is the time in Unix milliseconds.
func (w *world) now() uint64 { return uint64(time.Now().UnixMilli()) }

// key is the private key of a name; the same name has the same key in each run.
func (w *world) key(name string) ed25519.PrivateKey {
	if key, known := w.keys[name]; known {
		return key
	}
	seed := seedFrom("key: " + name)
	key := ed25519.NewKeyFromSeed(seed[:])
	w.keys[name] = key
	w.names[string(key.Public().(ed25519.PublicKey))] = name
	return key
}

func (w *world) public(name string) ed25519.PublicKey {
	return w.key(name).Public().(ed25519.PublicKey)
}

// signer is the private key that belongs to a public one, or that of a name when
// nobody has it.
func (w *world) signer(public []byte, otherwise string) ed25519.PrivateKey {
	if name, known := w.names[string(public)]; known {
		if key, known := w.keys[name]; known {
			return key
		}
	}
	return w.key(otherwise)
}

// requestID is the UUIDv7 of a name: made at its first use, of that moment
// shifted by age.
func (w *world) requestID(name string, age time.Duration) []byte {
	if id, known := w.requests[name]; known {
		return id
	}
	random := seedFrom("request: " + name)
	id := random[:16:16]
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(time.Now().Add(-age).UnixMilli()))
	copy(id, ms[2:])
	id[6] = 0x70 | id[6]&0x0f
	id[8] = 0x80 | id[8]&0x3f
	w.requests[name] = id
	w.names[string(id)] = name
	return id
}

// call names something when it is first seen: m1, m2, ….
func (w *world) call(kind string, value []byte) string {
	if name, known := w.names[string(value)]; known {
		return name
	}
	w.counts[kind]++
	name := fmt.Sprintf("%s%d", kind, w.counts[kind])
	w.names[string(value)] = name
	return name
}
