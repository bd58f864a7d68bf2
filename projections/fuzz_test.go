package projections

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// FuzzApply applies a list of arbitrary events, each with its length before it,
// after a good beginning. Whatever they are: no panic, an event is applied or
// refused with its index, a refused one changes nothing, and what was applied
// gives the same digest again.
func FuzzApply(f *testing.F) {
	seeds := newWorld(f)
	seeds.register("alice", "bob")
	seeds.send(1, "alice", "bob")
	good := len(seeds.entries)
	seeds.send(2, "alice", "bob")
	seeds.do(drained(deviceKey("bob"), 1))
	seeds.do(sessionStarted("alice", 1, seeds.now+dayMS))
	seeds.do(passwordChanged("alice", 2, tokenOf("alice", 1)))
	seeds.do(released(deviceKey("bob"), 1))
	seeds.do(acked(deviceKey("bob"), 0, 2))
	seeds.do(identityEntry("alice", 1))
	seeds.doWith(&pb.RequestAnswered{}, receiptOf("alice", 200, requestID(seeds.now, 1), "x"))
	seeds.do(&pb.ReceiptsExpired{BeforeMs: seeds.now})
	seeds.now += 2 * dayMS
	seeds.send(3, "alice", "bob")
	seeds.now += 2 * dayMS
	seeds.do(expired(deviceKey("bob"), 3))
	seeds.do(sessionsEnded(tokenOf("alice", 1)))
	var all []byte
	for _, e := range seeds.entries[good:] {
		f.Add(protowire.AppendBytes(nil, e.Raw))
		all = protowire.AppendBytes(all, e.Raw)
	}
	f.Add(all)
	beginning := seeds.entries[:good]
	seeds.close()

	f.Fuzz(func(t *testing.T, input []byte) {
		w := emptyWorld(t)
		w.entries = append(w.entries, beginning...)
		w.replayInto(w.views, 0, len(beginning))
		for len(input) > 0 && len(w.entries) < 64 {
			raw, n := protowire.ConsumeBytes(input)
			if n < 0 {
				break
			}
			input = input[n:]
			fuzzApplyOne(t, w, raw)
		}
		live := w.digest()
		again, err := DropAndRecreate(w.fs, "copy", Options{LogSize: uint64(len(w.entries))})
		if err != nil {
			t.Fatal(err)
		}
		w.replayInto(again, 0, 5)
		if digestOf(t, again) != live {
			t.Fatal("the same events gave another digest")
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
		w.close()
	})
}

func fuzzApplyOne(t *testing.T, w *world, raw []byte) {
	t.Helper()
	ev, err := DecodeEvent(raw)
	if err != nil {
		if !errors.Is(err, ErrInvalidEvent) {
			t.Fatalf("decode: %v", err)
		}
		return
	}
	e := &Entry{Index: uint64(len(w.entries)), Raw: raw, Event: ev}
	if entry := ev.GetKeyTransparencyEntry(); len(entry.GetId()) > maxKTID {
		e.Leaf = make([]byte, kt.KTLeafSize)
		e.Leaf[0] = byte(kt.ClassKT)
	} else {
		e.Leaf = LeafOf(ev, raw, e.Opening, testLabel(entry))
	}
	w.commit()
	before := proto.Clone(ev)
	b := w.views.NewBatch()
	err = Apply(b, e)
	if !proto.Equal(before, ev) {
		t.Fatal("Apply changed the event")
	}
	if err == nil {
		w.entries = append(w.entries, e)
		w.batch = b
		return
	}
	var where *ApplyError
	if !errors.Is(err, ErrInvalidEvent) || !errors.As(err, &where) || where.Index != e.Index {
		t.Fatalf("refused with %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// FuzzSnapshot reads arbitrary snapshot files: one is refused as bad, or its
// rows have the digest that it tells.
func FuzzSnapshot(f *testing.F) {
	w := newWorld(f)
	w.register("alice")
	w.commit()
	s := w.views.Snapshot()
	var file bytes.Buffer
	if _, err := writeSnapshot(&file, s, s.Size()); err != nil {
		f.Fatal(err)
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	w.close()
	f.Add(file.Bytes())
	f.Add(file.Bytes()[:50])
	f.Fuzz(func(t *testing.T, input []byte) {
		rows := newDigester()
		_, digest, err := readSnapshot(bytes.NewReader(input), func(key, value []byte) error {
			rows.add(key, value)
			return nil
		})
		if err == nil && rows.sum() != digest {
			t.Fatal("accepted with another digest")
		}
		if err != nil && !errors.Is(err, ErrBadSnapshot) {
			t.Fatalf("refused with %v", err)
		}
	})
}
