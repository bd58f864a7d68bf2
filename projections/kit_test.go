package projections

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

func TestMain(m *testing.M) {
	// The race detector makes a case ten times as dear, and looks for what a few show.
	if os.Getenv("QPC_TEST_SCALE") == "race" {
		flag.Set("rapid.checks", "10") // the command line's number counts
	}
	goleak.VerifyTestMain(m)
}

// testT is what the kit needs of *testing.T, *testing.B, *testing.F and *rapid.T.
type testT interface {
	Helper()
	Fatalf(format string, args ...any)
}

// world is a store with a log of its own: what was applied, in order.
type world struct {
	t       testT
	fs      vfs.FS
	views   *Views
	batch   *Batch
	now     uint64
	entries []*Entry
}

const testStart = uint64(1_700_000_000_000)

// newWorld opens empty views in memory and applies the configuration.
func newWorld(t testT) *world {
	t.Helper()
	w := emptyWorld(t)
	w.do(&pb.ServerConfigured{Config: testConfig()})
	return w
}

func emptyWorld(t testT) *world {
	t.Helper()
	w := &world{t: t, fs: vfs.NewMem(), now: testStart}
	w.views = w.mustOpen(0)
	return w
}

func (w *world) mustOpen(logSize uint64) *Views {
	w.t.Helper()
	v, _, err := OpenOrRecreate(w.fs, "data", Options{LogSize: logSize, CacheBytes: 1 << 20})
	if err != nil {
		w.t.Fatalf("open: %v", err)
	}
	return v
}

// close ends the world; the log is taken to be durable.
func (w *world) close() {
	w.t.Helper()
	w.commit()
	w.views.MarkSynced(uint64(len(w.entries)))
	if err := w.views.Close(); err != nil {
		w.t.Fatalf("close: %v", err)
	}
}

func (w *world) commit() {
	w.t.Helper()
	if w.batch == nil {
		return
	}
	if err := w.batch.Commit(); err != nil {
		w.t.Fatalf("commit: %v", err)
	}
	w.batch = nil
}

// reader is the open batch, as commands see the views.
func (w *world) reader() *Batch {
	if w.batch == nil {
		w.batch = w.views.NewBatch()
	}
	return w.batch
}

// do applies an event, which must work; it stays in the open batch.
func (w *world) do(body proto.Message) *Entry {
	w.t.Helper()
	return w.doWith(body, nil)
}

func (w *world) doWith(body proto.Message, receipt *pb.Receipt) *Entry {
	w.t.Helper()
	e := w.entry(body, receipt)
	if err := Apply(w.reader(), e); err != nil {
		w.t.Fatalf("apply %T: %v", body, err)
	}
	w.entries = append(w.entries, e)
	return e
}

// refuse applies an event that must be refused for a reason; it changes nothing.
func (w *world) refuse(body proto.Message, reason string) {
	w.t.Helper()
	w.refuseEntry(w.entry(body, nil), reason)
}

func (w *world) refuseEntry(e *Entry, reason string) {
	w.t.Helper()
	w.commit()
	before := w.digest()
	b := w.views.NewBatch()
	err := Apply(b, e)
	if again := Apply(b, e); err != nil && again == nil {
		w.t.Fatalf("a batch took an event after a failed one")
	}
	if b.Commit() == nil {
		w.t.Fatalf("a batch with a refused event was committed")
	}
	if err := b.Close(); err != nil {
		w.t.Fatalf("close: %v", err)
	}
	var where *ApplyError
	if !errors.Is(err, ErrInvalidEvent) || !errors.As(err, &where) || where.Index != e.Index || !strings.Contains(err.Error(), reason) {
		w.t.Fatalf("apply %T: got %v, want a refusal with %q at %d", e.Event.GetBody(), err, reason, e.Index)
	}
	if after := w.digest(); after != before {
		w.t.Fatalf("a refused event changed the views")
	}
}

// digest commits and hashes the views.
func (w *world) digest() Hash {
	w.t.Helper()
	w.commit()
	return digestOf(w.t, w.views)
}

