package kt

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// deltas cuts a log as a server does.
func (l *testLog) deltas() (deltas []Delta) {
	d := Delta{}
	for _, leaf := range l.indexed() {
		d.Leaves = append(d.Leaves, leaf)
		if Class(leaf.Leaf[0]) == ClassHead && must(ParseLeaf(leaf.Leaf)).Head.Epoch%EpochsPerDelta == EpochsPerDelta-1 {
			deltas = append(deltas, d)
			d = Delta{Number: d.Number + 1}
		}
	}
	if len(d.Leaves) > 0 {
		deltas = append(deltas, d)
	}
	return deltas
}

func TestDeltasReplay(t *testing.T) {
	l := busyLog(t)
	for range 2 * EpochsPerDelta {
		l.opaque(1)
		l.head()
	}
	deltas := l.deltas()
	if len(deltas) != 3 {
		t.Fatalf("%d deltas", len(deltas))
	}
	r := NewKTReplayer()
	for _, d := range deltas {
		raw := AppendDelta(nil, d)
		parsed, err := ParseDelta(raw)
		if err != nil || !bytes.Equal(AppendDelta(nil, parsed), raw) || parsed.Number != r.Next() {
			t.Fatalf("delta %d: %v", d.Number, err)
		}
		// First a part of it, as it was served when it was the newest.
		part := parsed
		for i, leaf := range part.Leaves {
			if Class(leaf.Leaf[0]) == ClassHead {
				part.Leaves = part.Leaves[:i+1]
				break
			}
		}
		if err := r.Apply(must(ParseDelta(AppendDelta(nil, part)))); err != nil {
			t.Fatalf("part of delta %d: %v", d.Number, err)
		}
		var state bytes.Buffer
		if _, err := r.WriteTo(&state); err != nil {
			t.Fatal(err)
		}
		if r, err = ReadKTReplayer(&state); err != nil {
			t.Fatal(err)
		}
		if err := r.Apply(parsed); err != nil {
			t.Fatalf("delta %d: %v", d.Number, err)
		}
	}
	if r.Map().Root() != l.r.Map().Root() || r.HeadsRoot() != l.r.HeadsRoot() || r.Heads() != uint64(len(l.heads)) {
		t.Error("another root than the full replay")
	}
	c := must(peekCheckpoint(l.signed(l.size())))
	path := must(l.tree.InclusionProof(l.size()-1, l.size()))
	if err := r.Check(c, path); err != nil {
		t.Error(err)
	}
	c.Root[0] ^= 1
	wantStep(t, r.Check(c, path), StepHead, "not in the checkpoint's tree")
	if c.Size--; !errors.Is(r.Check(c, path), ErrMalformed) {
		t.Error("a checkpoint of another size passed")
	}
	c.Size, c.Origin = c.Size+1, Origin(testServer, 7)
	wantStep(t, r.Check(c, path), StepConfig, "/7")
	if err := r.Apply(deltas[0]); !errors.Is(err, ErrDelta) {
		t.Errorf("an old delta: %v", err)
	}
}

// TestDeltaThatLies: what a server leaves out of deltas, or changes in them, its
// own HEADs contradict.
func TestDeltaThatLies(t *testing.T) {
	l := busyLog(t)
	good := l.deltas()[0]
	at := func(class Class) int {
		return slices.IndexFunc(good.Leaves, func(l IndexedLeaf) bool { return Class(l.Leaf[0]) == class })
	}
	without := func(i int) Delta { return Delta{Leaves: slices.Delete(slices.Clone(good.Leaves), i, i+1)} }
	with := func(i int, leaf []byte) Delta {
		d := Delta{Leaves: slices.Clone(good.Leaves)}
		d.Leaves[i].Leaf = leaf
		return d
	}
	kt := good.Leaves[at(ClassKT)].Leaf
	wantStep(t, NewKTReplayer().Apply(without(at(ClassKT))), StepHead, "kt_count")
	wantStep(t, NewKTReplayer().Apply(with(at(ClassKT), AppendKTLeaf(nil, Label(kt[1:33]), Hash{1}))), StepMap, "map_root")
	wantStep(t, NewKTReplayer().Apply(without(at(ClassConfig))), StepConfig, "index 0")
	r := NewKTReplayer()
	part := Delta{Leaves: good.Leaves[:at(ClassHead)+1]}
	if err := r.Apply(part); err != nil {
		t.Fatal(err)
	}
	h := must(ParseLeaf(part.Leaves[at(ClassHead)].Leaf)).Head
	h.TimeMS++
	wantStep(t, r.Apply(with(at(ClassHead), AppendHeadLeaf(nil, h))), StepHead, "is another leaf now")
}

func TestParseDeltaRefuses(t *testing.T) {
	l := busyLog(t)
	good := l.deltas()[0]
	raw := AppendDelta(nil, good)
	change := func(f func(d *Delta)) []byte {
		d := Delta{good.Number, slices.Clone(good.Leaves)}
		f(&d)
		return AppendDelta(nil, d)
	}
	for name, bad := range map[string][]byte{
		"nothing":             nil,
		"no number":           raw[:len(deltaMagic)+7],
		"no leaf":             raw[:len(deltaMagic)+8],
		"another magic":       append([]byte("qpc-delta-v2\n"), raw[len(deltaMagic):]...),
		"half a leaf":         raw[:len(raw)-1],
		"a byte more":         append(bytes.Clone(raw), 0),
		"an end without HEAD": change(func(d *Delta) { d.Leaves = d.Leaves[:len(d.Leaves)-1] }),
		"an OPAQUE leaf":      change(func(d *Delta) { d.Leaves[1].Leaf = AppendOpaqueLeaf(nil, Hash{}) }),
		"a malformed leaf":    change(func(d *Delta) { d.Leaves[1].Leaf = []byte{1} }),
		"an index twice":      change(func(d *Delta) { d.Leaves[1].Index = 0 }),
		"another number":      change(func(d *Delta) { d.Number = 1 }),
		"a huge number":       change(func(d *Delta) { d.Number = 1 << 60 }),
		"a HEAD left out": change(func(d *Delta) {
			d.Leaves = slices.Delete(d.Leaves, 1, 2)
		}),
	} {
		if d, err := ParseDelta(bad); !errors.Is(err, ErrDelta) {
			t.Errorf("%s: got %d leaves, %v", name, len(d.Leaves), err)
		}
	}
	for range 2 * EpochsPerDelta {
		l.head()
	}
	long := Delta{Leaves: l.indexed()}
	if _, err := ParseDelta(AppendDelta(nil, long)); !errors.Is(err, ErrDelta) || !strings.Contains(err.Error(), "epoch 256 in delta 0") {
		t.Errorf("more than 256 epochs: %v", err)
	}
}

// fuzzDelta: what is parsed is appended to the same bytes, and a replayer takes it
// or names a class of error.
func fuzzDelta(t *testing.T, raw []byte) {
	d, err := ParseDelta(raw)
	if err != nil {
		if !errors.Is(err, ErrDelta) {
			t.Fatalf("unclassified error: %v", err)
		}
		return
	}
	if !bytes.Equal(AppendDelta(nil, d), raw) {
		t.Fatal("appended again it is another")
	}
	var e *EvidenceError
	if err := NewKTReplayer().Apply(d); err != nil && !errors.As(err, &e) && !errors.Is(err, ErrDelta) && !errors.Is(err, ErrFormat) {
		t.Fatalf("unclassified error: %v", err)
	}
}
