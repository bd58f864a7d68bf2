package projections

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// revoked is the revocation entry of a key.
func revoked(key Key, nowMS uint64, by pb.Authority) *pb.KeyTransparencyEntry {
	r := &pb.Revocation{Reason: 1, TimeMs: nowMS, Authority: by}
	if by == pb.Authority_KEY || by == pb.Authority_IDENTITY {
		r.Signature = bytes.Repeat([]byte{9}, signatureSize)
	}
	return revocationOf(key, r)
}

func revocationOf(key Key, r *pb.Revocation) *pb.KeyTransparencyEntry {
	value, err := proto.Marshal(r)
	if err != nil {
		panic(err)
	}
	return ktEntryOf(kt.KindRevocation, key[:], 0, value)
}

// replaced hands a person's account to the identity key of another name.
func replaced(name, from, to string) *pb.IdentityReplaced {
	id, oldKey, newKey := accountID(name), identityKey(from), identityKey(to)
	return &pb.IdentityReplaced{AccountId: id[:], OldKey: oldKey[:], NewKey: newKey[:]}
}

func handOver(name, to string, version uint32) *pb.KeyTransparencyEntry {
	key := identityKey(to)
	value, err := proto.Marshal(&pb.AccountBinding{
		IdentityKey: key[:], Authority: pb.Authority_OLD_KEY, KeySetHash: bytesOf("key set", to),
		OldSignature: bytes.Repeat([]byte{1}, signatureSize), NewSignature: bytes.Repeat([]byte{2}, signatureSize),
	})
	if err != nil {
		panic(err)
	}
	return ktEntryOf(kt.KindAccount, []byte(name), version, value)
}

// enrollStarted is a session of scope ENROLL_ONLY.
func enrollStarted(name string, n int, expiresMS uint64) *pb.SessionStarted {
	s := sessionStarted(name, n, expiresMS)
	s.Scope, s.DeviceKey = pb.SessionScope_ENROLL_ONLY, nil
	return s
}

func (w *world) hasSession(name string, n int, want bool) {
	w.t.Helper()
	if _, found, err := SessionByToken(w.reader(), tokenOf(name, n)); err != nil || found != want {
		w.t.Fatalf("session %d of %s: found %v, want %v, %v", n, name, found, want, err)
	}
}

// TestRevokedDevice: nothing of the device is left, and everything else is.
func TestRevokedDevice(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	device := deviceKey("bob")
	w.do(sessionStarted("bob", 1, w.now+9*dayMS))
	w.do(enrollStarted("bob", 2, w.now+9*dayMS))
	w.do(sessionStarted("alice", 1, w.now+9*dayMS))
	for n := 1; n <= 6; n++ {
		w.send(n, "alice", "bob")
	}
	both := enqueued(7, "alice", "bob", 10, w.now+dayMS, target(device, 7))
	w.do(both)
	w.do(drained(device, 3))
	w.do(acked(device, 0, 2, 5))
	w.commit()
	ended, err := SessionsEndedBy(w.reader(), device)
	if err != nil || len(ended) != 1 || ended[0].TokenHash != tokenOf("bob", 1) {
		t.Errorf("sessions to end: %+v, %v", ended, err)
	}
	w.do(revoked(device, w.now, pb.Authority_SESSION_LOGIN))
	var released []ID
	for _, ref := range w.reader().Released() {
		released = append(released, ref.ID)
	}
	if want := []ID{messageID(1), messageID(3), messageID(4), messageID(6), messageID(7)}; !slices.Equal(released, want) {
		t.Errorf("released %x, want %x", released, want)
	}
	w.hasSession("bob", 1, false)
	w.hasSession("bob", 2, true)
	w.hasSession("alice", 1, true)
	for _, prefix := range []byte{prefixQueueItem, prefixShare, prefixPayload, prefixQueueExpiry, prefixDrain, prefixDrainDue} {
		if n := w.rows(prefix); n != 0 {
			t.Errorf("%d rows with prefix %#x are left", n, prefix)
		}
	}
	if _, found, err := Queue(w.reader(), device); err != nil || found {
		t.Errorf("the queue: found %v, %v", found, err)
	}
	account, _, err := AccountByName(w.reader(), "bob")
	if err != nil || len(account.Devices) != 0 {
		t.Errorf("devices %x, %v", account.Devices, err)
	}
	owner, found, err := KeyOwner(w.reader(), device)
	if want := (Owner{AccountID: accountID("bob"), IsDevice: true, Revoked: true}); err != nil || !found || owner != want {
		t.Errorf("owner %+v, %v", owner, err)
	}
	r, found, err := Revocation(w.reader(), device)
	if err != nil || !found || r.GetAuthority() != pb.Authority_SESSION_LOGIN || r.GetTimeMs() != w.now {
		t.Errorf("revocation %v, found %v, %v", r, found, err)
	}
	if _, found, err := Revocation(w.reader(), deviceKey("alice")); err != nil || found {
		t.Errorf("revocation of another key: found %v, %v", found, err)
	}
	w.refuse(revoked(device, w.now, pb.Authority_KEY), "version 0 does not follow")
	w.refuse(sessionStarted("bob", 3, w.now+dayMS), "not an active one")
	w.refuse(enqueued(8, "alice", "bob", 10, w.now+dayMS, target(device, 8)), "")
}

