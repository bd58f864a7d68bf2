package commands

import (
	"bytes"
	"fmt"
	"slices"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// keySuccession is the successor of a RevokeKeyRequest, with every statement
// verified and the VRF proofs made.
type keySuccession struct {
	username string
	newKey   [KeySize]byte
	keySet   *pb.KeySet
	encoded  []byte // keySet as it goes into the log
	binding  *pb.AccountBinding
	account  *PreparedKT // nil: the view showed that it was done, or no such account
	identity *PreparedKT
	nextEnd  revocation // where a revocation of the new key would stand
}

// prepareSuccession verifies a hand-over by itself: the KeySet is version 0 of
// the new identity, with an acceptable hybrid key if any, and both keys signed
// for it. account is whose the old key is in view.
func prepareSuccession(view projections.Reader, serverName string, vrf *kt.VRFPrivateKey, oldKey [KeySize]byte, account projections.Account, req *pb.Successor) (*keySuccession, error) {
	keySet := req.GetKeyset()
	switch {
	case req.GetUsername() == "":
		return nil, missing("successor.username")
	case keySet == nil:
		return nil, missing("successor.keyset")
	}
	if err := statement.VerifyKeySet(serverName, keySet); err != nil {
		return nil, refuseStatement("successor.keyset", err)
	}
	if keySet.GetVersion() != 0 {
		return nil, Refuse(pb.Status_BadRequest, pb.Reason_KEYSET_VERSION, "successor.keyset: the first version is 0, not %d", keySet.GetVersion())
	}
	if keySet.GetKemId() != 0 {
		if err := ValidateHybridKey(keySet.GetHybridKey()); err != nil {
			return nil, Refuse(pb.Status_BadRequest, pb.Reason_KEY_INVALID, "successor.keyset.hybrid_key: %v", err)
		}
	}
	hash := statement.KeySetHash(serverName, keySet)
	s := statement.Successor{
		ServerName: serverName, Username: req.GetUsername(), OldKey: oldKey[:], NewKey: keySet.GetIdentityKey(), KeySetHash: hash,
	}
	if err := s.Verify(oldKey[:], req.GetOldSignature()); err != nil {
		return nil, refuseStatement("successor.old_signature", err)
	}
	if err := s.Verify(keySet.GetIdentityKey(), req.GetNewSignature()); err != nil {
		return nil, refuseStatement("successor.new_signature", err)
	}
	encoded, err := marshalKeySet(keySet)
	if err != nil {
		return nil, err
	}
	n := &keySuccession{
		username: req.GetUsername(), newKey: [KeySize]byte(keySet.GetIdentityKey()), keySet: keySet, encoded: encoded,
		binding: &pb.AccountBinding{
			IdentityKey: keySet.GetIdentityKey(), Authority: pb.Authority_OLD_KEY, KeySetHash: hash[:],
			OldSignature: req.GetOldSignature(), NewSignature: req.GetNewSignature(),
		},
	}
	if account.Username != n.username || account.IdentityKey == n.newKey {
		return n, nil // refused in a moment, or done
	}
	version, _, err := projections.KTNewest(view, kt.KindAccount, []byte(n.username))
	if err != nil {
		return nil, err
	}
	n.account = PrepareKT(vrf, kt.KindAccount, []byte(n.username), version+1)
	n.identity = PrepareKT(vrf, kt.KindIdentity, n.newKey[:], 0)
	n.nextEnd = prepareRevocation(vrf, n.newKey)
	return n, nil
}

// succeed decides a hand-over: the account gets the new identity key with all its
// devices, and the old one is revoked by its own signature. It wants a login
// within FreshMS; the same again is Ok. Refusals: Unauthorized TOKEN_MISSING;
// Forbidden WRONG_ACCOUNT, REAUTH; BadRequest INVALID_FIELD, KEY_REVOKED,
// KEY_IN_USE, KEYSET_INVALID, MISSING_FIELD; RateLimited RATE after MaxKeyChanges.
func (r *KeyRevocation) succeed(tx *Tx, owner projections.Owner) (*pb.RevokeKeyResponse, error) {
	caller, n := tx.Caller(), r.successor
	if !caller.Known() {
		return nil, errTokenMissing
	}
	account, found, err := projections.AccountByID(tx.View(), caller.Account)
	if err != nil {
		return nil, err
	}
	switch {
	case !found:
		return nil, fmt.Errorf("commands: a session without an account")
	case owner.AccountID != account.ID || account.Username != n.username:
		return nil, errNotYours
	case !owner.IsIdentity:
		return nil, invalid("key is no identity key: only one of these has a successor")
	}
	version, done, err := n.stands(tx.View(), &account)
	if err != nil {
		return nil, err
	}
	if !done {
		if err := caller.RequireFresh(tx.Now()); err != nil {
			return nil, err
		}
		if err := r.checkSuccession(tx.View(), &account); err != nil {
			return nil, err
		}
		if n.account == nil || n.account.Version != version+1 {
			return nil, ErrStale
		}
		if err := refuseKeyChange(tx, account.ID); err != nil {
			return nil, err
		}
		version = n.account.Version
		if err := n.emit(tx, &account); err != nil {
			return nil, err
		}
	}
	revocation, err := r.emit(tx, pb.Authority_KEY, nil)
	if err != nil {
		return nil, err
	}
	return &pb.RevokeKeyResponse{Revocation: revocation, AccountVersion: version, ServerTimeMs: tx.Now()}, nil
}

// stands gives the version of the account's newest binding, and tells whether
// that is this hand-over.
func (n *keySuccession) stands(view projections.Reader, account *projections.Account) (version uint32, done bool, err error) {
	version, found, err := projections.KTNewest(view, kt.KindAccount, []byte(account.Username))
	if err != nil {
		return 0, false, err
	}
	if !found {
		return 0, false, fmt.Errorf("commands: an account without a key-transparency entry")
	}
	if account.IdentityKey != n.newKey {
		return version, false, nil
	}
	entry, _, err := projections.KTEntry(view, kt.KindAccount, []byte(account.Username), version)
	if err != nil {
		return 0, false, err
	}
	value, err := marshalValue(n.binding)
	return version, bytes.Equal(entry.Entry.GetValue(), value), err
}

// checkSuccession looks for what stands in the way of a hand-over.
func (r *KeyRevocation) checkSuccession(view projections.Reader, account *projections.Account) error {
	n := r.successor
	if account.IdentityKey != r.key {
		return Refuse(pb.Status_BadRequest, pb.Reason_KEY_REVOKED, "this identity key was replaced before")
	}
	switch _, used, err := projections.KeyOwner(view, n.newKey); {
	case err != nil:
		return err
	case used:
		return Refuse(pb.Status_BadRequest, pb.Reason_KEY_IN_USE, "the new key belongs to an account already")
	}
	switch revoked, err := inMap(view, n.nextEnd.label); {
	case err != nil:
		return err
	case revoked:
		return Refuse(pb.Status_BadRequest, pb.Reason_KEY_REVOKED, "the new key was revoked and can't come back")
	}
	staying := slices.DeleteFunc(slices.Clone(account.Devices), func(d projections.Key) bool { return d == r.key })
	if err := checkDevices(view, staying, n.keySet); err != nil {
		return err
	}
	current, found, err := projections.KeySet(view, r.key)
	if err != nil {
		return err
	}
	if found && current.GetKemId() != 0 && bytes.Equal(current.GetHybridKey(), n.keySet.GetHybridKey()) {
		return Refuse(pb.Status_BadRequest, pb.Reason_KEYSET_INVALID, "successor.keyset: the hybrid key must be a new one")
	}
	switch _, revoked, err := projections.Revocation(view, r.key); {
	case err != nil:
		return err
	case !revoked && (r.signature == nil || r.signer != r.key):
		return Refuse(pb.Status_BadRequest, pb.Reason_MISSING_FIELD, "signature is required: the old key's own revocation")
	}
	return nil
}

// checkDevices holds a KeySet against the devices that it must list. Refusals,
// both BadRequest: KEY_REVOKED when it lists a device that was revoked,
// KEYSET_INVALID.
func checkDevices(view projections.Reader, want []projections.Key, keySet *pb.KeySet) error {
	listed := keySet.GetDeviceKeys()
	if slices.EqualFunc(want, listed, func(device projections.Key, key []byte) bool { return bytes.Equal(device[:], key) }) {
		return nil
	}
	for i, key := range listed {
		if err := refuseRevoked(view, projections.Key(key), pb.Status_BadRequest, fmt.Sprintf("keyset: device key number %d", i)); err != nil {
			return err
		}
	}
	return Refuse(pb.Status_BadRequest, pb.Reason_KEYSET_INVALID, "keyset: must list exactly the active devices, in the order they were added")
}

// emit writes the hand-over; the old key's revocation follows.
func (n *keySuccession) emit(tx *Tx, account *projections.Account) error {
	binding, err := marshalValue(n.binding)
	if err != nil {
		return err
	}
	err = tx.Emit(&pb.Event{Body: &pb.Event_IdentityReplaced{IdentityReplaced: &pb.IdentityReplaced{
		AccountId: account.ID[:], OldKey: account.IdentityKey[:], NewKey: n.newKey[:],
		RevocationLabels: []*pb.RevocationLabel{n.nextEnd.event()},
	}}})
	if err != nil {
		return err
	}
	if err := tx.EmitKT(n.account, binding); err != nil {
		return err
	}
	return tx.EmitKT(n.identity, n.encoded)
}
