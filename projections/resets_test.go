package projections

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

func resetIssued(name string, n int, expiresMS uint64) *pb.ResetIssued {
	id := accountID(name)
	return &pb.ResetIssued{
		AccountId: id[:], TokenHash: bytesOf("reset", name, n), ExpiresMs: expiresMS, Actor: &pb.Actor{Way: pb.Actor_DIRECTORY},
	}
}

// accountReset gives a person's account the keys of another name.
func accountReset(name, to string, version uint32) *pb.AccountReset {
	id, identity, device := accountID(name), identityKey(to), deviceKey(to)
	return &pb.AccountReset{
		AccountId: id[:], IdentityKey: identity[:], DeviceKey: device[:],
		Opaque: opaqueRecord(to, version), RegistrationHash: bytesOf("registration", to),
	}
}

// resetBinding is the account entry of a reset, with a signature or without.
func resetBinding(name, to string, version uint32, signature []byte) *pb.KeyTransparencyEntry {
	key := identityKey(to)
	value, err := proto.Marshal(&pb.AccountBinding{IdentityKey: key[:], Authority: pb.Authority_ADMINISTRATOR, NewSignature: signature})
	if err != nil {
		panic(err)
	}
	return ktEntryOf(kt.KindAccount, []byte(name), version, value)
}

func TestReset(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	w.do(sessionStarted("alice", 1, w.now+dayMS))
	w.do(resetIssued("alice", 1, w.now+2))
	w.do(resetIssued("alice", 2, w.now+dayMS))
	reset, found, err := ResetOf(w.reader(), accountID("alice"))
	if err != nil || !found || reset != (Reset{Hash(bytesOf("reset", "alice", 2)), w.now + dayMS, pb.Actor_DIRECTORY}) {
		t.Fatalf("reset %+v, found %v (%v)", reset, found, err)
	}

	w.refuse(resetIssued("nobody", 1, w.now+dayMS), "account does not exist")
	w.refuse(resetIssued("alice", 1, w.now), "good for nothing")
	bySomebody := resetIssued("alice", 1, w.now+dayMS)
	bySomebody.Actor = nil
	w.refuse(bySomebody, "actor of way 0")
	w.refuse(accountReset("alice", "anew", 2), "not revoked")
	w.do(revoked(identityKey("alice"), w.now, pb.Authority_ADMINISTRATOR))
	w.refuse(accountReset("alice", "anew", 2), "not revoked") // a device is left
	w.do(revoked(deviceKey("alice"), w.now, pb.Authority_ADMINISTRATOR))
	w.refuse(accountReset("bob", "anew", 2), "not revoked")
	w.refuse(accountReset("alice", "alice", 2), "in use")
	w.refuse(accountReset("alice", "bob", 2), "in use")
	w.refuse(accountReset("alice", "anew", 1), "record version")
	w.refuse(accountReset("nobody", "anew", 2), "account does not exist")
	w.do(enrollStarted("alice", 2, w.now+dayMS)) // the password was still good

	w.do(accountReset("alice", "anew", 2))
	w.hasSession("alice", 2, false)
	account, found, err := AccountByName(w.reader(), "alice")
	if err != nil || !found || account.IdentityKey != identityKey("anew") || len(account.Devices) != 1 || account.Devices[0] != deviceKey("anew") {
		t.Errorf("after the reset: %+v, found %v (%v)", account, found, err)
	}
	if q, found, err := Queue(w.reader(), deviceKey("anew")); err != nil || !found || q.NextSeq != 1 {
		t.Errorf("the new device's queue: %+v, found %v (%v)", q, found, err)
	}
	if w.rows(prefixReset) != 0 {
		t.Error("the token was not used up")
	}
	w.refuse(accountReset("alice", "again", 3), "not revoked")

	w.refuse(resetBinding("alice", "alice", 1, nil), "another key than the account's")
	w.refuse(resetBinding("alice", "anew", 1, make([]byte, signatureSize)), "signed")
	w.refuse(resetBinding("bob", "bob", 0, nil), "first registration")
	w.do(resetBinding("alice", "anew", 1, nil))
}