func digestOf(t testT, v *Views) Hash {
	t.Helper()
	s := v.Snapshot()
	d, err := Digest(s)
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatalf("digest: %v", err)
	}
	return d
}

// entry makes the log record of an event at the end of the log.
func (w *world) entry(body proto.Message, receipt *pb.Receipt) *Entry {
	w.t.Helper()
	return makeEntry(w.t, uint64(len(w.entries)), w.now, body, receipt)
}

func makeEntry(t testT, index, now uint64, body proto.Message, receipt *pb.Receipt) *Entry {
	t.Helper()
	ev := &pb.Event{TimeMs: now, Receipt: receipt}
	setBody(ev, body)
	raw, err := proto.Marshal(ev)
	if err != nil {
		t.Fatalf("marshal: %v", err)
	}
	e := &Entry{Index: index, Raw: raw, Event: ev, Opening: kt.Opening(bytesOf("opening", index)[:16])}
	e.Leaf = AppendLeaf(nil, ev, raw, e.Opening, testLabel(ev.GetKeyTransparencyEntry()))
	return e
}

// setBody puts a message into the field of Event.body that is of its type.
func setBody(ev *pb.Event, body proto.Message) {
	if body == nil {
		return
	}
	m := body.ProtoReflect()
	for i := range eventBody.Fields().Len() {
		if field := eventBody.Fields().Get(i); field.Message().FullName() == m.Descriptor().FullName() {
			ev.ProtoReflect().Set(field, protoreflect.ValueOfMessage(m))
			return
		}
	}
	panic(fmt.Sprintf("%T is no event", body))
}

// replayInto applies entries [from, len) in groups.
func (w *world) replayInto(v *Views, from uint64, group int) {
	w.t.Helper()
	v.MarkSynced(uint64(len(w.entries)))
	for from < uint64(len(w.entries)) {
		b := v.NewBatch()
		for range min(group, len(w.entries)-int(from)) {
			if err := Apply(b, reread(w.t, w.entries[from])); err != nil {
				w.t.Fatalf("replay: %v", err)
			}
			from++
		}
		if err := b.Commit(); err != nil {
			w.t.Fatalf("replay: %v", err)
		}
	}
}

// reread is an entry as it comes out of a log.
func reread(t testT, e *Entry) *Entry {
	t.Helper()
	ev, err := DecodeEvent(e.Raw)
	if err != nil {
		t.Fatalf("decode event %d: %v", e.Index, err)
	}
	read := &Entry{Index: e.Index, Leaf: e.Leaf, Opening: e.Opening, Raw: e.Raw, Event: ev}
	if err := read.Verify(); err != nil {
		t.Fatalf("verify: %v", err)
	}
	return read
}

// bytesOf makes 32 bytes that stand for parts.
func bytesOf(parts ...any) []byte {
	sum := sha256.Sum256([]byte(fmt.Sprint(parts...)))
	return sum[:]
}

func idOf(parts ...any) ID { return ID(bytesOf(parts...)[:16]) }

func keyOfName(parts ...any) Key { return Key(bytesOf(parts...)) }

// logKeyOf is the n-th log key of tests.
func logKeyOf(n int) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytesOf("log key", n)) }

// testVRF makes the labels of all tests.
var testVRF = kt.NewVRFPrivateKey([32]byte(bytesOf("vrf key")))

func testConfig() []byte {
	signer := logKeyOf(1)
	c, err := kt.NewConfig("localhost", signer.Public().(ed25519.PublicKey), testVRF.PublicKey())
	if err != nil {
		panic(err)
	}
	return kt.AppendConfig(nil, c)
}

// testLabel is the label that an entry's VRF proof says.
func testLabel(e *pb.KeyTransparencyEntry) kt.Label {
	if len(e.GetVrfProof()) != vrfProofSize {
		return kt.Label{}
	}
	label, err := kt.VRFProof(e.GetVrfProof()).Label()
	if err != nil {
		return kt.Label{}
	}
	return label
}
