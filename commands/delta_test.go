package commands

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/kt"
	"quicprochat/log"
)

// naiveDelta reads the whole log.
func (b *bed) naiveDelta(n uint64, width int) []byte {
	b.t.Helper()
	d := kt.Delta{Number: n}
	first, epochs := n*kt.EpochsPerDelta, uint64(0)
	err := b.log.Iterate(0, b.log.Size(), func(index uint64, r log.Record) error {
		class := kt.Class(r.Leaf[0])
		if epochs >= first && epochs < first+uint64(width) && class != kt.ClassOpaque {
			d.Leaves = append(d.Leaves, kt.IndexedLeaf{Index: index, Leaf: bytes.Clone(r.Leaf)})
		}
		if class == kt.ClassHead {
			epochs++
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return kt.AppendDelta(nil, d)
}

// TestDelta compares deltas, whole and partial, with the log, and replays them.
func TestDelta(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	defer b.close()
	const people = 20
	for n := range people {
		p := b.register(n + 1)
		b.mustSend(p, p, 1, "a message between")
	}
	for range 2*kt.EpochsPerDelta + 10 - people {
		if err := b.engine.sealHead(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	view, err := b.engine.View()
	if err != nil {
		t.Fatal(err)
	}
	defer view.Release()
	at := &Checkpoint{Views: view.Reader}
	for _, c := range []struct {
		n     uint64
		width int
	}{{0, 1}, {0, 2}, {0, 100}, {0, 256}, {1, 1}, {1, 256}, {2, 1}, {2, 11}} {
		got, err := b.engine.Delta(at, c.n, c.width)
		if err != nil || !bytes.Equal(got, b.naiveDelta(c.n, c.width)) {
			t.Errorf("delta %d of %d epochs is not what the log holds (%v)", c.n, c.width, err)
		}
	}
	r := kt.NewKTReplayer()
	for n, width := range []int{256, 256, 11} {
		raw, err := b.engine.Delta(at, uint64(n), width)
		if err != nil {
			t.Fatal(err)
		}
		d, err := kt.ParseDelta(raw)
		if err == nil {
			err = r.Apply(d)
		}
		if err != nil {
			t.Fatalf("delta %d: %v", n, err)
		}
	}
	if head, index, ok := r.Head(); !ok || index != b.log.Size()-1 || head.KTCount != 2*people {
		t.Errorf("replayed to index %d with %d key events", index, head.KTCount)
	}
}
