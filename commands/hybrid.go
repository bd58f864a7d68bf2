package commands

import (
	"fmt"
	"slices"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// HybridKeyUpload is an UploadHybridKeyRequest, verified outside the writer.
// Only PrepareHybridKey makes one.
type HybridKeyUpload struct{ step *keySetStep }

// PrepareHybridKey verifies a KeySet by itself (sizes, keys, signature) together
// with its hybrid key, and makes the VRF proofs when its version is the next one
// in view, the published state. Refusals, all BadRequest: MISSING_FIELD,
// KEYSET_INVALID, KEY_INVALID, SIGNATURE_INVALID.
func PrepareHybridKey(view projections.Reader, serverName string, vrf *kt.VRFPrivateKey, req *pb.UploadHybridKeyRequest) (*HybridKeyUpload, error) {
	step, err := prepareKeySet(view, serverName, vrf, req.GetKeyset())
	if err != nil {
		return nil, err
	}
	if req.GetKeyset().GetKemId() != statement.KEMXWing {
		return nil, Refuse(pb.Status_BadRequest, pb.Reason_KEYSET_INVALID, "keyset: kem_id must be %#x", statement.KEMXWing)
	}
	return &HybridKeyUpload{step}, nil
}

// UploadHybridKey decides the next KeySet of the caller's identity: compare and
// set on the version, chained by hash, listing exactly the active devices in the
// order they were added. ErrStale: the published view that the upload was
// prepared on was older than the version before. Refusals: Forbidden
// WRONG_ACCOUNT; BadRequest KEYSET_VERSION, KEYSET_INVALID, KEY_REVOKED when the
// identity or a listed device was; RateLimited RATE after MaxKeyChanges.
func UploadHybridKey(tx *Tx, u *HybridKeyUpload) (*pb.UploadHybridKeyResponse, error) {
	account, err := ownAccount(tx)
	if err != nil {
		return nil, err
	}
	if err := u.step.check(tx.View(), &account, account.Devices, keepHybridKey); err != nil {
		return nil, err
	}
	if err := refuseKeyChange(tx, account.ID); err != nil {
		return nil, err
	}
	if err := u.step.emit(tx); err != nil {
		return nil, err
	}
	return &pb.UploadHybridKeyResponse{Version: u.step.keySet.GetVersion(), ServerTimeMs: tx.Now()}, nil
}

// ownAccount is the account of the caller's session.
func ownAccount(tx *Tx) (projections.Account, error) {
	account, found, err := projections.AccountByID(tx.View(), tx.Caller().Account)
	if err == nil && !found {
		err = fmt.Errorf("commands: a session without an account")
	}
	return account, err
}

// NewUploadHybridKey makes the command of an UploadHybridKey from what
// PrepareHybridKey made of the same request.
func NewUploadHybridKey(rule *pb.Rule, req *pb.UploadHybridKeyRequest, u *HybridKeyUpload) (*Command, error) {
	return NewCommand(rule, req, func(tx *Tx) (*pb.UploadHybridKeyResponse, error) { return UploadHybridKey(tx, u) })
}

// FetchHybridKey answers with the newest KeySet of an identity from the
// published view. With a proof an identity without a hybrid key is no refusal:
// the proof shows it. Refusals: BadRequest MISSING_FIELD, KEY_INVALID for a key of
// another length; NotFound NO_SUCH_KEY for an unknown identity and for one without
// a hybrid key, KEY_REVOKED for one that was revoked; those of Proofs.
func FetchHybridKey(v *View, req *pb.FetchHybridKeyRequest) (*pb.FetchHybridKeyResponse, error) {
	identity, err := keyOf("identity_key", req.GetIdentityKey())
	if err != nil {
		return nil, err
	}
	if v.Proofs == nil { // the proof shows it
		if err := refuseRevoked(v.Reader, identity, pb.Status_NotFound, "this identity key"); err != nil {
			return nil, err
		}
	}
	keySet, due, err := hybridKeySet(v.Reader, identity)
	if err != nil {
		return nil, err
	}
	resp := &pb.FetchHybridKeyResponse{Keyset: keySet, HybridRotationDue: due}
	if v.Proofs != nil {
		if err := v.Proofs.Identity(identity[:]); err != nil {
			return nil, err
		}
		resp.Proof, err = v.Proofs.Proof()
		return resp, err
	}
	if keySet == nil {
		return nil, Refuse(pb.Status_NotFound, pb.Reason_NO_SUCH_KEY, "there is no hybrid key of this identity")
	}
	return resp, nil
}

// MaxProvedKeys is how many identities one FetchHybridKeys with a proof may name:
// each takes about 1.5 KB of proof, and a KeySet stands in it a second time.
const MaxProvedKeys = 32

// FetchHybridKeys answers as FetchHybridKey for several identities: one entry
// each, in their order, an empty one where there is no hybrid key. Refusals, all
// BadRequest: MISSING_FIELD without identities, TOO_MANY_ITEMS, KEY_INVALID; those
// of Proofs.
func FetchHybridKeys(v *View, req *pb.FetchHybridKeysRequest) (*pb.FetchHybridKeysResponse, error) {
	most := MaxHybridKeys
	if v.Proofs != nil {
		most = MaxProvedKeys
	}
	switch n := len(req.GetIdentityKeys()); {
	case n == 0:
		return nil, missing("identity_keys")
	case n > most:
		return nil, tooMany("identity_keys", n, most)
	}
	resp := &pb.FetchHybridKeysResponse{Entries: make([]*pb.FetchHybridKeysResponse_Entry, len(req.GetIdentityKeys()))}
	for i, key := range req.GetIdentityKeys() {
		identity, err := keyOf(fmt.Sprintf("identity_keys: number %d", i), key)
		if err != nil {
			return nil, err
		}
		keySet, due, err := hybridKeySet(v.Reader, identity)
		if err != nil {
			return nil, err
		}
		resp.Entries[i] = &pb.FetchHybridKeysResponse_Entry{Keyset: keySet, HybridRotationDue: due}
		if v.Proofs == nil {
			continue
		}
		if err := v.Proofs.Identity(identity[:]); err != nil {
			return nil, err
		}
	}
	if v.Proofs == nil {
		return resp, nil
	}
	var err error
	resp.Proof, err = v.Proofs.Proof()
	return resp, err
}

// hybridKeySet is the newest KeySet of an identity that is in use, if it carries a
// hybrid key, else nil. due tells that the identity should publish another one.
func hybridKeySet(view projections.Reader, identity projections.Key) (keySet *pb.KeySet, due bool, err error) {
	account, found, err := projections.AccountByKey(view, identity)
	if err != nil || !found {
		return nil, false, err
	}
	keySet, found, err = projections.KeySet(view, identity)
	if err != nil || !found || keySet.GetKemId() == 0 {
		return nil, false, err
	}
	return keySet, rotationDue(account.Devices, keySet), nil
}

// rotationDue tells that a device which had the private half of a KeySet's hybrid
// key is no active one any more. The next KeySet lists the active devices and
// carries another hybrid key.
func rotationDue(active []projections.Key, keySet *pb.KeySet) bool {
	return keySet.GetKemId() != 0 && slices.ContainsFunc(keySet.GetDeviceKeys(), func(key []byte) bool {
		return !slices.Contains(active, projections.Key(key))
	})
}
