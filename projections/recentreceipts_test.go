package projections

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	pb "quicprochat/proto/qpcv1"
)

// receiptAt writes a receipt for a request id of a time.
func (w *world) receiptAt(ms uint64, n int) ID {
	w.t.Helper()
	id := requestID(ms, n)
	w.doWith(&pb.RequestAnswered{}, receiptOf("alice", 200, id, "done"))
	return id
}

// receiptState tells whether the receipt is found, and whether the writer could
// tell without the store that it is absent.
func (w *world) receiptState(id ID) (found, absent bool) {
	w.t.Helper()
	_, found, err := Receipt(w.reader(), deviceKey("alice"), 200, id)
	if err != nil {
		w.t.Fatalf("receipt: %v", err)
	}
	absent, err = w.reader().receiptAbsent(receiptKey(nil, deviceKey("alice"), 200, id))
	if err != nil {
		w.t.Fatalf("receipt: %v", err)
	}
	return found, absent
}

// TestNewRequestsNeedNoLookup holds what the writer relies on for its speed, and
// that every receipt is found all the same: in the batch, after a commit, after
// a batch that was dropped, after a restart; from clocks that are right, behind
// and ahead.
func TestNewRequestsNeedNoLookup(t *testing.T) {
	w := newWorld(t)
	w.register("alice")
	known := map[ID]bool{}
	check := func(when string) {
		t.Helper()
		for id := range known {
			if found, absent := w.receiptState(id); !found || absent {
				t.Fatalf("%s: receipt found %v, believed absent %v", when, found, absent)
			}
		}
		if found, absent := w.receiptState(requestID(w.now, -1)); found || !absent {
			t.Errorf("%s: a new id was found %v, known to be new %v", when, found, absent)
		}
	}
	check("empty")
	for n, ms := range []uint64{w.now, w.now, w.now - dayMS + 1, w.now + dayMS - 1, w.now + 3000} {
		known[w.receiptAt(ms, n)] = true
	}
	check("in the batch")
	w.commit()
	check("committed")
	lost := requestID(w.now, 100)
	if err := w.reader().put(receiptKey(nil, deviceKey("alice"), 200, lost), []byte("lost")); err != nil {
		t.Fatal(err)
	}
	if err := w.batch.Close(); err != nil {
		t.Fatal(err)
	}
	w.batch = nil
	check("after a batch that was dropped")
	if found, _ := w.receiptState(lost); found {
		t.Error("the dropped batch's receipt is there")
	}
	w.close()
	w.views = w.mustOpen(uint64(len(w.entries)))
	known[w.receiptAt(w.now, 200)] = true // written before one is looked for
	check("after a restart")
	w.close()
}

// TestManyReceiptsAtAStart: only the newest are read, the others are looked up.
func TestManyReceiptsAtAStart(t *testing.T) {
	w := newWorld(t)
	w.register("alice")
	old := w.receiptAt(w.now, 0)
	ahead := w.receiptAt(w.now+dayMS/2, 1)
	w.now += 100_000
	for n := range loadedReceipts {
		w.receiptAt(w.now, 2+n)
	}
	w.close()
	w.views = w.mustOpen(uint64(len(w.entries)))
	defer w.close()
	w.now += 100_000
	for name, c := range map[string]struct {
		id            ID
		found, absent bool
	}{
		"old":              {old, true, false},
		"ahead":            {ahead, true, false},
		"old and unused":   {requestID(w.now-150_000, -1), false, false},
		"new":              {requestID(w.now, -1), false, true},
		"ahead and unused": {requestID(w.now+dayMS/2, -1), false, true},
	} {
		if found, absent := w.receiptState(c.id); found != c.found || absent != c.absent {
			t.Errorf("%s: found %v, known to be absent %v", name, found, absent)
		}
	}
}

// TestRecentReceiptsAreBounded: whatever times the ids have, none that was noted
// is called absent, and memory stays bounded.
func TestRecentReceiptsAreBounded(t *testing.T) {
	seed := rand.Uint64()
	source := rand.New(rand.NewPCG(seed, 1))
	for name, spread := range map[string]uint64{"one span": 1, "minutes": 300_000, "two days": 2 * dayMS} {
		r := &recentReceipts{spans: make(map[uint64]map[uint64]struct{})}
		key := func(id *ID) []byte { return receiptKey(make([]byte, 0, maxKeySize), Key{}, 200, *id) }
		const n = maxRecentReceipts * 5 / 4
		noted := make([]ID, n)
		floor := uint64(0)
		for i := range noted {
			id := &noted[i]
			binary.BigEndian.PutUint64(id[:], (testStart+source.Uint64N(spread))<<16|source.Uint64()&0xffff)
			binary.BigEndian.PutUint64(id[8:], source.Uint64())
			r.note(key(id))
			if r.absent(key(id)) || r.floor < floor || r.count > maxRecentReceipts {
				t.Fatalf("seed %d, %s: floor %d after %d, %d ids kept", seed, name, r.floor, floor, r.count)
			}
			floor = r.floor
		}
		kept := 0
		for _, set := range r.spans {
			kept += len(set)
		}
		if kept != r.count {
			t.Errorf("seed %d, %s: counts %d, keeps %d", seed, name, r.count, kept)
		}
		for i := range noted {
			if r.absent(key(&noted[i])) {
				t.Fatalf("seed %d, %s: a receipt is called absent", seed, name)
			}
		}
	}
}
