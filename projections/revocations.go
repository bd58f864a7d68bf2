package projections

import (
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// A revocation is a KT entry, and that entry is what ends the key: whoever
// decides it need not think of the rest, and none can stand in the log without
// its consequences.
//
//	a device key    its sessions, its place among the active devices, its queue
//	                with the payloads that nobody else waits for, its KeyPackages
//	the identity    all sessions and KeyPackages; devices and queues wait for a
//	                successor
//	a former one    nothing is left to end
//
// The key stays known, as revoked, so that it never comes back.

const (
	// revocationReasons is the highest reason of RFC 5280, section 5.3.1.
	revocationReasons = 10
	signatureSize     = 64
)

// decodeRevocation reads the value of a revocation entry.
func decodeRevocation(ev *pb.KeyTransparencyEntry) (*pb.Revocation, error) {
	r := new(pb.Revocation)
	if err := (proto.UnmarshalOptions{RecursionLimit: maxEventDepth}).Unmarshal(ev.GetValue(), r); err != nil {
		return nil, invalid("revocation: malformed")
	}
	return r, checkKnown(r.ProtoReflect())
}

// checkRevocation checks a revocation by itself.
func checkRevocation(ev *pb.KeyTransparencyEntry) error {
	if _, err := field32(ev.GetId(), "revoked key"); err != nil {
		return err
	}
	if ev.GetVersion() != 0 {
		return invalid("revocation of version %d", ev.GetVersion())
	}
	r, err := decodeRevocation(ev)
	if err != nil {
		return err
	}
	signed := 0
	switch r.GetAuthority() {
	case pb.Authority_KEY, pb.Authority_IDENTITY:
		signed = signatureSize
	case pb.Authority_SESSION_LOGIN, pb.Authority_ADMINISTRATOR:
	default:
		return invalid("revocation by authority %d", r.GetAuthority())
	}
	if n := len(r.GetSignature()); n != signed || r.GetReason() > revocationReasons {
		return invalid("revocation with a signature of %d bytes and reason %d", n, r.GetReason())
	}
	return nil
}

// checkHandOver checks the value of an account's later versions by itself: signed
// by both keys, or after a reset on the word of the server alone.
func checkHandOver(binding *pb.AccountBinding) error {
	if binding.GetAuthority() == pb.Authority_ADMINISTRATOR && !binding.GetTombstone() {
		if len(binding.GetOldSignature())+len(binding.GetNewSignature())+len(binding.GetKeySetHash()) > 0 {
			return invalid("account binding: a reset that somebody signed")
		}
		return nil
	}
	if binding.GetAuthority() != pb.Authority_OLD_KEY || binding.GetTombstone() {
		return invalid("account binding by authority %d", binding.GetAuthority())
	}
	if len(binding.GetOldSignature()) != signatureSize || len(binding.GetNewSignature()) != signatureSize || len(binding.GetKeySetHash()) != len(Hash{}) {
		return invalid("account binding without both signatures and their KeySet")
	}
	return nil
}

// checkSubject holds a KT entry against who it is about. First versions come
// beside the event that makes their subject, in any order.
func checkSubject(b *Batch, e *Entry, ev *pb.KeyTransparencyEntry) error {
	switch {
	case ev.GetKind() == uint32(kt.KindRevocation):
		owner, found, err := KeyOwner(b, Key(ev.GetId()))
		if err != nil || !found || owner.Revoked {
			return orInvalid(err, "the revoked key is nobody's, or revoked already")
		}
		r, err := decodeRevocation(ev)
		if err == nil && r.GetTimeMs() != e.Event.GetTimeMs() {
			err = invalid("the revocation names another time than its event")
		}
		return err
	case ev.GetKind() == uint32(kt.KindAccount) && ev.GetVersion() > 0:
		binding := new(pb.AccountBinding)
		if err := proto.Unmarshal(ev.GetValue(), binding); err != nil {
			return invalid("account binding: malformed")
		}
		account, found, err := AccountByName(b, string(ev.GetId()))
		if err != nil || !found || account.IdentityKey != Key(binding.GetIdentityKey()) {
			return orInvalid(err, "the name is bound to another key than the account's")
		}
	}
	return nil
}

// endKey does what a revocation does to its key.
func (b *Batch) endKey(key Key) error {
	owner, found, err := KeyOwner(b, key)
	if err != nil || !found {
		return orInvalid(err, "the revoked key is nobody's")
	}
	sessions, err := SessionsEndedBy(b, key)
	if err != nil {
		return err
	}
	for i := range sessions {
		if err := b.endSession(sessions[i].TokenHash); err != nil {
			return err
		}
	}
	owner.Revoked = true
	if err := b.putOwner(key, owner); err != nil {
		return err
	}
	if err := b.purgeKeyPackages(owner.AccountID, key); err != nil {
		return err
	}
	return b.removeDevice(owner.AccountID, key)
}

// purgeKeyPackages removes the KeyPackages of all devices of an account whose
// identity key ended: they speak for that identity.
func (b *Batch) purgeKeyPackages(account ID, identity Key) error {
	a, found, err := AccountByID(b, account)
	if err != nil || !found || a.IdentityKey != identity {
		return err
	}
	for _, device := range a.Devices {
		if err := b.removeKeyPackages(Device{Key: device, AccountID: account}); err != nil {
			return err
		}
	}
	return nil
}

// removeDevice takes a device out of its account, with its queue; a key that is
// no active device's changes nothing.
func (b *Batch) removeDevice(account ID, device Key) error {
	if active, err := DeviceActive(b, device); err != nil || !active {
		return err
	}
	a, found, err := AccountByID(b, account)
	if err != nil || !found {
		return orInvalid(err, "the account does not exist")
	}
	a.Devices = slices.DeleteFunc(a.Devices, func(key Key) bool { return key == device })
	if err := b.putAccount(&a); err != nil {
		return err
	}
	if err := b.remove(keyOf32(b.scratch(), prefixDevice, device)); err != nil {
		return err
	}
	return b.removeDeviceState(account, device)
}

// removeQueue removes a queue with everything in it and about it.
func (b *Batch) removeQueue(device Key) error {
	q, found, err := Queue(b, device)
	if err != nil || !found {
		return orInvalid(err, "the device has no queue")
	}
	if err := b.removeUpTo(device, &q, math.MaxUint64-1); err != nil {
		return err
	}
	if err := b.setExpiryMark(device, &q, 0); err != nil {
		return err
	}
	q.Head = q.NextSeq
	if err := b.trimDrains(device, &q); err != nil {
		return err
	}
	return b.remove(keyOf32(b.scratch(), prefixQueue, device))
}

// SessionsEndedBy lists the sessions that end when a key is revoked: those of the
// device, or all of the account when it is the account's identity key now.
func SessionsEndedBy(r Reader, key Key) ([]Session, error) {
	owner, found, err := KeyOwner(r, key)
	if err != nil || !found {
		return nil, err
	}
	account, found, err := AccountByID(r, owner.AccountID)
	if err != nil || !found {
		return nil, err
	}
	sessions, err := SessionsOf(r, account.ID)
	if err != nil || account.IdentityKey == key {
		return sessions, err
	}
	return slices.DeleteFunc(sessions, func(s Session) bool {
		return s.Scope != pb.SessionScope_DEVICE || s.DeviceKey != key
	}), nil
}

// applyKeyRevoked changes nothing: it says who asked for the revocation that
// follows it.
func applyKeyRevoked(b *Batch, ev *pb.KeyRevoked) error {
	key, err := field32(ev.GetKey(), "key")
	if err != nil {
		return err
	}
	owner, found, err := KeyOwner(b, key)
	if err != nil || !found || owner.Revoked {
		return orInvalid(err, "the revoked key is nobody's, or revoked already")
	}
	return checkActor(b, ev.GetActor())
}

// applyIdentityReplaced gives an account another identity key. What is told of
// the old one stays with it.
func applyIdentityReplaced(b *Batch, ev *pb.IdentityReplaced) error {
	id, err := fieldID(ev.GetAccountId(), "account id")
	if err != nil {
		return err
	}
	oldKey, err := field32(ev.GetOldKey(), "old key")
	if err != nil {
		return err
	}
	newKey, err := field32(ev.GetNewKey(), "new key")
	if err != nil {
		return err
	}
	account, found, err := AccountByID(b, id)
	if err != nil || !found || account.IdentityKey != oldKey {
		return orInvalid(err, "the account does not exist, or has another identity key")
	}
	if _, found, err := KeyOwner(b, newKey); err != nil || found {
		return orInvalid(err, "a key is in use")
	}
	account.IdentityKey = newKey
	if err := b.putAccount(&account); err != nil {
		return err
	}
	if err := applyRevocationLabels(b, ev.GetRevocationLabels(), newKey); err != nil {
		return err
	}
	return b.putOwner(newKey, Owner{AccountID: id, IsIdentity: true})
}

// Revocation finds the revocation of a key, as it stands in the log.
func Revocation(r Reader, key Key) (*pb.Revocation, bool, error) {
	v, found, err := KTEntry(r, kt.KindRevocation, key[:], 0)
	if err != nil || !found {
		return nil, false, err
	}
	revocation, err := decodeRevocation(v.Entry)
	return revocation, err == nil, err
}
