package kt

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// TestLookups asks one state after the other for everything that a busy log holds.
func TestLookups(t *testing.T) {
	l := newTestLog(t)
	v, state := testVerifier(), new(State)
	l.head()
	alice := l.register("alice", 10)
	bob := l.register("bob", 20)
	l.head()

	// First contact, and a name that nobody has.
	if p := mustAsk(t, l, v, state, Query{Username: "carol"}).Person; p.Exists() || p.Gone || len(p.Bindings) != 0 || p.Known() != nil {
		t.Errorf("carol: %+v", p)
	}
	a := mustAsk(t, l, v, state, Query{Username: "alice"})
	p := a.Person
	if !p.Exists() || p.Bindings[0].Authority != pb.Authority_FIRST || !bytes.Equal(p.Identity.Key, alice.key()) ||
		!proto.Equal(p.Identity.KeySet, alice.keySets[0]) || len(p.Identity.DeviceKeys()) != 2 {
		t.Errorf("alice: %+v, %+v", p, p.Identity)
	}
	if a.Head.Size != l.size() || a.Head.Head.Epoch != 1 || a.Head.Config.Origin != testServer+"/1" || !a.Head.Cosigned || state.Cosigned != nil {
		t.Errorf("head: %+v", a.Head)
	}

	// A newer KeySet, a lost device, a new identity.
	known := p.Known()
	alice.publish()
	l.revoke(public(testKey(12)), pb.Authority_IDENTITY, alice.identity)
	l.revoke(public(testKey(11)), pb.Authority_SESSION_LOGIN, nil)
	l.head()
	p = mustAsk(t, l, v, state, Query{Username: "alice", Known: known}).Person
	lost, denied := p.Identity.DeviceRevocations[string(public(testKey(12)))], p.Identity.DeviceRevocations[string(public(testKey(11)))]
	if p.Identity.Versions != 2 || len(p.Identity.DeviceKeys()) != 0 || lost == nil || !lost.Signed || lost.Authority != pb.Authority_IDENTITY ||
		lost.Reason != 1 || lost.TimeMS == 0 || denied == nil || denied.Signed {
		t.Errorf("alice later: %+v, %+v, %+v", p.Identity, lost, denied)
	}
	known = p.Known()
	alice.devices = alice.devices[:0]
	alice.devices = append(alice.devices, testKey(40))
	next := alice.succeed(30)
	l.rotate(3, 1)
	l.revoke(alice.key(), pb.Authority_KEY, alice.identity)
	l.head()
	for _, k := range []*KnownPerson{nil, known} {
		p = mustAsk(t, l, v, state, Query{Username: "alice", Known: k}).Person
		newest := p.Bindings[len(p.Bindings)-1]
		if newest.Version != 1 || newest.Authority != pb.Authority_OLD_KEY || !bytes.Equal(p.Identity.Key, next.key()) || p.Identity.Revocation != nil || len(p.Identity.DeviceKeys()) != 1 {
			t.Errorf("alice's new identity: %+v, %+v", p.Bindings, p.Identity)
		}
	}
	both := mustAsk(t, l, v, state, Query{IdentityKeys: [][]byte{next.key(), bob.key()}}).Identities
	if len(both) != 2 || !bytes.Equal(both[0].Key, next.key()) || !bytes.Equal(both[1].Key, bob.key()) || len(both[1].DeviceKeys()) != 2 {
		t.Errorf("two at once: %+v", both)
	}
	// The next identity has more versions than were known of the one before.
	next.publish()
	l.head()
	if _, err := l.ask(v, state, Query{Username: "alice", Known: known}); !errors.Is(err, ErrIncomplete) {
		t.Errorf("versions of an identity that is new to the asker: %v", err)
	}
	mustAsk(t, l, v, state, Query{Username: "alice"})
	old := mustAsk(t, l, v, state, Query{IdentityKey: alice.key()}).Identity
	if old.Revocation == nil || !old.Revocation.Signed || len(old.DeviceKeys()) != 0 || old.Versions != 2 || old.Known() == nil {
		t.Errorf("alice's old identity: %+v", old)
	}

	// A device goes over to the next identity, which revokes it; the old identity's
	// KeySet still lists it.
	dora := l.register("dora", 70)
	doraNext := dora.succeed(80)
	l.revoke(public(testKey(71)), pb.Authority_IDENTITY, doraNext.identity)
	l.head()
	for _, test := range []struct {
		query  Query
		signed bool
	}{{Query{Username: "dora"}, true}, {Query{IdentityKey: doraNext.key()}, true}, {Query{IdentityKey: dora.key()}, false}} {
		a := mustAsk(t, l, v, state, test.query)
		i := a.Identity
		if a.Person != nil {
			i = a.Person.Identity
		}
		if r := i.DeviceRevocations[string(public(testKey(71)))]; r == nil || r.Signed != test.signed || len(i.DeviceKeys()) != 1 {
			t.Errorf("dora's device, asked by %+v: %+v", test.query, r)
		}
	}

	// Revocations by themselves; a key that nobody has.
	for _, test := range []struct {
		key, owner []byte
		revoked    bool
		signed     bool
	}{
		{alice.key(), nil, true, true},
		{public(testKey(12)), alice.key(), true, true},
		{public(testKey(12)), nil, true, false},
		{public(testKey(12)), next.key(), true, false},
		{public(testKey(11)), nil, true, false},
		{bob.key(), nil, false, false},
	} {
		r := mustAsk(t, l, v, state, Query{RevokedKey: test.key, Owner: test.owner}).Revocation
		if (r.Revocation != nil) != test.revoked || test.revoked && r.Revocation.Signed != test.signed || !bytes.Equal(r.Key, test.key) {
			t.Errorf("revocation of %x: %+v", test.key, r.Revocation)
		}
	}
	if i := mustAsk(t, l, v, state, Query{IdentityKey: public(testKey(99))}).Identity; i.Versions != 0 || i.KeySet != nil || i.Gone || i.Known() != nil {
		t.Errorf("an unknown key: %+v", i)
	}

	// An administrator's word, and a deleted account: bodies are erased.
	carol := &person{log: l, name: "bob", identity: testKey(50), devices: bob.devices}
	l.bind("bob", &pb.AccountBinding{IdentityKey: carol.key(), Authority: pb.Authority_ADMINISTRATOR})
	carol.publish()
	l.head()
	p = mustAsk(t, l, v, state, Query{Username: "bob"}).Person
	if len(p.Bindings) != 2 || p.Bindings[1].Authority != pb.Authority_ADMINISTRATOR || !bytes.Equal(p.Identity.Key, carol.key()) {
		t.Errorf("bob by an administrator: %+v", p.Bindings)
	}
	l.entryID(KindAccount, []byte("bob"), nil, must(proto.Marshal(&pb.AccountBinding{Tombstone: true})))
	l.entryID(KindIdentity, carol.key(), nil, nil)
	l.head()
	l.unopened = func(kind Kind, version uint32) bool { return kind == KindAccount && version < 2 || version == 0 }
	for _, k := range []*KnownPerson{nil, p.Known()} {
		gone := mustAsk(t, l, v, state, Query{Username: "bob", Known: k}).Person
		if !gone.Gone || gone.Exists() || !gone.Bindings[len(gone.Bindings)-1].Tombstone || gone.Bindings[0].Opened {
			t.Errorf("bob is gone: %+v", gone)
		}
	}
	if i := mustAsk(t, l, v, state, Query{IdentityKey: carol.key(), Known: p.Known()}).Identity; !i.Gone || i.KeySet != nil {
		t.Errorf("the identity is gone: %+v", i)
	}
	q := state.Ask(Query{})
	same := l.headProof(q, l.size())
	same.LogConsistency = [][]byte{make([]byte, 32)}
	if _, err := v.Head(state, q, same, l.nowMS); !errors.Is(err, ErrMalformed) {
		t.Errorf("consistency with itself: %v", err)
	}
	if size := must(peekCheckpoint(state.Newest.Note)).Size; size != l.size() || len(state.Configs) != 2 {
		t.Errorf("the state is at %d of %d leaves, with %d CONFIGs", size, l.size(), len(state.Configs))
	}
}

// TestErasedKeySets: versions below the newest may be gone, and the chain goes on
// behind them.
func TestErasedKeySets(t *testing.T) {
	l := newTestLog(t)
	alice := l.register("alice", 10)
	for range 4 {
		alice.publish()
	}
	l.head()
	l.unopened = func(kind Kind, version uint32) bool { return kind == KindIdentity && version < 3 }
	v, state := testVerifier(), new(State)
	known := mustAsk(t, l, v, state, Query{Username: "alice"}).Person.Known()
	alice.publish()
	l.head()
	l.unopened = func(kind Kind, version uint32) bool { return kind == KindIdentity && version < 5 }
	if i := mustAsk(t, l, v, state, Query{IdentityKey: alice.key(), Known: known}).Identity; i.Versions != 6 {
		t.Errorf("got %+v", i)
	}
	l.unopened = func(kind Kind, version uint32) bool { return kind == KindIdentity && version == 5 }
	_, err := l.ask(v, state, Query{Username: "alice"})
	wantStep(t, err, StepOpening, "newest and not opened")
}
