package kt

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// message appends the event of a message and gives what opens it.
func (l *testLog) message(id byte) (index uint64, opening Opening, event []byte) {
	l.t.Helper()
	opening = Opening{id}
	event = must(proto.Marshal(&pb.Event{TimeMs: l.nowMS, Body: &pb.Event_MessageEnqueued{MessageEnqueued: &pb.MessageEnqueued{
		MessageId: bytes.Repeat([]byte{id}, 16), PayloadSize: 5,
	}}}))
	ctx := OpaqueContext(20)
	l.add(AppendOpaqueLeaf(nil, Commit(opening, ctx[:], event)))
	return l.size() - 1, opening, event
}

// leafProof shows a leaf under the note of the first size leaves.
func (l *testLog) leafProof(index, size uint64) *pb.LeafProof {
	l.t.Helper()
	return &pb.LeafProof{
		Index: index, Leaf: l.leaves[index], Path: must(l.tree.InclusionProof(index, size)), Note: l.signed(size),
	}
}

func TestReceipt(t *testing.T) {
	l := newTestLog(t)
	alice := l.register("alice", 10)
	older := l.head()
	index, opening, event := l.message(7)
	between := l.head()
	alice.publish()
	newest := l.head()
	v := &Verifier{ServerName: testServer}
	state := new(State)
	q := state.Ask(Query{})
	headOf := func(size uint64) *VerifiedHead {
		t.Helper()
		s := new(State)
		return must(v.Head(s, q, l.headProof(q, size), l.nowMS))
	}
	consistency := func(from, to uint64) [][]byte { return must(l.tree.ConsistencyProof(from, to)) }

	p := l.leafProof(index, between)
	p.Opening, p.Event = opening[:], event
	r, err := VerifyReceipt(headOf(newest), p, consistency(between, newest))
	if err != nil || !r.IsMessage(bytes.Repeat([]byte{7}, 16)) || r.IsMessage(bytes.Repeat([]byte{8}, 16)) || r.Index != index {
		t.Fatalf("receipt %+v, %v", r, err)
	}
	if _, err := VerifyReceipt(headOf(between), p, nil); err != nil {
		t.Errorf("under a head of the same size: %v", err)
	}
	// A cosigned head may be older than the newest note.
	late := l.leafProof(index, newest)
	if r, err := VerifyReceipt(headOf(between), late, consistency(between, newest)); err != nil || r.Event != nil || r.IsMessage(nil) {
		t.Errorf("under an older head: %+v, %v", r, err)
	}
	account := l.entries[string(VRFInput(KindAccount, []byte("alice"), 0))][0]
	kt := l.leafProof(account.index, between)
	kt.Opening, kt.Event = account.opening[:], account.event
	if _, err := VerifyReceipt(headOf(newest), kt, consistency(between, newest)); err != nil {
		t.Errorf("of a key-transparency entry: %v", err)
	}

	other := l.fork(older)
	other.opaque(3)
	otherSize := other.head()
	lies := map[string]func(p *pb.LeafProof, proof *[][]byte) *VerifiedHead{
		"another leaf":        func(p *pb.LeafProof, _ *[][]byte) *VerifiedHead { p.Leaf[5] ^= 1; return nil },
		"another index":       func(p *pb.LeafProof, _ *[][]byte) *VerifiedHead { p.Index++; return nil },
		"another path":        func(p *pb.LeafProof, _ *[][]byte) *VerifiedHead { p.Path[0][3] ^= 1; return nil },
		"no path":             func(p *pb.LeafProof, _ *[][]byte) *VerifiedHead { p.Path = nil; return nil },
		"an unsigned note":    func(p *pb.LeafProof, _ *[][]byte) *VerifiedHead { p.Note[len(p.Note)-9] ^= 1; return nil },
		"another event":       func(p *pb.LeafProof, _ *[][]byte) *VerifiedHead { p.Event[3] ^= 1; return nil },
		"an event of no body": func(p *pb.LeafProof, _ *[][]byte) *VerifiedHead { p.Event = []byte{8, 1}; return nil },
		"another opening":     func(p *pb.LeafProof, _ *[][]byte) *VerifiedHead { p.Opening[0] ^= 1; return nil },
		"a short opening":     func(p *pb.LeafProof, _ *[][]byte) *VerifiedHead { p.Opening = p.Opening[:15]; return nil },
		"no consistency":      func(_ *pb.LeafProof, proof *[][]byte) *VerifiedHead { *proof = nil; return nil },
		"another history's head": func(_ *pb.LeafProof, proof *[][]byte) *VerifiedHead {
			return must(v.Head(new(State), q, other.headProof(q, otherSize), other.nowMS))
		},
		"a head that lacks it": func(_ *pb.LeafProof, proof *[][]byte) *VerifiedHead {
			*proof = consistency(older, between)
			return headOf(older)
		},
	}
	for name, lie := range lies {
		changed, proof := proto.Clone(p).(*pb.LeafProof), slices.Clone(consistency(between, newest))
		head := lie(changed, &proof)
		if head == nil {
			head = headOf(newest)
		}
		if r, err := VerifyReceipt(head, changed, proof); !errors.Is(err, ErrReceipt) && !errors.Is(err, ErrNote) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	if _, _, err := PeekNote([]byte("nonsense")); !errors.Is(err, ErrNote) {
		t.Errorf("the size of no note: %v", err)
	}
}
