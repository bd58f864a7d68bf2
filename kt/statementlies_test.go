package kt

import (
	"crypto/ed25519"
	"slices"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

func statementLies() []lie {
	bind := func(change func(l *testLog, alice, mallory *person) *pb.AccountBinding) func(*testLog, *person, *State) (*Question, *pb.KeyProof) {
		return func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			mallory := &person{log: l, name: "alice", identity: testKey(60), devices: alice.devices}
			l.bind("alice", change(l, alice, mallory))
			mallory.publish()
			l.head()
			return askAlice(l, state)
		}
	}
	keySet := func(change func(alice *person, ks *pb.KeySet)) func(*testLog, *person, *State) (*Question, *pb.KeyProof) {
		return func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			ks := alice.nextKeySet()
			change(alice, ks)
			l.entry(KindIdentity, alice.key(), must(proto.Marshal(ks)))
			l.head()
			return askAlice(l, state)
		}
	}
	signed := func(change func(ks *pb.KeySet)) func(*testLog, *person, *State) (*Question, *pb.KeyProof) {
		return keySet(func(alice *person, ks *pb.KeySet) {
			change(ks)
			statement.SignKeySet(testServer, ks, alice.identity)
		})
	}
	revoke := func(authority pb.Authority, signer func(alice *person) ed25519.PrivateKey) func(*testLog, *person, *State) (*Question, *pb.KeyProof) {
		return func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			l.revoke(public(testKey(12)), authority, signer(alice))
			l.head()
			return askAlice(l, state)
		}
	}
	by := func(seed byte) func(*person) ed25519.PrivateKey {
		return func(*person) ed25519.PrivateKey { return testKey(seed) }
	}
	return []lie{
		{"revives a deleted account", "follows the tombstone", StepTombstone, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			l.bind("alice", &pb.AccountBinding{Tombstone: true})
			l.bind("alice", &pb.AccountBinding{IdentityKey: alice.key(), Authority: pb.Authority_ADMINISTRATOR})
			l.head()
			return askAlice(l, state)
		}},
		{"revives a deleted identity", "is a tombstone", StepTombstone, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			l.entry(KindIdentity, alice.key(), nil)
			alice.keySets = append(alice.keySets, alice.keySets[0])
			l.entry(KindIdentity, alice.key(), must(proto.Marshal(alice.nextKeySet())))
			l.head()
			return askAlice(l, state)
		}},
		{"puts a key into a tombstone", "holds keys", StepTombstone, bind(func(_ *testLog, alice, _ *person) *pb.AccountBinding {
			return &pb.AccountBinding{Tombstone: true, IdentityKey: alice.key()}
		})},
		{"binds a name for the first time again", "authority FIRST", StepBinding, bind(func(_ *testLog, _, mallory *person) *pb.AccountBinding {
			return &pb.AccountBinding{IdentityKey: mallory.key(), Authority: pb.Authority_FIRST}
		})},
		{"binds a name on a session's word", "authority SESSION_LOGIN", StepBinding, bind(func(_ *testLog, _, mallory *person) *pb.AccountBinding {
			return &pb.AccountBinding{IdentityKey: mallory.key(), Authority: pb.Authority_SESSION_LOGIN}
		})},
		{"says that the old key signed", "invalid signature", StepBinding, bind(func(_ *testLog, alice, mallory *person) *pb.AccountBinding {
			b := alice.handOver(mallory)
			b.OldSignature = b.NewSignature
			return b
		})},
		{"says that the new key signed", "invalid signature", StepBinding, bind(func(_ *testLog, alice, mallory *person) *pb.AccountBinding {
			b := alice.handOver(mallory)
			b.NewSignature = b.OldSignature
			return b
		})},
		{"hands over without a KeySet hash", "KeySet hash of 0", StepBinding, bind(func(_ *testLog, alice, mallory *person) *pb.AccountBinding {
			b := alice.handOver(mallory)
			b.KeySetHash = nil
			return b
		})},
		{"lets an administrator sign", "authority ADMINISTRATOR", StepBinding, bind(func(_ *testLog, alice, mallory *person) *pb.AccountBinding {
			b := alice.handOver(mallory)
			b.Authority = pb.Authority_ADMINISTRATOR
			return b
		})},
		{"binds a name to no key", "invalid Ed25519", StepBinding, bind(func(*testLog, *person, *person) *pb.AccountBinding {
			return &pb.AccountBinding{IdentityKey: make([]byte, 32), Authority: pb.Authority_ADMINISTRATOR}
		})},
		{"replaces the KeySet of a hand-over", "another first KeySet", StepBinding, bind(func(_ *testLog, alice, mallory *person) *pb.AccountBinding {
			b := alice.handOver(mallory)
			mallory.devices = mallory.devices[:1]
			return b
		})},
		{"binds a name to a key without KeySet", "has no KeySet", StepKeySet, func(l *testLog, _ *person, state *State) (*Question, *pb.KeyProof) {
			l.bind("alice", &pb.AccountBinding{IdentityKey: public(testKey(60)), Authority: pb.Authority_ADMINISTRATOR})
			l.head()
			return askAlice(l, state)
		}},
		{"adds a device by itself", "invalid signature", StepKeySet, keySet(func(_ *person, ks *pb.KeySet) {
			ks.DeviceKeys = append(ks.DeviceKeys, public(testKey(60)))
		})},
		{"drops a version out of the chain", "previous_hash", StepKeySet, signed(func(ks *pb.KeySet) { ks.PreviousHash = make([]byte, 32) })},
		{"breaks the chain behind a known version that it calls erased", "previous_hash", StepKeySet, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			known := mustAsk(l.t, l, testVerifier(), state, Query{Username: "alice"}).Person.Known()
			ks := alice.nextKeySet()
			ks.PreviousHash = make([]byte, 32)
			statement.SignKeySet(testServer, ks, alice.identity)
			l.entry(KindIdentity, alice.key(), must(proto.Marshal(ks)))
			l.head()
			l.unopened = func(kind Kind, version uint32) bool { return kind == KindIdentity && version == 0 }
			q := state.Ask(Query{Username: "alice", Known: known})
			return q, l.answer(q, l.size())
		}},
		{"shows an old KeySet as the next version", "holds version 5", StepKeySet, signed(func(ks *pb.KeySet) { ks.Version = 5 })},
		{"shows the KeySet of another", "holds version 1 of", StepKeySet, signed(func(ks *pb.KeySet) { ks.IdentityKey = public(testKey(60)) })},
		{"shows a device key that is none", "device key of 70000", StepKeySet, signed(func(ks *pb.KeySet) { ks.DeviceKeys[1] = make([]byte, 70_000) })},
		{"shows more devices than there may be", "has 257 device keys", StepKeySet, signed(func(ks *pb.KeySet) {
			ks.DeviceKeys = slices.Repeat(ks.DeviceKeys[:1], statement.MaxDeviceKeys+1)
		})},
		{"shows no KeySet", "proto", StepKeySet, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			l.entry(KindIdentity, alice.key(), []byte{0xff})
			l.head()
			return askAlice(l, state)
		}},
		{"changes what it showed before", "than it was", StepKeySet, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			other := proto.Clone(alice.keySets[0]).(*pb.KeySet)
			other.TimeMs++
			statement.SignKeySet(testServer, other, alice.identity)
			q := state.Ask(Query{IdentityKey: alice.key(), Known: &KnownPerson{IdentityKey: alice.key(), KeySet: must(proto.Marshal(other))}})
			return q, l.answer(q, l.size())
		}},
		{"moves a name that was seen elsewhere", "it was to key", StepBinding, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			known := &KnownPerson{IdentityKey: public(testKey(60))}
			known.KeySet = must(proto.Marshal(&pb.KeySet{IdentityKey: known.IdentityKey}))
			q := state.Ask(Query{Username: "alice", Known: known})
			return q, l.answer(q, l.size())
		}},
		{"revokes in the key's name", "invalid signature", StepRevocation, revoke(pb.Authority_KEY, by(60))},
		{"revokes in the identity's name", "invalid signature", StepRevocation, revoke(pb.Authority_IDENTITY, by(12))},
		{"revokes in a key's name without a signature", "0 bytes", StepRevocation, revoke(pb.Authority_KEY, func(*person) ed25519.PrivateKey { return nil })},
		{"adds a signature to its own word", "does not sign", StepRevocation, revoke(pb.Authority_ADMINISTRATOR, by(12))},
		{"revokes on nobody's word", "authority FIRST", StepRevocation, revoke(pb.Authority_FIRST, by(12))},
		{"shows no revocation", "proto", StepRevocation, func(l *testLog, alice *person, state *State) (*Question, *pb.KeyProof) {
			l.entry(KindRevocation, alice.key(), []byte{0xff})
			l.head()
			return askAlice(l, state)
		}},
	}
}
