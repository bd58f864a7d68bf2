package commands

import (
	"bytes"
	"fmt"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// keySetStep is the next KeySet of an identity, verified by itself outside the
// writer.
type keySetStep struct {
	serverName string
	keySet     *pb.KeySet
	encoded    []byte // as it goes into the log
	identity   [KeySize]byte
	prepared   *PreparedKT // nil: the view showed another version than the one before
}

// prepareKeySet verifies a KeySet by itself (sizes, keys, signature) together with
// its hybrid key, if any, and makes the VRF proofs when its version is the next one
// in view, the published state. Refusals, all BadRequest: MISSING_FIELD,
// KEYSET_INVALID, KEY_INVALID, SIGNATURE_INVALID.
func prepareKeySet(view projections.Reader, serverName string, vrf *kt.VRFPrivateKey, keySet *pb.KeySet) (*keySetStep, error) {
	if keySet == nil {
		return nil, missing("keyset")
	}
	if err := statement.VerifyKeySet(serverName, keySet); err != nil {
		return nil, refuseStatement("keyset", err)
	}
	if keySet.GetKemId() != 0 {
		if err := ValidateHybridKey(keySet.GetHybridKey()); err != nil {
			return nil, Refuse(pb.Status_BadRequest, pb.Reason_KEY_INVALID, "keyset.hybrid_key: %v", err)
		}
	}
	encoded, err := marshalKeySet(keySet)
	if err != nil {
		return nil, err
	}
	s := &keySetStep{
		serverName: serverName, keySet: keySet, encoded: encoded, identity: [KeySize]byte(keySet.GetIdentityKey()),
	}
	current, found, err := projections.KeySet(view, s.identity)
	if err != nil {
		return nil, err
	}
	if found && follows(current, keySet) {
		s.prepared = PrepareKT(vrf, kt.KindIdentity, s.identity[:], keySet.GetVersion())
	}
	return s, nil
}

// follows reports whether next has the version after current's.
func follows(current, next *pb.KeySet) bool {
	return uint64(next.GetVersion()) == uint64(current.GetVersion())+1
}

// stands reports whether the identity has this very KeySet, or had it.
func (s *keySetStep) stands(view projections.Reader) (bool, error) {
	entry, found, err := projections.KTEntry(view, kt.KindIdentity, s.identity[:], s.keySet.GetVersion())
	return found && bytes.Equal(entry.Entry.GetValue(), s.encoded), err
}

// renewal says what a KeySet's hybrid key must be.
type renewal uint8

const (
	keepHybridKey  renewal = iota // any, but not none after one
	renewHybridKey                // another one than before
)

// check holds the KeySet against the account: compare and set on the version,
// chained by hash, listing exactly these devices in this order. A hybrid key whose
// private half a device took along must be replaced. ErrStale: the published view
// that it was prepared on was older than the version before. Refusals: Forbidden
// WRONG_ACCOUNT; BadRequest KEYSET_VERSION, KEYSET_INVALID, KEY_REVOKED when the
// identity or a listed device was.
func (s *keySetStep) check(view projections.Reader, account *projections.Account, devices []projections.Key, r renewal) error {
	if account.IdentityKey != s.identity {
		return Refuse(pb.Status_Forbidden, pb.Reason_WRONG_ACCOUNT, "the KeySet is of another identity")
	}
	if err := refuseRevoked(view, s.identity, pb.Status_BadRequest, "the identity key"); err != nil {
		return err
	}
	current, found, err := projections.KeySet(view, s.identity)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("commands: an account without a KeySet")
	}
	if err := statement.VerifySuccessor(s.serverName, current, s.keySet); err != nil {
		return refuseStatement("keyset", err)
	}
	if err := checkDevices(view, devices, s.keySet); err != nil {
		return err
	}
	if err := s.checkHybridKey(current, r == renewHybridKey || rotationDue(account.Devices, current)); err != nil {
		return err
	}
	if s.prepared == nil || s.prepared.Version != s.keySet.GetVersion() {
		return ErrStale
	}
	return nil
}

func (s *keySetStep) checkHybridKey(current *pb.KeySet, renew bool) error {
	switch {
	case current.GetKemId() == 0:
		return nil
	case s.keySet.GetKemId() == 0:
		return Refuse(pb.Status_BadRequest, pb.Reason_KEYSET_INVALID, "keyset: the identity has a hybrid key, so its next KeySet carries one")
	case renew && bytes.Equal(current.GetHybridKey(), s.keySet.GetHybridKey()):
		return Refuse(pb.Status_BadRequest, pb.Reason_KEYSET_INVALID,
			"keyset: the hybrid key must be a new one, for a device that had the old one left")
	}
	return nil
}

// emit writes the KeySet.
func (s *keySetStep) emit(tx *Tx) error { return tx.EmitKT(s.prepared, s.encoded) }
