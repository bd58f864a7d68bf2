package kt

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// lie is a server that shows what no honest server shows, and the check that
// finds it out.
type lie struct {
	name, text string
	step       Step
	// tell begins with an honest log of two heads, whose newest one state knows, and
	// returns the reply to a question.
	tell func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof)
}

func askAlice(l *testLog, state *State) (*Question, *pb.KeyProof) {
	q := state.Ask(Query{Username: "alice"})
	return q, l.answer(q, l.size())
}

// TestLies: every lie is named by the step that finds it, and its bundle shows it
// to somebody else.
func TestLies(t *testing.T) {
	seen := map[Step]bool{StepLeaf: true} // only a replay reads other leaves
	for _, lie := range slices.Concat(headLies(), labelLies(), statementLies()) {
		t.Run(lie.name, func(t *testing.T) {
			l := newTestLog(t)
			alice := l.register("alice", 10)
			l.head()
			l.opaque(2)
			l.head()
			v, state := testVerifier(), new(State)
			mustAsk(t, l, v, state, Query{})
			q, p := lie.tell(l, alice, state)
			before := must(state.Marshal())
			_, err := v.Verify(state, q, p, l.nowMS)
			wantStep(t, err, lie.step, lie.text)
			if string(must(state.Marshal())) != string(before) {
				t.Error("the state of a lie was stored")
			}
			var e *EvidenceError
			if !errors.As(err, &e) {
				return
			}
			bundle, parseErr := ParseBundle(must(e.Bundle().Marshal()))
			if parseErr != nil {
				t.Fatal(parseErr)
			}
			_, again := VerifyBundle(bundle, public(testKey(1)))
			if wantStep(t, again, lie.step, lie.text); again == nil || again.Error() != err.Error() || bundle.Step != e.Step || bundle.Detail != e.Detail {
				t.Errorf("offline it is %v, was %v", again, err)
			}
		})
		seen[lie.step] = true
	}
	for _, step := range Steps() {
		if !seen[step] {
			t.Errorf("no lie is found by step %s", step)
		}
	}
}

