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

// FuzzInputs gives arbitrary bytes to what reads them, by the selector: to Apply, as
// events, or to the reader of snapshots.
func FuzzInputs(f *testing.F) {
	apply, events := fuzzApply(f)
	for _, seed := range events {
		f.Add(uint8(0), seed)
	}
	file := snapshotSeed(f)
	f.Add(uint8(1), file)
	f.Add(uint8(1), file[:50])
	f.Fuzz(func(t *testing.T, selector uint8, input []byte) {
		if selector%2 == 0 {
			apply(t, input)
		} else {
			fuzzSnapshot(t, input)
		}
	})
}

// fuzzApply applies a list of arbitrary events, each with its length before it,
// after a good beginning. Whatever they are: no panic, an event is applied or
// refused with its index, and what was applied gives the same digest again.
func fuzzApply(f *testing.F) (apply func(*testing.T, []byte), lists [][]byte) {
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
	seeds.do(roleChanged("alice", pb.Role_ADMIN, &pb.Actor{Way: pb.Actor_SOCKET}))
	seeds.do(channelCreated("c", "alice"))
	seeds.do(membersChanged("c", "alice", []string{"bob"}, nil))
	seeds.do(memberUpdated("c", "bob", true, nil))
	seeds.do(channelUpdated("c", "alice", 2))
	seeds.do(posted(9, "c", "alice", 1, seeds.now+dayMS, target(deviceKey("bob"), 3)))
	seeds.do(acked(deviceKey("bob"), 0, 3))
	seeds.do(uploadedKP("bob", 1, 1, 1, seeds.now+dayMS))
	seeds.do(uploadedKP("bob", 2, 1, 0, seeds.now+dayMS))
	seeds.do(takenKP("bob", 1, 1, 1, seeds.now+dayMS))
	seeds.do(replaced("alice", "alice", "alice2"))
	seeds.do(handOver("alice", "alice2", 1))
	seeds.do(revoked(identityKey("alice"), seeds.now, pb.Authority_KEY))
	seeds.now += 2 * dayMS
	seeds.send(3, "alice", "bob")
	seeds.now += 2 * dayMS
	seeds.do(expired(deviceKey("bob"), 4))
	seeds.do(expiredKP("bob", 1, seeds.now-3*dayMS))
	seeds.do(releasedKP("bob", 1, seeds.now-3*dayMS))
	seeds.do(sessionsEnded(tokenOf("alice", 1)))
	bob := deviceKey("bob")
	seeds.do(&pb.KeyRevoked{Key: bob[:], Actor: bySession("alice")})
	seeds.do(revoked(bob, seeds.now, pb.Authority_ADMINISTRATOR))
	var all []byte
	for _, e := range seeds.entries[good:] {
		lists = append(lists, protowire.AppendBytes(nil, e.Raw))
		all = protowire.AppendBytes(all, e.Raw)
	}
	lists = append(lists, all)
	// All runs begin on the same views; none commits.
	w := emptyWorld(f)
	w.entries = seeds.entries[:good]
	w.replayInto(w.views, 0, good)
	seeds.close()
	f.Cleanup(w.close)

	return func(t *testing.T, input []byte) {
		var applied []*Entry
		b := w.views.NewBatch()
		for len(input) > 0 && len(applied) < 64 {
			raw, n := protowire.ConsumeBytes(input)
			if n < 0 {
				break
			}
			input = input[n:]
			e := fuzzEntry(t, uint64(good+len(applied)), raw)
			if e == nil {
				continue
			}
			if fuzzApplyOne(t, b, e) {
				applied = append(applied, e)
				continue
			}
			closeBatch(t, b)
			b = applyAgain(t, w.views, applied)
		}
		live := digestOfBatch(t, b)
		closeBatch(t, b)
		b = applyAgain(t, w.views, applied)
		if digestOfBatch(t, b) != live {
			t.Fatal("the same events gave another digest")
		}
		closeBatch(t, b)
	}, lists
}

// fuzzEntry makes the log record of an event; nil when the bytes are none.
func fuzzEntry(t *testing.T, index uint64, raw []byte) *Entry {
	t.Helper()
	ev, err := DecodeEvent(raw)
	if err != nil {
		if !errors.Is(err, ErrInvalidEvent) {
			t.Fatalf("decode: %v", err)
		}
		return nil
	}
	e := &Entry{Index: index, Raw: raw, Event: ev}
	if entry := ev.GetKeyTransparencyEntry(); len(entry.GetId()) > maxKTID {
		e.Leaf = make([]byte, kt.KTLeafSize)
		e.Leaf[0] = byte(kt.ClassKT)
	} else {
		e.Leaf = AppendLeaf(nil, ev, raw, e.Opening, testLabel(entry))
	}
	return e
}

// fuzzApplyOne tells whether the event was applied; if not, why must be told.
func fuzzApplyOne(t *testing.T, b *Batch, e *Entry) bool {
	t.Helper()
	before := proto.Clone(e.Event)
	err := Apply(b, e)
	if !proto.Equal(before, e.Event) {
		t.Fatal("Apply changed the event")
	}
	var where *ApplyError
	if err != nil && (!errors.Is(err, ErrInvalidEvent) || !errors.As(err, &where) || where.Index != e.Index) {
		t.Fatalf("refused with %v", err)
	}
	return err == nil
}

func applyAgain(t *testing.T, v *Views, entries []*Entry) *Batch {
	t.Helper()
	b := v.NewBatch()
	for _, e := range entries {
		if err := Apply(b, e); err != nil {
			t.Fatalf("applied before, not again: %v", err)
		}
	}
	return b
}

func digestOfBatch(t *testing.T, b *Batch) Hash {
	t.Helper()
	digest, err := Digest(b)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func closeBatch(t *testing.T, b *Batch) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func snapshotSeed(f *testing.F) []byte {
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
	return file.Bytes()
}

// fuzzSnapshot reads arbitrary snapshot files: one is refused as bad, or its rows
// have the digest that it tells.
func fuzzSnapshot(t *testing.T, input []byte) {
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
}
