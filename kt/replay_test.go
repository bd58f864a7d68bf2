package kt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	pb "quicprochat/proto/qpcv1"
)

// busyLog has everything in it: people, key changes, hand-overs, revocations, a
// deleted account and a new log key.
func busyLog(t testing.TB) *testLog {
	t.Helper()
	l := newTestLog(t)
	l.head()
	alice := l.register("alice", 10)
	l.head()
	l.opaque(5)
	l.register("bob", 20)
	alice.publish()
	l.head()
	l.head()
	l.revoke(public(testKey(12)), pb.Authority_IDENTITY, alice.identity)
	alice.devices = alice.devices[:1]
	alice.succeed(30).publish()
	l.rotate(3, 1)
	l.head()
	l.opaque(3)
	l.bind("bob", &pb.AccountBinding{Tombstone: true})
	l.entry(KindIdentity, public(testKey(20)), nil)
	l.head()
	return l
}

func (l *testLog) indexed() (leaves []IndexedLeaf) {
	for i, leaf := range l.leaves {
		if Class(leaf[0]) != ClassOpaque {
			leaves = append(leaves, IndexedLeaf{uint64(i), leaf})
		}
	}
	return leaves
}

func wantStep(t testing.TB, err error, step Step, text string) {
	t.Helper()
	var e *EvidenceError
	if !errors.As(err, &e) || e.Step != step || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want evidence of step %s with %q", err, step, text)
	}
}

func TestReplayOfAnHonestLog(t *testing.T) {
	l := busyLog(t)
	r := NewReplayer()
	if r.Size() != 0 || r.Root() != EmptyHeadsRoot {
		t.Errorf("before the first leaf: %d, %x", r.Size(), r.Root())
	}
	for i, leaf := range l.leaves {
		if err := r.Append(leaf); err != nil {
			t.Fatalf("index %d: %v", i, err)
		}
		if got, want := r.Root(), Hash(l.tree.HashAt(uint64(i)+1)); got != want || r.Size() != uint64(i)+1 {
			t.Fatalf("root of %d leaves is %x, want %x", r.Size(), got, want)
		}
		if Class(leaf[0]) != ClassHead {
			continue
		}
		c := must(peekCheckpoint(l.signed(r.Size())))
		if err := r.Check(c); err != nil {
			t.Errorf("checkpoint of %d leaves: %v", c.Size, err)
		}
	}
	h, index, ok := r.Head()
	if c, at, _ := r.Config(); !ok || index != l.size()-1 || h.Epoch+1 != r.Heads() || h.MapRoot != r.Map().Root() ||
		!bytes.Equal(r.HeadLeaf(), l.leaves[index]) || at != l.configs[1] || !c.LogKey.Equal(public(testKey(3))) {
		t.Errorf("after all: head %+v at %d, config at %d", h, index, at)
	}
}

func TestReplayRefuses(t *testing.T) {
	l := busyLog(t)
	kt := l.leaves[2]
	head := func(change func(*Head)) []byte {
		h := l.r.NextHead(l.nowMS)
		change(&h)
		return AppendHeadLeaf(nil, h)
	}
	unsigned := must(ParseLeaf(l.leaves[l.configs[1]])).Config
	unsigned.Link(l.configs[1], testKey(9))
	newer := unsigned
	newer.FormatVersion = FormatVersion + 1
	newer.Link(l.configs[1], testKey(3))
	for _, test := range []struct {
		name, text string
		step       Step
		leaf       []byte
	}{
		{"an unknown class", "unknown class", StepLeaf, []byte{9}},
		{"half a leaf", "OPAQUE leaf of 32", StepLeaf, l.leaves[6][:32]},
		{"a label again", "stands again", StepMap, kt},
		{"a label with another commitment", "stands again", StepMap, AppendKTLeaf(nil, Label(kt[1:33]), Hash{1})},
		{"the first CONFIG again", "at index 0, once", StepConfig, l.leaves[0]},
		{"a CONFIG that nobody signed", "not signed", StepConfig, AppendConfigLeaf(nil, unsigned)},
		{"an epoch left out", "epoch is", StepHead, head(func(h *Head) { h.Epoch++ })},
		{"an epoch again", "epoch is", StepHead, l.leaves[l.heads[2]]},
		{"another prev_head", "prev_head is", StepHead, head(func(h *Head) { h.PrevHead-- })},
		{"an older CONFIG", "config is", StepHead, head(func(h *Head) { h.Config = 0 })},
		{"time that goes back", "time_ms is", StepHead, head(func(h *Head) { h.TimeMS-- })},
		{"a key not counted", "kt_count is", StepHead, head(func(h *Head) { h.KTCount-- })},
		{"another map root", "map_root is", StepMap, head(func(h *Head) { h.MapRoot[31] ^= 1 })},
		{"another heads root", "heads_root is", StepHeads, head(func(h *Head) { h.HeadsRoot[0] ^= 1 })},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := l.r.Root()
			wantStep(t, l.r.Append(test.leaf), test.step, test.text)
			if l.r.Root() != before {
				t.Error("the refused leaf was appended")
			}
		})
	}
	if err := l.r.Append(AppendConfigLeaf(nil, newer)); !errors.Is(err, ErrFormat) {
		t.Errorf("a newer format: %v", err)
	}
	if err := l.r.Append(head(func(*Head) {})); err != nil {
		t.Errorf("the right HEAD after all that: %v", err)
	}
	wantStep(t, NewReplayer().Append(kt), StepConfig, "at index 0")
	old := NewReplayer()
	zero := testConfig(t)
	zero.FormatVersion = 0
	if err := old.Append(AppendConfigLeaf(nil, zero)); err != nil {
		t.Fatal(err)
	}
	wantStep(t, old.Append(AppendHeadLeaf(nil, old.NextHead(testStart))), StepHead, "format 0")
}

