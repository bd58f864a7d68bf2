package kt

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	pb "quicprochat/proto/qpcv1"
)

func testVerifier() *Verifier {
	return &Verifier{ServerName: testServer, LogKey: public(testKey(1)), Freshness: DefaultFreshness}
}

// ask asks the log as it stands and checks the answer.
func (l *testLog) ask(v *Verifier, state *State, query Query) (*Answer, error) {
	l.t.Helper()
	q := state.Ask(query)
	return v.Verify(state, q, l.answer(q, l.size()), l.nowMS)
}

func mustAsk(t testing.TB, l *testLog, v *Verifier, state *State, query Query) *Answer {
	t.Helper()
	a, err := l.ask(v, state, query)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestHeadsThatAccuseNobody(t *testing.T) {
	l := newTestLog(t)
	alice := l.register("alice", 10)
	l.revoke(public(testKey(12)), pb.Authority_SESSION_LOGIN, nil)
	size := l.head()
	later := l.nowMS + uint64(2*DefaultFreshness.Milliseconds())
	for _, test := range []struct {
		name string
		want error
		ask  func(v *Verifier, state *State) error
	}{
		{"a stale head", ErrStale, func(v *Verifier, state *State) error {
			q := state.Ask(Query{Username: "alice"})
			_, err := v.Verify(state, q, l.answer(q, size), later)
			return err
		}},
		{"a head of tomorrow", ErrStale, func(v *Verifier, state *State) error {
			q := state.Ask(Query{})
			_, err := v.Head(state, q, l.headProof(q, size), testStart-uint64(time.Hour.Milliseconds()))
			return err
		}},
		{"no window", nil, func(v *Verifier, state *State) error {
			v.Freshness = 0
			q := state.Ask(Query{})
			_, err := v.Head(state, q, l.headProof(q, size), later)
			return err
		}},
		{"another server", ErrNote, func(v *Verifier, state *State) error {
			v.ServerName = "other.example.org"
			_, err := l.ask(v, state, Query{})
			return err
		}},
		{"another log key", ErrLogKey, func(v *Verifier, state *State) error {
			v.LogKey = public(testKey(9))
			_, err := l.ask(v, state, Query{})
			return err
		}},
		{"first use", nil, func(v *Verifier, state *State) error {
			v.LogKey = nil
			_, err := l.ask(v, state, Query{})
			return err
		}},
		{"too few witnesses", ErrPolicy, func(v *Verifier, state *State) error {
			v.Policy = must(ParsePolicy(1, testWitnesses(t)))
			_, err := l.ask(v, state, Query{Username: "alice", Cosigned: true})
			return err
		}},
		{"no witnesses asked for", nil, func(v *Verifier, state *State) error {
			v.Policy = must(ParsePolicy(1, testWitnesses(t)))
			a, err := l.ask(v, state, Query{Username: "alice"})
			if err == nil && a.Head.Cosigned {
				t.Error("cosigned by nobody")
			}
			return err
		}},
		{"an unsigned note", ErrNote, func(v *Verifier, state *State) error {
			q := state.Ask(Query{})
			p := l.headProof(q, size)
			p.Note = must(SignCheckpoint(must(peekCheckpoint(p.Note)), testKey(8)))
			_, err := v.Head(state, q, p, l.nowMS)
			return err
		}},
		{"no proof", ErrNote, func(v *Verifier, state *State) error {
			_, err := v.Verify(state, state.Ask(Query{}), nil, l.nowMS)
			return err
		}},
		{"consistency with nothing", ErrMalformed, func(v *Verifier, state *State) error {
			q := state.Ask(Query{})
			p := l.headProof(q, size)
			p.KnownHeadPath = [][]byte{make([]byte, 32)}
			_, err := v.Head(state, q, p, l.nowMS)
			return err
		}},
		{"a revocation with a next version", ErrMalformed, func(v *Verifier, state *State) error {
			q := state.Ask(Query{RevokedKey: public(testKey(12))})
			p := l.answer(q, size)
			_, next := l.vrf.Label(KindRevocation, public(testKey(12)), 1)
			p.Histories[0].AbsentVrfProof = next[:]
			_, err := v.Verify(state, q, p, l.nowMS)
			return err
		}},
		{"a key at the index of the HEAD", ErrMalformed, func(v *Verifier, state *State) error {
			q := state.Ask(Query{RevokedKey: public(testKey(12))})
			p := l.answer(q, size)
			p.Histories[0].Versions[0].Index = size - 1
			_, err := v.Verify(state, q, p, l.nowMS)
			return err
		}},
		{"a history too many", ErrMalformed, func(v *Verifier, state *State) error {
			q := state.Ask(Query{IdentityKey: alice.key()})
			p := l.answer(q, size)
			q.Query = Query{RevokedKey: alice.key()}
			p.Histories = p.Histories[1:]
			_, err := v.Verify(state, q, p, l.nowMS)
			return err
		}},
		{"the history of another", ErrMalformed, func(v *Verifier, state *State) error {
			q := state.Ask(Query{Username: "alice"})
			p := l.answer(q, size)
			q.Query.Username = "alicf"
			_, err := v.Verify(state, q, p, l.nowMS)
			return err
		}},
		{"versions from 1 on", ErrIncomplete, func(v *Verifier, state *State) error {
			q := state.Ask(Query{IdentityKey: alice.key()})
			p := l.answer(q, size)
			p.Histories[0].FromVersion = 1
			_, err := v.Verify(state, q, p, l.nowMS)
			return err
		}},
		{"a query for half a key", ErrMalformed, func(v *Verifier, state *State) error {
			_, err := v.Verify(state, state.Ask(Query{RevokedKey: make([]byte, 31)}), &pb.KeyProof{Head: l.headProof(state.Ask(Query{}), size)}, l.nowMS)
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			state := new(State)
			err := test.ask(testVerifier(), state)
			var e *EvidenceError
			if !errors.Is(err, test.want) || errors.As(err, &e) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			// A head that holds is remembered, whatever else is wrong.
			if holds := test.want == nil || test.want == ErrStale || test.want == ErrPolicy; holds != (state.Newest != nil) {
				t.Errorf("stored: %v", state.Newest != nil)
			}
		})
	}
}

func TestNewerFormatIsNoEvidence(t *testing.T) {
	l := newTestLog(t)
	l.register("alice", 10)
	l.head()
	c, index, _ := l.r.Config()
	c.FormatVersion = math.MaxUint16
	c.Link(index, testKey(1))
	l.keys = append(l.keys, testKey(1))
	l.unchecked(AppendConfigLeaf(nil, c))
	l.r.config, l.r.configIndex = c, l.size()-1
	l.unchecked(AppendHeadLeaf(nil, l.r.NextHead(l.nowMS)))
	if _, err := l.ask(testVerifier(), new(State), Query{}); !errors.Is(err, ErrFormat) {
		t.Errorf("got %v", err)
	}
}

// TestRepliesOutOfOrder: answers to questions that were asked at one time come in
// any order; none of it is evidence, unless two trees of one size were signed.
func TestRepliesOutOfOrder(t *testing.T) {
	l := newTestLog(t)
	l.register("alice", 10)
	v := testVerifier()
	sizes := []uint64{l.head(), l.head(), l.head()}
	for _, base := range []*State{new(State), func() *State {
		s := new(State)
		q := s.Ask(Query{})
		if _, err := v.Head(s, q, l.headProof(q, sizes[0]), l.nowMS); err != nil {
			t.Fatal(err)
		}
		return s
	}()} {
		for _, test := range []struct {
			first, second uint64
			want          error
		}{{sizes[1], sizes[1], nil}, {sizes[2], sizes[1], ErrOlder}, {sizes[1], sizes[2], ErrOlder}} {
			state := *base
			a, b := state.Ask(Query{}), state.Ask(Query{})
			if _, err := v.Head(&state, a, l.headProof(a, test.first), l.nowMS); err != nil {
				t.Fatal(err)
			}
			stored := state.Newest
			_, err := v.Head(&state, b, l.headProof(b, test.second), l.nowMS)
			if !errors.Is(err, test.want) || !bytes.Equal(state.Newest.Note, stored.Note) {
				t.Errorf("%d after %d: %v", test.second, test.first, err)
			}
		}
		fork := l.fork(sizes[0])
		fork.opaque(1)
		for fork.size() != sizes[1]-1 && fork.size() != sizes[2]-1 {
			fork.opaque(1)
		}
		state := *base
		a, b := state.Ask(Query{}), state.Ask(Query{})
		fork.nowMS = l.nowMS
		size := fork.head()
		if _, err := v.Head(&state, a, l.headProof(a, size), l.nowMS); err != nil {
			t.Fatal(err)
		}
		_, err := v.Head(&state, b, fork.headProof(b, size), l.nowMS+60_000)
		wantStep(t, err, StepConsistency, "two roots")
	}
}

// TestCosignedBeforeKnown: what was learned under a head that witnesses have not
// got to yet is missing under the older one that they signed. That is no lie; what
// is missing under a later one is.
func TestCosignedBeforeKnown(t *testing.T) {
	l := newTestLog(t)
	l.head()
	before := l.head()
	alice := l.register("alice", 10)
	alice.publish()
	l.head()
	v, state := testVerifier(), new(State)
	known := mustAsk(t, l, v, state, Query{Username: "alice"}).Person.Known()
	if known.Size != l.size() {
		t.Errorf("known at %d leaves, of %d", known.Size, l.size())
	}
	for _, q := range []Query{{Username: "alice", Known: known}, {IdentityKey: alice.key(), Known: known}} {
		q.Cosigned = true
		asked := state.Ask(q)
		if _, err := v.Verify(state, asked, l.answer(asked, before), l.nowMS); !errors.Is(err, ErrPolicy) {
			t.Errorf("under a head of before: %v", err)
		}
		q.Cosigned = false
		fresh := *known
		fresh.Size = l.size() + 1
		q.Known = &fresh // learned by somebody else after the question was asked
		asked = state.Ask(q)
		if _, err := v.Verify(state, asked, l.answer(asked, l.size()), l.nowMS); !errors.Is(err, ErrOlder) {
			t.Errorf("known meanwhile: %v", err)
		}
		fresh.Size = before // it was there, and is gone
		asked = (&State{}).Ask(q)
		if _, err := v.Verify(new(State), asked, l.answer(asked, before), l.nowMS); err == nil || errors.Is(err, ErrPolicy) || errors.Is(err, ErrOlder) {
			t.Errorf("gone: %v", err)
		}
	}
}

// TestCosignedHeads: the newest signed note and the newest cosigned one are known
// side by side, and each class only goes forward.
func TestCosignedHeads(t *testing.T) {
	l := newTestLog(t)
	l.register("alice", 10)
	sizes := []uint64{l.head(), l.head(), l.head(), l.head()}
	v := testVerifier()
	v.Policy = must(ParsePolicy(2, testWitnesses(t)))
	state := new(State)
	ask := func(size uint64, witnesses int, cosigned bool) error {
		q := state.Ask(Query{Cosigned: cosigned})
		p := l.headProof(q, size)
		for i := range witnesses {
			p.Note = append(p.Note, must(Cosign(p.Note, "w"+string('1'+byte(i)), testKey(5+byte(i)), 1))...)
		}
		head, err := v.Head(state, q, p, l.nowMS)
		if err == nil && (head.Cosigned != (witnesses >= 2) || len(head.Cosignatures) != witnesses) {
			t.Errorf("%d witnesses: %+v", witnesses, head.Cosignatures)
		}
		return err
	}
	known := func() (newest, cosigned uint64) {
		k := must(state.read())
		if k.cosigned != nil {
			cosigned = k.cosigned.Size
		}
		return k.newest.Size, cosigned
	}
	for i, test := range []struct {
		size             uint64
		witnesses        int
		cosigned         bool
		want             error
		newest, stronger uint64
	}{
		{sizes[1], 1, true, ErrPolicy, sizes[1], 0},
		{sizes[0], 2, true, nil, sizes[1], sizes[0]},
		{sizes[0], 2, false, ErrOlder, sizes[1], sizes[0]},
		{sizes[3], 0, false, nil, sizes[3], sizes[0]},
		{sizes[2], 3, true, nil, sizes[3], sizes[2]},
		{sizes[1], 3, true, ErrOlder, sizes[3], sizes[2]},
		{sizes[2], 2, true, nil, sizes[3], sizes[2]},
		{sizes[3], 2, false, nil, sizes[3], sizes[3]},
	} {
		if err := ask(test.size, test.witnesses, test.cosigned); !errors.Is(err, test.want) {
			t.Errorf("%d: got %v, want %v", i, err, test.want)
		}
		if a, b := known(); a != test.newest || b != test.stronger {
			t.Errorf("%d: knows %d and %d, want %d and %d", i, a, b, test.newest, test.stronger)
		}
	}
	raw := must(state.Marshal())
	again, err := ParseState(raw)
	if err != nil || !bytes.Equal(must(again.Marshal()), raw) {
		t.Errorf("the state read again is another: %v", err)
	}
}

func TestNewGenerationNeedsConsent(t *testing.T) {
	l := newTestLog(t)
	l.register("alice", 10)
	backup := l.head()
	l.register("bob", 20)
	l.head()
	v, state := testVerifier(), new(State)
	mustAsk(t, l, v, state, Query{Username: "bob"})

	// A reply on its way while the person consents brings the old generation back.
	late, renewedState := state.Ask(Query{}), *state
	renewedState.Consent(2)
	l.head()
	if _, err := v.Head(&renewedState, late, l.headProof(late, l.size()), l.nowMS); !errors.Is(err, ErrOlder) {
		t.Errorf("a reply of the generation before: %v", err)
	}

	// The operator lost the end of the log, and says so.
	l = l.fork(backup)
	l.rotate(3, 2)
	l.register("carol", 30)
	l.head()
	_, err := l.ask(v, state, Query{Username: "carol"})
	var renewed *NewGenerationError
	if !errors.As(err, &renewed) || renewed.Known != 1 || renewed.Shown != 2 || !strings.Contains(err.Error(), "generation 1 was known, 2 is shown") {
		t.Fatalf("got %v", err)
	}
	state.Consent(renewed.Shown)
	if state, err = ParseState(must(state.Marshal())); err != nil {
		t.Fatal(err)
	}
	mustAsk(t, l, v, state, Query{Username: "carol"})

	// It is consent to one generation, of this log.
	state.Consent(2)
	old := l.fork(backup)
	if _, err := old.ask(v, state, Query{}); !errors.Is(err, ErrOlder) {
		t.Errorf("the generation before: %v", err)
	}
	l.rotate(4, 3)
	l.head()
	if _, err := l.ask(v, state, Query{}); !errors.As(err, &renewed) || renewed.Shown != 3 {
		t.Errorf("the generation after: %v", err)
	}
	other := newTestLogOf(t, NewVRFPrivateKey([32]byte{3}))
	other.head()
	_, err = other.ask(v, state, Query{})
	wantStep(t, err, StepConfig, "another than the known one")
}

func TestStateRefuses(t *testing.T) {
	l := newTestLog(t)
	l.head()
	state := new(State)
	mustAsk(t, l, testVerifier(), state, Query{})
	for name, change := range map[string]func(s *State){
		"no CONFIG":        func(s *State) { s.Configs = nil },
		"only cosigned":    func(s *State) { s.Newest, s.Cosigned = nil, s.Newest },
		"a damaged HEAD":   func(s *State) { s.Newest = &KnownHead{Note: s.Newest.Note, HeadLeaf: []byte{2}} },
		"a CONFIG as HEAD": func(s *State) { s.Newest = &KnownHead{Note: s.Newest.Note, HeadLeaf: s.Configs[0].Leaf} },
		"a damaged note":   func(s *State) { s.Newest = &KnownHead{HeadLeaf: s.Newest.HeadLeaf} },
		"a HEAD as CONFIG": func(s *State) { s.Configs = []KnownConfig{{Leaf: s.Newest.HeadLeaf}} },
		"CONFIG 0 missing": func(s *State) { s.Configs = []KnownConfig{{Index: 1, Leaf: s.Configs[0].Leaf}} },
	} {
		bad := *state
		change(&bad)
		if _, err := ParseState(must(bad.Marshal())); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := bad.Ask(Query{}).Request(); !errors.Is(err, ErrState) {
			t.Errorf("%s: asked: %v", name, err)
		}
	}
	if _, err := ParseState([]byte("{")); !errors.Is(err, ErrState) {
		t.Errorf("half a file: %v", err)
	}
	bad := Query{Username: "alice", Known: &KnownPerson{IdentityKey: []byte{1}}}
	if _, err := state.Ask(bad).Request(); !errors.Is(err, ErrState) {
		t.Errorf("a damaged known person: %v", err)
	}
}
