package commands

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

func TestMain(m *testing.M) {
	// The race detector makes a case ten times as dear, and looks for what a few show.
	if os.Getenv("QPC_TEST_SCALE") == "race" {
		flag.Set("rapid.checks", "10") // the command line's number counts
	}
	goleak.VerifyTestMain(m)
}

// bed is an engine with the log and the file system under it.
type bed struct {
	t      testing.TB
	fs     vfs.FS
	log    *log.Log
	engine *Engine
	vrf    *kt.VRFPrivateKey
}

const bedDir = "data"

var bedStore = [16]byte{1, 2, 3}

// engineTest is what makes the tests' decide functions: one account per number,
// with everything derived from it.
type persona struct {
	account projections.ID
	device  projections.Key
	token   [32]byte // hash of the session token
	name    string
}

func personaOf(n int) persona {
	seed := sha256.Sum256(fmt.Appendf(nil, "persona %d", n))
	device := ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
	p := persona{device: projections.Key(device), name: fmt.Sprintf("user%d", n)}
	copy(p.account[:], seed[:16])
	p.token = sha256.Sum256(seed[:])
	return p
}

func quietLogger() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// createLog makes a data directory with nothing but the CONFIG leaf.
func createLog(t testing.TB, fs vfs.FS, dir string) *kt.VRFPrivateKey {
	t.Helper()
	vrf := kt.NewVRFPrivateKey(sha256.Sum256([]byte("vrf")))
	logKey := ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)
	config, err := kt.NewConfig("test.example", logKey, vrf.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	ev := &pb.Event{TimeMs: uint64(time.Now().UnixMilli()), Body: &pb.Event_ServerConfigured{
		ServerConfigured: &pb.ServerConfigured{Config: kt.AppendConfig(nil, config)},
	}}
	raw, err := proto.Marshal(ev)
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	parent, err := fs.OpenDir(fs.PathDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(parent.Sync(), parent.Close()); err != nil {
		t.Fatal(err)
	}
	first := log.Record{Leaf: projections.AppendLeaf(nil, ev, raw, kt.Opening{}, kt.Label{}), Event: raw}
	if err := log.Create(fs, dir, bedStore, first); err != nil {
		t.Fatal(err)
	}
	return vrf
}

// newBed creates a data directory on fs and starts an engine on it.
func newBed(t testing.TB, fs vfs.FS) *bed {
	t.Helper()
	vrf := createLog(t, fs, bedDir)
	b := &bed{t: t, fs: fs, vrf: vrf}
	b.open(Options{})
	return b
}

// open starts an engine on what lies in the file system.
func (b *bed) open(o Options) {
	b.t.Helper()
	if err := b.tryOpen(o); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) tryOpen(o Options) (err error) {
	b.t.Helper()
	if b.log, err = log.Open(b.fs, bedDir, log.Options{StoreID: bedStore}); err != nil {
		return err
	}
	o.Log, o.FS, o.Dir, o.Quotas = b.log, b.fs, bedDir, true
	if o.Logger == nil {
		o.Logger = quietLogger()
	}
	if b.engine, err = Start(context.Background(), o); err != nil {
		b.log.Close()
	}
	return err
}

// close stops the engine and closes the log. The engine's own failure is not
// the closing's.
func (b *bed) close() {
	b.t.Helper()
	err := b.engine.Stop(context.Background())
	if err != nil && b.engine.Err() == nil {
		b.t.Errorf("stop: %v", err)
	}
	if err := b.log.Close(); err != nil && b.engine.Err() == nil {
		b.t.Errorf("close the log: %v", err)
	}
}

// digest is the digest over the published views.
func (b *bed) digest() projections.Hash {
	b.t.Helper()
	v, err := b.engine.View()
	if err != nil {
		b.t.Fatal(err)
	}
	defer v.Release()
	digest, err := projections.Digest(v.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	return digest
}

// sameViews checks views after a restart: they are what the log says, and up to
// the size before it the log says what the views were. A start adds its HEAD.
func (b *bed) sameViews(size uint64, digest projections.Hash) error {
	b.t.Helper()
	if b.log.Size() != size+1 || !b.endsWithHead() {
		return fmt.Errorf("the restart took the log from %d to %d", size, b.log.Size())
	}
	for _, c := range []struct {
		size uint64
		want projections.Hash
	}{{size, digest}, {size + 1, b.digest()}} {
		if got, err := DigestOf(b.log, c.size); err != nil || got != c.want {
			return fmt.Errorf("the views at %d have digest %x, the log gives %x (%v)", c.size, c.want, got, err)
		}
	}
	return nil
}

// register makes persona n: account, device, key-transparency entries, session.
func (b *bed) register(n int) persona {
	b.t.Helper()
	p := personaOf(n)
	if _, err := b.engine.Do(context.Background(), &Command{Method: 101, Auth: pb.Auth_NONE, Decide: registerPersona(b.vrf, p)}); err != nil {
		b.t.Fatalf("register persona %d: %v", n, err)
	}
	return p
}

func registerPersona(vrf *kt.VRFPrivateKey, p persona) func(*Tx) (proto.Message, error) {
	name := PrepareKT(vrf, kt.KindAccount, []byte(p.name), 0)
	identity := PrepareKT(vrf, kt.KindIdentity, p.device[:], 0)
	keyset, err := proto.Marshal(&pb.KeySet{IdentityKey: p.device[:], DeviceKeys: [][]byte{p.device[:]}, Signature: make([]byte, 64), TimeMs: 1})
	binding, bindingErr := firstBinding(p.device[:])
	return func(tx *Tx) (proto.Message, error) {
		if err := errors.Join(err, bindingErr); err != nil {
			return nil, err
		}
		steps := []func() error{
			func() error { return tx.EmitKT(name, binding) },
			func() error { return tx.EmitKT(identity, keyset) },
			func() error {
				return tx.Emit(&pb.Event{Body: &pb.Event_AccountRegistered{AccountRegistered: &pb.AccountRegistered{
					AccountId: p.account[:], Username: p.name, IdentityKey: p.device[:], DeviceKey: p.device[:],
					Opaque:           &pb.OpaqueRecord{Upload: make([]byte, 192), CredentialId: make([]byte, 32), KeyVersion: 1},
					RegistrationHash: make([]byte, 32),
				}}})
			},
			func() error { return startPersona(tx, p, p.token) },
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return nil, err
			}
		}
		return &pb.OpaqueRegisterFinishResponse{ServerTimeMs: tx.Now()}, nil
	}
}

func startPersona(tx *Tx, p persona, token [32]byte) error {
	return tx.Emit(&pb.Event{Body: &pb.Event_SessionStarted{SessionStarted: &pb.SessionStarted{
		TokenHash: token[:], AccountId: p.account[:], DeviceKey: p.device[:],
		Scope: pb.SessionScope_DEVICE, ExpiresMs: tx.Now() + SessionLifetimeMS,
	}}})
}

// requestID makes a UUIDv7 of that time; n tells ids of the same time apart.
func mustDecode(t testing.TB, raw []byte) *pb.Event {
	t.Helper()
	ev, err := projections.DecodeEvent(raw)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

func requestID(ms uint64, n uint64) []byte {
	id := make([]byte, 16)
	binary.BigEndian.PutUint64(id, ms<<16)
	id[6] = 7 << 4
	binary.BigEndian.PutUint64(id[8:], n&(1<<62-1)|1<<63)
	return id
}

// sending is the command of a message that the fake decide function sends.
func sending(from, to persona, id []byte, payload []byte) *Command {
	return &Command{
		Method: 200, Auth: pb.Auth_SESSION, Token: from.token, Size: len(payload),
		RequestID: id, RequestHash: sha256.Sum256(payload),
		NewResponse: func() proto.Message { return new(pb.EnqueueResponse) },
		Decide:      func(tx *Tx) (proto.Message, error) { return sendFake(tx, to, payload) },
	}
}

// sendFake puts one message into the queue of a persona's device, for a day.
func sendFake(tx *Tx, to persona, payload []byte) (proto.Message, error) {
	return sendFakeFor(tx, to, payload, dayMS)
}

// sendFakeFor is sendFake with another time to live, in milliseconds.
func sendFakeFor(tx *Tx, to persona, payload []byte, ttlMS uint64) (proto.Message, error) {
	queue, found, err := projections.Queue(tx.View(), to.device)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, Refuse(pb.Status_NotFound, pb.Reason_NO_DEVICE, "nobody there")
	}
	id, sum := tx.NewID(), sha256.Sum256(payload)
	tx.PutPayload(to.account, id, payload)
	sender := tx.Caller().Account
	err = tx.Emit(&pb.Event{Body: &pb.Event_MessageEnqueued{MessageEnqueued: &pb.MessageEnqueued{
		MessageId: id[:], AccountId: to.account[:], SenderId: sender[:],
		Targets:     []*pb.MessageEnqueued_Target{{DeviceKey: to.device[:], Seq: queue.NextSeq}},
		PayloadSize: uint32(len(payload)), PayloadSha256: sum[:], ExpiresMs: tx.Now() + ttlMS,
	}}})
	return &pb.EnqueueResponse{MessageId: id[:], ServerTimeMs: tx.Now()}, err
}

// send sends one message and returns its id.
func (b *bed) send(from, to persona, n uint64, payload string) ([]byte, error) {
	resp, err := b.engine.Do(context.Background(), sending(from, to, requestID(b.engine.Now(), n), []byte(payload)))
	if err != nil {
		return nil, err
	}
	return resp.(*pb.EnqueueResponse).GetMessageId(), nil
}

func (b *bed) mustSend(from, to persona, n uint64, payload string) []byte {
	b.t.Helper()
	id, err := b.send(from, to, n, payload)
	if err != nil {
		b.t.Fatalf("send %d: %v", n, err)
	}
	return id
}

// items lists the published queue of a persona.
func (b *bed) items(p persona) []projections.QueueItem {
	b.t.Helper()
	v, err := b.engine.View()
	if err != nil {
		b.t.Fatal(err)
	}
	defer v.Release()
	items, _, err := projections.QueueItems(v.Reader, p.device, 1, 1<<20, 1<<40)
	if err != nil {
		b.t.Fatal(err)
	}
	return items
}

// gateFS lets tests hold back and count syncs of files under the log.
type gateFS struct {
	vfs.FS
	mu     sync.Mutex
	cond   *sync.Cond
	match  func(name string) bool
	closed bool // syncs of matching files wait
	held   int  // that wait now
	passed int  // that were let through
}

func newGateFS(fs vfs.FS, match func(name string) bool) *gateFS {
	g := &gateFS{FS: fs, match: match}
	g.cond = sync.NewCond(&g.mu)
	return g
}

func (g *gateFS) set(closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = closed
	g.cond.Broadcast()
}

// waitHeld waits until n syncs are held back.
func (g *gateFS) waitHeld(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.held < n {
		g.cond.Wait()
	}
}

func (g *gateFS) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held++
	g.cond.Broadcast()
	for g.closed {
		g.cond.Wait()
	}
	g.held--
	g.passed++
}

func (g *gateFS) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !g.match(name) {
		return f, err
	}
	return &gateFile{f, g}, nil
}

func (g *gateFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.Create(name, c)
	return g.wrap(name, f, err)
}

func (g *gateFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.ReuseForWrite(old, name, c)
	return g.wrap(name, f, err)
}

func (g *gateFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.OpenReadWrite(name, c, o...)
	return g.wrap(name, f, err)
}

type gateFile struct {
	vfs.File
	gate *gateFS
}

func (f *gateFile) Sync() error     { f.gate.pass(); return f.File.Sync() }
func (f *gateFile) SyncData() error { f.gate.pass(); return f.File.SyncData() }

// ackFake removes the first items of a persona's queue.
func ackFake(p persona, upTo uint64) func(*Tx) (proto.Message, error) {
	return func(tx *Tx) (proto.Message, error) {
		return nil, tx.Emit(&pb.Event{Body: &pb.Event_MessagesAcked{
			MessagesAcked: &pb.MessagesAcked{DeviceKey: p.device[:], UpTo: upTo},
		}})
	}
}
