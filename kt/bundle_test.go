package kt

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
)

// TestProofBundle: an answer is kept as a file, and holds offline, whatever became
// of the server.
func TestProofBundle(t *testing.T) {
	l := busyLog(t)
	v, state := testVerifier(), new(State)
	v.Policy = must(ParsePolicy(1, testWitnesses(t)))
	for _, query := range []Query{{}, {Username: "alice"}, {IdentityKey: public(testKey(30))}, {RevokedKey: public(testKey(12))}} {
		q := state.Ask(query)
		p := l.answer(q, l.size())
		p.Head.Note = append(p.Head.Note, must(Cosign(p.Head.Note, "w1", testKey(5), 1))...)
		answer, err := v.Verify(state, q, p, l.nowMS)
		if err != nil {
			t.Fatal(err)
		}
		raw := must(answer.Bundle().Marshal())
		b, err := ParseBundle(raw)
		if err != nil || !bytes.Equal(must(b.Marshal()), raw) {
			t.Fatalf("the bundle read again is another: %v", err)
		}
		again, err := VerifyBundle(b, public(testKey(3)))
		if err != nil {
			t.Fatal(err)
		}
		if again.Head.Checkpoint != answer.Head.Checkpoint || !again.Head.Cosigned || len(again.Head.Cosignatures) != 1 {
			t.Errorf("%+v offline is %+v", answer.Head, again.Head)
		}
		if p := answer.Person; p != nil && !proto.Equal(again.Person.Identity.KeySet, p.Identity.KeySet) {
			t.Errorf("%+v offline is %+v", p, again.Person)
		}
		l.head()
	}
}

// TestBundlesThatShowNothing: whoever makes up what the log said before accuses
// nobody.
func TestBundlesThatShowNothing(t *testing.T) {
	l := newTestLog(t)
	l.register("alice", 10)
	l.head()
	v, state := testVerifier(), new(State)
	mustAsk(t, l, v, state, Query{})
	first := *state
	l.rotate(3, 1)
	l.head()
	mustAsk(t, l, v, state, Query{})
	l.head()
	good := mustAsk(t, l, v, state, Query{Username: "alice"}).Bundle()
	forged := newTestLogOf(t, NewVRFPrivateKey([32]byte{3}))
	forged.head()
	for name, change := range map[string]func(b *Bundle){
		"another format": func(b *Bundle) { b.Format = "qpc-bundle-v2" },
		"a bad policy":   func(b *Bundle) { b.K = 1 },
		"no proof":       func(b *Bundle) { b.Proof = []byte{0xff} },
		"another server": func(b *Bundle) { b.ServerName = "other.example.org" },
		"a damaged state": func(b *Bundle) {
			b.Question.State.Configs = nil
		},
		"a made-up HEAD": func(b *Bundle) {
			h := must(ParseLeaf(b.Question.State.Newest.HeadLeaf)).Head
			h.KTCount++
			newest := *b.Question.State.Newest
			newest.HeadLeaf = AppendHeadLeaf(nil, h)
			b.Question.State.Newest = &newest
		},
		"a made-up HEAD, stored meanwhile": func(b *Bundle) {
			newest := *b.Stored.Newest
			newest.HeadLeaf = forged.leaves[1]
			b.Stored.Newest = &newest
		},
		"a note that nobody signed": func(b *Bundle) {
			newest := *b.Question.State.Newest
			c := must(peekCheckpoint(newest.Note))
			newest.Note = must(SignCheckpoint(c, testKey(9)))
			b.Question.State.Newest = &newest
		},
		"a made-up CONFIG": func(b *Bundle) {
			configs := append([]KnownConfig(nil), b.Question.State.Configs...)
			configs[0].Leaf = forged.leaves[0]
			b.Question.State.Configs = configs
		},
		"a key that nobody handed over": func(b *Bundle) {
			mallory := l.fork(1)
			c := must(ParseLeaf(l.leaves[0])).Config
			c.LogKey = public(testKey(9))
			c.Link(0, testKey(9))
			mallory.keys = append(mallory.keys, testKey(9))
			mallory.unchecked(AppendConfigLeaf(nil, c))
			b.Question.State = first // whose head the first key signed
			b.Question.State.Configs = append(first.Configs[:1:1], KnownConfig{
				Index: 1, Leaf: mallory.leaves[1], Note: mallory.signed(2), Path: must(mallory.tree.InclusionProof(1, 2)),
			})
		},
		"a CONFIG linked by nobody": func(b *Bundle) {
			configs := append([]KnownConfig(nil), b.Question.State.Configs...)
			c := must(ParseLeaf(configs[1].Leaf)).Config
			c.Previous.Signature[0] ^= 1
			configs[1].Leaf = AppendConfigLeaf(nil, c)
			b.Question.State.Configs = configs
		},
	} {
		bad := *good
		change(&bad)
		if answer, err := VerifyBundle(&bad, public(testKey(1))); !errors.Is(err, ErrBundle) {
			t.Errorf("%s: got %v, %v; want ErrBundle", name, answer, err)
		}
	}
	if _, err := VerifyBundle(good, public(testKey(9))); !errors.Is(err, ErrLogKey) {
		t.Errorf("of another log than it is about: %v", err)
	}
	if _, err := VerifyBundle(good, nil); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	for name, raw := range map[string][]byte{
		"nothing":          nil,
		"another format":   []byte(`{"format":"qpc-bundle-v2"}`),
		"an unknown field": []byte(`{"format":"qpc-bundle-v1","x":1}`),
		"too large":        make([]byte, MaxBundleSize+1),
	} {
		if _, err := ParseBundle(raw); !errors.Is(err, ErrBundle) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestEvidenceOfAHeadAlone carries a bundle too.
func TestEvidenceOfAHeadAlone(t *testing.T) {
	l := newTestLog(t)
	size := l.head()
	l.opaque(3)
	l.head()
	v, state := testVerifier(), new(State)
	q := state.Ask(Query{})
	if _, err := v.Head(state, q, l.headProof(q, l.size()), l.nowMS); err != nil {
		t.Fatal(err)
	}
	f := l.fork(size)
	f.opaque(9)
	f.head()
	q = state.Ask(Query{})
	_, err := v.Head(state, q, f.headProof(q, f.size()), f.nowMS)
	var e *EvidenceError
	if !errors.As(err, &e) {
		t.Fatalf("got %v", err)
	}
	_, again := VerifyBundle(e.Bundle(), nil)
	wantStep(t, again, StepConsistency, "")
	if replayed := (&EvidenceError{Step: StepMap}); replayed.Bundle() != nil {
		t.Error("a bundle out of nothing")
	}
}