func headLies() []lie {
	honest := func(l *testLog, state *State) (*Question, *pb.KeyProof) { return askAlice(l, state) }
	return []lie{
		{"shows a second history", "from", StepConsistency, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			f := l.fork(l.heads[0] + 1)
			f.opaque(8)
			f.head()
			return honest(f, state)
		}},
		{"rolls back and goes on", "from", StepConsistency, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			f := l.fork(l.heads[0])
			f.head()
			return honest(f, state)
		}},
		{"signs two trees of one size", "two roots", StepConsistency, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			f := l.fork(l.size() - 2)
			f.opaque(1)
			f.nowMS++
			f.head()
			return honest(f, state)
		}},
		{"leaves the consistency proof out", "from", StepConsistency, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			l.head()
			q, p := honest(l, state)
			p.Head.LogConsistency = nil
			return q, p
		}},
		{"signs a size without HEAD", "the last is OPAQUE", StepHead, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			l.opaque(1)
			q := state.Ask(Query{})
			return q, &pb.KeyProof{Head: l.headProof(q, l.size())}
		}},
		{"shows a HEAD of before as the last leaf", "not the last", StepHead, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			l.opaque(1)
			q := state.Ask(Query{})
			p := l.headProof(q, l.size())
			p.HeadLeaf = l.leaves[l.size()-2]
			return q, &pb.KeyProof{Head: p}
		}},
		{"back-dates a HEAD", "contradicts", StepHead, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			l.unchecked(AppendHeadLeaf(nil, l.r.NextHead(l.nowMS-1)))
			return honest(l, state)
		}},
		{"changes the map and counts no key", "contradicts", StepHead, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			h := l.r.NextHead(l.nowMS)
			h.MapRoot[0] ^= 1
			l.unchecked(AppendHeadLeaf(nil, h))
			return honest(l, state)
		}},
		{"counts more keys than leaves", "do not fit", StepHead, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			h := l.r.NextHead(l.nowMS)
			h.KTCount = l.size()
			l.unchecked(AppendHeadLeaf(nil, h))
			return honest(l, state)
		}},
		{"logs a HEAD for one victim and hides it", "is not under the heads_root", StepHeads, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			f := l.fork(l.heads[1] + 1)
			h := f.r.NextHead(f.nowMS + 1) // the victim's; nobody else's heads contain it
			f.note(AppendHeadLeaf(nil, h))
			rangeAppend(f.r.tree, AppendHeadLeaf(nil, h))
			q := state.Ask(Query{})
			if _, err := testVerifier().Head(state, q, f.headProof(q, f.size()), f.nowMS); err != nil {
				f.t.Fatal(err)
			}
			f.heads = f.heads[:2]
			f.nowMS += 2
			f.head()
			f.head()
			f.head()
			return honest(f, state)
		}},
		{"forgets a HEAD in the tree of heads", "heads_root from", StepHeads, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			l.head()
			q, p := honest(l, state)
			p.Head.HeadsConsistency = append(p.Head.HeadsConsistency, make([]byte, 32))
			return q, p
		}},
		{"hides a CONFIG", "not the newest of those shown", StepConfig, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			l.rotate(3, 1)
			l.head()
			q, p := honest(l, state)
			p.Head.Configs = nil
			return q, p
		}},
		{"names another CONFIG in the HEAD", "not the newest of those shown", StepConfig, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			l.rotate(3, 1)
			h := l.r.NextHead(l.nowMS)
			h.Config = 0
			l.unchecked(AppendHeadLeaf(nil, h))
			return honest(l, state)
		}},
		{"takes a log key that nobody handed over", "not signed", StepConfig, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			c, index, _ := l.r.Config()
			c.LogKey = public(testKey(9))
			c.Link(index, testKey(9))
			l.keys = append(l.keys, testKey(9))
			l.unchecked(AppendConfigLeaf(nil, c))
			l.r.config, l.r.configIndex = c, l.size()-1
			l.unchecked(AppendHeadLeaf(nil, l.r.NextHead(l.nowMS)))
			return honest(l, state)
		}},
		{"links CONFIGs backwards", "after one at", StepConfig, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			*state = State{}
			c, _, _ := l.r.Config()
			later := c
			c.Link(l.size()+1, testKey(1))
			later.Link(0, testKey(1))
			l.keys = append(l.keys, testKey(1), testKey(1))
			l.unchecked(AppendConfigLeaf(nil, c))
			l.unchecked(AppendConfigLeaf(nil, later))
			h := l.r.NextHead(l.nowMS)
			h.Config = l.size() - 2
			l.unchecked(AppendHeadLeaf(nil, h))
			q, p := honest(l, state)
			p.Head.Configs[1], p.Head.Configs[2] = p.Head.Configs[2], p.Head.Configs[1]
			return q, p
		}},
		{"names a CONFIG that an earlier HEAD hid", "contradicts", StepHead, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			f := l.fork(l.size())
			c, index, _ := f.r.Config()
			c.LogKey = public(testKey(3))
			c.Link(index, testKey(1))
			f.unchecked(AppendConfigLeaf(nil, c))
			f.configs = f.configs[:1]
			f.unchecked(AppendHeadLeaf(nil, f.r.NextHead(f.nowMS)))
			q := state.Ask(Query{})
			if _, err := testVerifier().Head(state, q, f.headProof(q, f.size()), f.nowMS); err != nil {
				f.t.Fatal(err)
			}
			f.configs, f.keys = append(f.configs, f.size()-2), append(f.keys, testKey(3))
			f.r.config, f.r.configIndex = c, f.size()-2
			f.unchecked(AppendHeadLeaf(nil, f.r.NextHead(f.nowMS)))
			return honest(f, state)
		}},
		{"writes HEADs in a log of format 0", "in a log of format 0", StepHead, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			*state = State{}
			f := l.fork(0)
			c := must(ParseLeaf(l.leaves[0])).Config
			c.FormatVersion = 0
			f.keys = l.keys
			f.unchecked(AppendConfigLeaf(nil, c))
			f.unchecked(AppendHeadLeaf(nil, Head{TimeMS: f.nowMS, HeadsRoot: EmptyHeadsRoot}))
			q := state.Ask(Query{})
			return q, &pb.KeyProof{Head: f.headProof(q, f.size())}
		}},
		{"skips the HEAD that was shown", "contradicts", StepHead, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			h := l.r.NextHead(l.nowMS)
			h.PrevHead--
			l.unchecked(AppendHeadLeaf(nil, h))
			return honest(l, state)
		}},
		{"counts more new keys than new leaves", "contradicts", StepHead, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			l.opaque(60)
			l.head()
			mustAsk(l.t, l, testVerifier(), state, Query{})
			h := l.r.NextHead(l.nowMS)
			h.KTCount, h.MapRoot = h.KTCount+20, Hash{1}
			l.unchecked(AppendHeadLeaf(nil, h))
			return honest(l, state)
		}},
		{"shows another CONFIG than the log holds", "not in the tree", StepConfig, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			*state = State{}
			q, p := honest(l, state)
			c := must(ParseLeaf(l.leaves[0])).Config
			c.VRFKey = NewVRFPrivateKey([32]byte{3}).PublicKey()
			p.Head.Configs[0].Leaf = AppendConfigLeaf(nil, c)
			return q, p
		}},
	}
}