// TestRevokedIdentity: all sessions end, devices and queue wait for a successor.
func TestRevokedIdentity(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	w.do(sessionStarted("bob", 1, w.now+9*dayMS))
	w.do(enrollStarted("bob", 2, w.now+9*dayMS))
	w.do(sessionStarted("alice", 1, w.now+9*dayMS))
	w.send(1, "alice", "bob")
	w.do(revoked(identityKey("bob"), w.now, pb.Authority_KEY))
	w.hasSession("bob", 1, false)
	w.hasSession("bob", 2, false)
	w.hasSession("alice", 1, true)
	if len(w.seqs("bob", 0)) != 1 {
		t.Error("the queue is gone")
	}
	if _, found, err := AccountByKey(w.reader(), identityKey("bob")); err != nil || found {
		t.Errorf("the account by its revoked key: found %v, %v", found, err)
	}

	w.do(sessionStarted("bob", 3, w.now+9*dayMS))
	w.do(replaced("bob", "bob", "bob2"))
	w.do(handOver("bob", "bob2", 1))
	w.hasSession("bob", 3, true)
	account, found, err := AccountByKey(w.reader(), identityKey("bob2"))
	if err != nil || !found || account.ID != accountID("bob") || len(account.Devices) != 1 {
		t.Errorf("the account by its new key: %+v, %v", account, err)
	}
}

// TestReplacedIdentity: with the hand-over first, the old key's revocation ends
// nothing but the key.
func TestReplacedIdentity(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	w.do(sessionStarted("bob", 1, w.now+9*dayMS))
	w.refuse(handOver("bob", "bob2", 1), "bound to another key")
	w.do(replaced("bob", "bob", "bob2"))
	w.refuse(handOver("bob", "bob3", 1), "bound to another key")
	w.refuse(handOver("nobody", "bob2", 1), "version 1 does not follow")
	w.do(handOver("bob", "bob2", 1))
	w.do(revoked(identityKey("bob"), w.now, pb.Authority_KEY))
	w.hasSession("bob", 1, true)
	for key, want := range map[string]bool{"bob": false, "bob2": true} {
		if _, found, err := AccountByKey(w.reader(), identityKey(key)); err != nil || found != want {
			t.Errorf("the account by %s: found %v, %v", key, found, err)
		}
	}
	w.refuse(replaced("bob", "bob", "bob3"), "another identity key")
	w.refuse(replaced("nobody", "bob", "bob3"), "does not exist")
	w.refuse(replaced("bob", "bob2", "alice"), "in use")
	w.refuse(replaced("bob", "bob2", "bob"), "in use")
	w.refuse(registered("bob2"), "a key is in use")
}