func TestReplayChecksCheckpoints(t *testing.T) {
	l := busyLog(t)
	good := must(peekCheckpoint(l.signed(l.size())))
	other := good
	other.Root[0] ^= 1
	wantStep(t, l.r.Check(other), StepConsistency, "the checkpoint says")
	other = good
	other.Origin = Origin(testServer, 9)
	wantStep(t, l.r.Check(other), StepConfig, "/9")
	other = good
	if other.Size--; !errors.Is(l.r.Check(other), ErrMalformed) {
		t.Error("a checkpoint of another size passed")
	}
	l.opaque(1)
	wantStep(t, l.r.Check(must(peekCheckpoint(l.signed(l.size())))), StepHead, "the last is no HEAD")
}

func TestReplayGoesOnFromItsState(t *testing.T) {
	l := busyLog(t)
	for stop := range l.leaves {
		r := NewReplayer()
		for _, leaf := range l.leaves[:stop] {
			if err := r.Append(leaf); err != nil {
				t.Fatal(err)
			}
		}
		var state bytes.Buffer
		if n, err := r.WriteTo(&state); err != nil || n != int64(state.Len()) {
			t.Fatalf("wrote %d of %d bytes: %v", n, state.Len(), err)
		}
		again, err := ReadReplayer(&state)
		if err != nil {
			t.Fatalf("stopped at %d: %v", stop, err)
		}
		for i, leaf := range l.leaves[stop:] {
			if err := again.Append(leaf); err != nil {
				t.Fatalf("stopped at %d, index %d: %v", stop, stop+i, err)
			}
		}
		if again.Root() != l.r.Root() || again.Map().Root() != l.r.Map().Root() || again.HeadsRoot() != l.r.HeadsRoot() {
			t.Fatalf("stopped at %d: another root", stop)
		}
	}
}

func TestDamagedReplayState(t *testing.T) {
	l := busyLog(t)
	var state bytes.Buffer
	if _, err := l.r.WriteTo(&state); err != nil {
		t.Fatal(err)
	}
	good := state.Bytes()
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if _, err := ReadReplayer(bytes.NewReader(bad)); !errors.Is(err, ErrReplayState) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := ReadReplayer(bytes.NewReader(good[:i])); !errors.Is(err, ErrReplayState) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := ReadReplayer(bytes.NewReader(append(bytes.Clone(good), 0))); !errors.Is(err, ErrReplayState) {
		t.Errorf("a byte more: %v", err)
	}
	if _, err := ReadKTReplayer(bytes.NewReader(good)); !errors.Is(err, ErrReplayState) {
		t.Errorf("of another kind: %v", err)
	}
	if _, err := l.r.WriteTo(fullDisk{}); err == nil || err.Error() != "full" {
		t.Errorf("a full disk: %v", err)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("full") }

// BenchmarkReplay reads a log in which a HEAD follows 62 leaves of messages and one
// of a key.
func BenchmarkReplay(b *testing.B) {
	r := NewReplayer()
	if err := r.Append(newTestLog(b).leaves[0]); err != nil {
		b.Fatal(err)
	}
	n := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		n++
		var leaf []byte
		switch n % 64 {
		case 0:
			leaf = AppendHeadLeaf(nil, r.NextHead(testStart+n))
		case 1:
			leaf = AppendKTLeaf(nil, Label{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}, Hash{})
		default:
			leaf = AppendOpaqueLeaf(nil, Hash{byte(n), byte(n >> 8), byte(n >> 16)})
		}
		if err := r.Append(leaf); err != nil {
			b.Fatal(err)
		}
	}
}

// TestReplayerOfChosenLabels: labels that share their first bits make 255 nodes each.
// A log of them is found before it fills the memory.
func TestReplayerOfChosenLabels(t *testing.T) {
	l := newTestLog(t)
	r := NewReplayer()
	for _, leaf := range l.leaves {
		if err := r.Append(leaf); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 1000 {
		var label Label
		binary.BigEndian.PutUint32(label[:], uint32(n)*0x9e3779b1)
		for side := range 2 {
			label[31] = byte(side)
			if err := r.Append(AppendKTLeaf(nil, label, Hash{1})); err != nil {
				var e *EvidenceError
				if !errors.As(err, &e) || e.Step != StepMap || n < 10 {
					t.Fatalf("pair %d: %v", n, err)
				}
				return
			}
		}
	}
	t.Error("1000 pairs of labels that differ in the last bit alone were taken")
}
