package projections

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

func TestKTEntriesKeepWhatAProofNeeds(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice")
	identity := identityKey("alice")
	second := w.do(identityEntry("alice", 1))
	v, found, err := KTEntry(w.reader(), kt.KindIdentity, identity[:], 1)
	if err != nil || !found {
		t.Fatalf("entry: %v, %v", found, err)
	}
	leaf, err := kt.ParseLeaf(second.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	if v.Label != leaf.Label || v.Commitment != leaf.Commitment || v.Index != second.Index {
		t.Errorf("map: %+v, leaf %+v at %d", v.KTRef, leaf, second.Index)
	}
	if v.Opening != second.Opening || !bytes.Equal(v.Raw, second.Raw) || !proto.Equal(v.Entry, identityEntry("alice", 1)) {
		t.Errorf("what opens the commitment differs: %+v", v)
	}
	ctx := kt.VRFInput(kt.KindIdentity, identity[:], 1)
	if kt.Commit(v.Opening, ctx, v.Raw) != v.Commitment {
		t.Error("opening and event do not open the commitment")
	}
	if ref, found, err := KTLabel(w.reader(), leaf.Label); err != nil || !found || ref != v.KTRef {
		t.Errorf("label: %+v, %v, %v", ref, found, err)
	}
	if newest, found, err := KTNewest(w.reader(), kt.KindIdentity, identity[:]); newest != 1 || !found || err != nil {
		t.Errorf("newest: %d, %v, %v", newest, found, err)
	}
	if newest, found, err := KTNewest(w.reader(), kt.KindAccount, []byte("alice")); newest != 0 || !found || err != nil {
		t.Errorf("newest account: %d, %v, %v", newest, found, err)
	}
	if v, found, err := KTEntry(w.reader(), kt.KindIdentity, identity[:], 0); !found || err != nil || v.Entry.GetVersion() != 0 {
		t.Errorf("first version: %v, %v, %v", v.Entry, found, err)
	}
}

func TestKTOfUnknownIdentifiers(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice")
	long := bytes.Repeat([]byte{'n'}, 70_000)
	for _, c := range []struct {
		kind    kt.Kind
		id      []byte
		version uint32
	}{
		{kt.KindAccount, []byte("alice"), 1},
		{kt.KindAccount, []byte("alic"), 0},
		{kt.KindIdentity, []byte("alice"), 0},
		{kt.KindRevocation, []byte("alice"), 0},
		{kt.KindAccount, long, 0},
		{kt.KindAccount, nil, 0},
	} {
		if _, found, err := KTEntry(w.reader(), c.kind, c.id, c.version); found || err != nil {
			t.Errorf("%v of %d bytes, version %d: %v, %v", c.kind, len(c.id), c.version, found, err)
		}
	}
	if _, found, err := KTNewest(w.reader(), kt.KindAccount, long); found || err != nil {
		t.Errorf("newest of a long name: %v, %v", found, err)
	}
	if _, found, err := KTLabel(w.reader(), kt.Label{1}); found || err != nil {
		t.Errorf("unknown label: %v, %v", found, err)
	}
}

func TestKeySetIsTheNewestVersion(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	for version := uint32(1); version < 4; version++ {
		w.do(identityEntry("alice", version))
	}
	for name, version := range map[string]uint32{"alice": 3, "bob": 0} {
		ks, found, err := KeySet(w.reader(), identityKey(name))
		want := new(pb.KeySet)
		if err := proto.Unmarshal(keySetOf(name, version), want); err != nil {
			t.Fatal(err)
		}
		if err != nil || !found || !proto.Equal(ks, want) {
			t.Errorf("KeySet of %s: %v, %v, %v", name, ks, found, err)
		}
	}
	if _, found, err := KeySet(w.reader(), identityKey("nobody")); found || err != nil {
		t.Errorf("KeySet of nobody: %v, %v", found, err)
	}
}

func TestStrictKT(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	bobSet := keySetOf("bob", 1)
	for _, c := range []struct {
		reason string
		spoil  func(*pb.KeyTransparencyEntry)
	}{
		{"does not follow", func(e *pb.KeyTransparencyEntry) { proto.Reset(e); proto.Merge(e, identityEntry("alice", 0)) }},
		{"does not follow", func(e *pb.KeyTransparencyEntry) { proto.Reset(e); proto.Merge(e, identityEntry("alice", 2)) }},
		{"does not follow", func(e *pb.KeyTransparencyEntry) { proto.Reset(e); proto.Merge(e, identityEntry("carol", 1)) }},
		{"kind 0", func(e *pb.KeyTransparencyEntry) { e.Kind = 0 }},
		{"kind 4", func(e *pb.KeyTransparencyEntry) { e.Kind = 4 }},
		{"kind 258", func(e *pb.KeyTransparencyEntry) { e.Kind = 256 + uint32(kt.KindIdentity) }},
		{"KT id of 0 bytes", func(e *pb.KeyTransparencyEntry) { e.Id = nil }},
		{"KT id of 129 bytes", func(e *pb.KeyTransparencyEntry) { e.Id = make([]byte, 129) }},
		{"identity key of 31 bytes", func(e *pb.KeyTransparencyEntry) { e.Id = e.Id[1:] }},
		{"KeySet of another", func(e *pb.KeyTransparencyEntry) { e.Value = bobSet }},
		{"KeySet of another", func(e *pb.KeyTransparencyEntry) { e.Value = keySetOf("alice", 2) }},
		{"KeySet of another", func(e *pb.KeyTransparencyEntry) { e.Value = nil }},
		{"KeySet: malformed", func(e *pb.KeyTransparencyEntry) { e.Value = []byte{0xff} }},
		{"VRF proofs of 79", func(e *pb.KeyTransparencyEntry) { e.VrfProof = e.VrfProof[1:] }},
		{"VRF proofs of 80 and 0", func(e *pb.KeyTransparencyEntry) { e.NextVrfProof = nil }},
	} {
		ev := identityEntry("alice", 1)
		c.spoil(ev)
		w.refuse(ev, c.reason)
	}
	account := accountEntry("carol", 0)
	good := account.Value
	for value, reason := range map[*pb.AccountBinding]string{
		{IdentityKey: make([]byte, 31), Authority: pb.Authority_FIRST}:                               "identity key of 31 bytes",
		{IdentityKey: make([]byte, 32), Authority: pb.Authority_OLD_KEY}:                             "not that of a first",
		{IdentityKey: make([]byte, 32), Authority: pb.Authority_FIRST, Tombstone: true}:              "not that of a first",
		{IdentityKey: make([]byte, 32), Authority: pb.Authority_FIRST, OldSignature: []byte("sign")}: "not that of a first",
	} {
		account.Value, _ = proto.Marshal(value)
		w.refuse(account, reason)
	}
	for reason, value := range map[string][]byte{"malformed": {0xff}, "unknown fields": append(bytes.Clone(good), 0x78, 1)} {
		account.Value = value
		w.refuse(account, reason)
	}
	account.Value = good
	swapped := w.entry(identityEntry("alice", 1), nil)
	swapped.Leaf = AppendLeaf(nil, swapped.Event, swapped.Raw, swapped.Opening, testLabel(identityEntry("alice", 2)))
	w.refuseEntry(swapped, "not that of the VRF proof")
	bad := identityEntry("alice", 1)
	bad.NextVrfProof = bytes.Repeat([]byte{0xff}, 80)
	w.refuse(bad, "VRF proof of the next version")

	// A label that stands in the map already, for another identifier.
	taken := accountEntry("carol", 0)
	taken.VrfProof = accountEntry("alice", 0).VrfProof
	w.refuse(taken, "the label exists")
	w.do(identityEntry("alice", 1))
}