func labelLies() []lie {
	return []lie{
		{"hides the newest version", "under the map root", StepMap, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			alice.publish()
			l.head()
			key := string(VRFInput(KindIdentity, alice.key(), 0))
			l.entries[key] = l.entries[key][:1]
			return askAlice(l, state)
		}},
		{"hides a revocation", "under the map root", StepMap, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			l.revoke(alice.key(), pb.Authority_KEY, alice.identity)
			l.head()
			delete(l.entries, string(VRFInput(KindRevocation, alice.key(), 0)))
			return askAlice(l, state)
		}},
		{"shows a key that is not in the map", "under the map root", StepMap, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			f := l.fork(l.size())
			alice.log = f
			alice.publish()
			q := state.Ask(Query{Username: "alice"})
			f.head()
			l.opaque(2)
			l.head()
			p := l.answer(q, l.size())
			p.Histories[1] = f.answer(q, f.size()).Histories[1]
			return q, p
		}},
		{"takes a key out of the map again", "which is gone", StepMap, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			alice.publish()
			l.head()
			known := mustAsk(l.t, l, testVerifier(), new(State), Query{Username: "alice"}).Person.Known()
			key := string(VRFInput(KindIdentity, alice.key(), 0))
			l.entries[key] = l.entries[key][:1]
			q := state.Ask(Query{Username: "alice", Known: known})
			return q, l.answer(q, l.size())
		}},
		{"takes a binding out of the map again", "alice had version 1, which is gone", StepMap, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			alice.succeed(30)
			l.head()
			known := mustAsk(l.t, l, testVerifier(), new(State), Query{Username: "alice"}).Person.Known()
			key := string(VRFInput(KindAccount, []byte("alice"), 0))
			l.entries[key] = l.entries[key][:1]
			q := state.Ask(Query{Username: "alice", Known: known})
			return q, l.answer(q, l.size())
		}},
		{"shows a second label space", "does not hold for this key", StepVRF, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			other := newTestLogOf(l.t, NewVRFPrivateKey([32]byte{3}))
			l.vrf = other.vrf
			mallory := &person{log: l, identity: testKey(60), devices: alice.devices}
			l.entries = map[string][]testEntry{}
			l.bind("alice", &pb.AccountBinding{IdentityKey: mallory.key(), Authority: pb.Authority_FIRST})
			mallory.publish()
			l.head()
			return askAlice(l, state)
		}},
		{"uses the label of another version", "does not hold for this key", StepVRF, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			q, p := askAlice(l, state)
			_, other := l.vrf.Label(KindAccount, []byte("alice"), 2)
			p.Histories[0].AbsentVrfProof = other[:]
			return q, p
		}},
		{"shows another event than it committed to", "not what its commitment says", StepCommitment, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			q, p := askAlice(l, state)
			ev := new(pb.Event)
			if err := proto.Unmarshal(p.Histories[0].Versions[0].Event, ev); err != nil {
				l.t.Fatal(err)
			}
			ev.GetKeyTransparencyEntry().Value = must(proto.Marshal(&pb.AccountBinding{IdentityKey: public(testKey(60)), Authority: pb.Authority_FIRST}))
			p.Histories[0].Versions[0].Event = must(proto.Marshal(ev))
			return q, p
		}},
		{"calls the newest version erased", "newest and not opened", StepOpening, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			l.unopened = func(kind Kind, version uint32) bool { return kind == KindAccount }
			return askAlice(l, state)
		}},
		{"calls an old binding erased", "and the account is not gone", StepOpening, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			mallory := &person{log: l, identity: testKey(60)}
			l.bind("alice", &pb.AccountBinding{Tombstone: true})
			mallory.devices = alice.devices
			l.bind("alice", &pb.AccountBinding{IdentityKey: mallory.key(), Authority: pb.Authority_ADMINISTRATOR})
			mallory.publish()
			l.head()
			l.unopened = func(kind Kind, version uint32) bool { return kind == KindAccount && version == 1 }
			return askAlice(l, state)
		}},
		{"hides the key that a hand-over is from", "in a version that is not opened", StepOpening, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			alice.succeed(30)
			l.head()
			l.unopened = func(kind Kind, version uint32) bool { return kind == KindAccount && version == 0 }
			return askAlice(l, state)
		}},
		{"commits to no event", "proto", StepEvent, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			return l.rawAlice(state, []byte{0xff})
		}},
		{"commits to another kind of event", "another event", StepEvent, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			return l.rawAlice(state, must(proto.Marshal(&pb.Event{TimeMs: 1})))
		}},
		{"commits to an event about another version", "another event", StepEvent, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			return l.rawAlice(state, must(proto.Marshal(&pb.Event{Body: &pb.Event_KeyTransparencyEntry{KeyTransparencyEntry: &pb.KeyTransparencyEntry{
				Kind: uint32(KindAccount), Id: []byte("alice"), Version: 7,
			}}})))
		}},
		{"commits to an event about somebody else", "an event about", StepEvent, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			l.entryID(KindAccount, []byte("dora"), []byte("alice"), must(proto.Marshal(&pb.AccountBinding{IdentityKey: alice.key(), Authority: pb.Authority_FIRST})))
			l.head()
			q := state.Ask(Query{Username: "dora"})
			return q, l.answer(q, l.size())
		}},
		{"leaves the name out of a binding", "an event about", StepEvent, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			l.entryID(KindAccount, []byte("dora"), nil, must(proto.Marshal(&pb.AccountBinding{IdentityKey: alice.key(), Authority: pb.Authority_FIRST})))
			l.head()
			q := state.Ask(Query{Username: "dora"})
			return q, l.answer(q, l.size())
		}},
	}
}

// rawAlice commits to an event of any bytes as alice's next binding.
func (l *testLog) rawAlice(state *State, event []byte) (*Question, *pb.KeyProof) {
	id := []byte("alice")
	e := testEntry{index: l.size(), event: event}
	e.label, e.proof = l.vrf.Label(KindAccount, id, 1)
	binary.BigEndian.PutUint64(e.opening[:], l.size())
	e.commitment = Commit(e.opening, VRFInput(KindAccount, id, 1), event)
	l.add(AppendKTLeaf(nil, e.label, e.commitment))
	l.head()
	q := state.Ask(Query{Username: "alice"})
	p := l.answer(q, l.size())
	h := p.Histories[0]
	h.Versions = append(h.Versions, &pb.VersionProof{VrfProof: e.proof[:], Commitment: e.commitment[:], Index: e.index, Opening: e.opening[:], Event: event})
	_, next := l.vrf.Label(KindAccount, id, 2)
	h.AbsentVrfProof = next[:]
	return q, p
}