// TestRevokedKeyOfBothKinds: an identity key that is a device key is one key.
func TestRevokedKeyOfBothKinds(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	ev := registered("alice")
	ev.DeviceKey = ev.IdentityKey
	w.do(ev)
	s := sessionStarted("alice", 1, w.now+dayMS)
	s.DeviceKey = ev.IdentityKey
	w.do(s)
	w.do(enrollStarted("alice", 2, w.now+dayMS))
	w.do(revoked(identityKey("alice"), w.now, pb.Authority_KEY))
	w.hasSession("alice", 1, false)
	w.hasSession("alice", 2, false)
	if active, err := DeviceActive(w.reader(), identityKey("alice")); err != nil || active {
		t.Errorf("the device is active: %v, %v", active, err)
	}
}

func TestStrictRevocations(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice")
	device := deviceKey("alice")
	change := func(f func(*pb.Revocation)) *pb.KeyTransparencyEntry {
		r := &pb.Revocation{Reason: 1, TimeMs: w.now, Authority: pb.Authority_KEY, Signature: make([]byte, signatureSize)}
		f(r)
		return revocationOf(device, r)
	}
	w.refuse(revoked(deviceKey("nobody"), w.now, pb.Authority_KEY), "nobody's")
	w.refuse(ktEntryOf(kt.KindRevocation, device[:], 1, nil), "revocation of version 1")
	w.refuse(ktEntryOf(kt.KindRevocation, device[:31], 0, nil), "revoked key of 31 bytes")
	w.refuse(ktEntryOf(kt.KindRevocation, device[:], 0, []byte{0xff}), "malformed")
	w.refuse(ktEntryOf(kt.KindRevocation, device[:], 0, []byte{0x78, 1}), "unknown fields")
	w.refuse(change(func(r *pb.Revocation) { r.TimeMs-- }), "another time")
	w.refuse(change(func(r *pb.Revocation) { r.Authority = pb.Authority_FIRST }), "authority 1")
	w.refuse(change(func(r *pb.Revocation) { r.Authority = pb.Authority_ADMINISTRATOR }), "signature of 64 bytes")
	w.refuse(change(func(r *pb.Revocation) { r.Signature = nil }), "signature of 0 bytes")
	w.refuse(change(func(r *pb.Revocation) { r.Reason = 11 }), "reason 11")

	w.do(replaced("alice", "alice", "alice2"))
	binding := func(f func(*pb.AccountBinding)) *pb.KeyTransparencyEntry {
		e := handOver("alice", "alice2", 1)
		b := new(pb.AccountBinding)
		if err := proto.Unmarshal(e.GetValue(), b); err != nil {
			t.Fatal(err)
		}
		f(b)
		e.Value, _ = proto.Marshal(b)
		return e
	}
	w.refuse(binding(func(b *pb.AccountBinding) { b.Authority = pb.Authority_FIRST }), "authority 1")
	w.refuse(binding(func(b *pb.AccountBinding) { b.Tombstone = true }), "authority 6")
	w.refuse(binding(func(b *pb.AccountBinding) { b.OldSignature = nil }), "both signatures")
	w.refuse(binding(func(b *pb.AccountBinding) { b.KeySetHash = nil }), "both signatures")
	w.refuse(binding(func(b *pb.AccountBinding) { b.IdentityKey = nil }), "identity key of 0 bytes")
	w.do(binding(func(*pb.AccountBinding) {}))
}

// TestKeyRevokedNamesAnAdministrator: the note has no effect of its own.
func TestKeyRevokedNamesAnAdministrator(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	key := deviceKey("bob")
	w.refuse(&pb.KeyRevoked{Key: key[:], Actor: bySession("alice")}, "actor is a user")
	w.do(roleChanged("alice", pb.Role_ADMIN, &pb.Actor{Way: pb.Actor_SOCKET}))
	w.do(&pb.KeyRevoked{Key: key[:], Actor: bySession("alice")})
	if active, err := DeviceActive(w.reader(), key); err != nil || !active {
		t.Errorf("active %v, %v", active, err)
	}
	w.do(revoked(key, w.now, pb.Authority_ADMINISTRATOR))
	w.refuse(&pb.KeyRevoked{Key: key[:], Actor: bySession("alice")}, "revoked already")
	w.refuse(&pb.KeyRevoked{Key: key[1:], Actor: bySession("alice")}, "key of 31 bytes")
	w.refuse(&pb.KeyRevoked{Key: bytesOf("x"), Actor: bySession("alice")}, "nobody's")
}
