package commands

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// Registration is an OpaqueRegisterFinish that creates an account, with every
// statement verified and the VRF proofs made. Only PrepareRegistration makes one.
type Registration struct {
	challenge   Challenge
	upload      []byte
	identityKey [KeySize]byte
	deviceKey   [KeySize]byte
	keySet      []byte // KeySet v0 as it goes into the log
	hash        [32]byte

	account, identity *PreparedKT
	binding           []byte       // the account's value
	revocations       []revocation // of both keys
}

// PrepareRegistration verifies a registration by itself: the name is the sealed
// one, keys are acceptable, qpc-register-v1 is by the identity key, qpc-device-v1
// by the device key, and the KeySet is version 0, signed, and lists exactly the
// first device. It is pure and expensive (five signature checks, up to six VRF
// proofs), so it runs outside the writer. Refusals, all BadRequest:
// USERNAME_INVALID, CHALLENGE_INVALID, OPAQUE_MALFORMED, MISSING_FIELD,
// KEY_INVALID, SIGNATURE_INVALID, KEYSET_INVALID, KEYSET_VERSION, NOT_SUPPORTED,
// INVALID_FIELD.
func PrepareRegistration(serverName string, vrf *kt.VRFPrivateKey, c Challenge, req *pb.OpaqueRegisterFinishRequest) (*Registration, error) {
	if len(req.GetResetToken()) > 0 {
		return nil, invalid("reset_token belongs to a reset")
	}
	r, err := readRegistration(serverName, c, req)
	if err != nil {
		return nil, err
	}
	r.prepareLabels(vrf, 0)
	r.binding, err = firstBinding(r.identityKey[:])
	return r, err
}

// readRegistration verifies what is said and signed in a registration, of a new
// name or of one that is reset.
func readRegistration(serverName string, c Challenge, req *pb.OpaqueRegisterFinishRequest) (*Registration, error) {
	if err := c.check(req); err != nil {
		return nil, err
	}
	switch {
	case len(req.GetRecoveryBundle()) > 0:
		return nil, notSupported("recovery bundles are")
	case req.GetDropBundle():
		return nil, invalid("drop_bundle belongs to a password change")
	case len(req.GetIdentityKey()) == 0:
		return nil, missing("identity_key")
	case req.GetDevice() == nil:
		return nil, missing("device")
	case req.GetKeyset() == nil:
		return nil, missing("keyset")
	}
	if err := verifyRegistration(serverName, c, req); err != nil {
		return nil, err
	}
	keySet, err := marshalKeySet(req.GetKeyset())
	if err != nil {
		return nil, err
	}
	return &Registration{
		challenge:   c,
		upload:      req.GetUpload(),
		identityKey: [KeySize]byte(req.GetIdentityKey()),
		deviceKey:   [KeySize]byte(req.GetDevice().GetDeviceKey()),
		keySet:      keySet,
		hash:        registrationHash(c.Username, keySet, req),
	}, nil
}

// prepareLabels makes the VRF proofs, with the account's new version.
func (r *Registration) prepareLabels(vrf *kt.VRFPrivateKey, version uint32) {
	r.account = PrepareKT(vrf, kt.KindAccount, []byte(r.challenge.Username), version)
	r.identity = PrepareKT(vrf, kt.KindIdentity, r.identityKey[:], 0)
	r.revocations = []revocation{prepareRevocation(vrf, r.identityKey)}
	if r.deviceKey != r.identityKey {
		r.revocations = append(r.revocations, prepareRevocation(vrf, r.deviceKey))
	}
}

// revocationLabels are those of both keys, for their event.
func (r *Registration) revocationLabels() []*pb.RevocationLabel {
	labels := make([]*pb.RevocationLabel, len(r.revocations))
	for i := range r.revocations {
		labels[i] = r.revocations[i].event()
	}
	return labels
}

// verifyRegistration checks the keys and the three statements of a registration.
func verifyRegistration(serverName string, c Challenge, req *pb.OpaqueRegisterFinishRequest) error {
	identity, device, keySet := req.GetIdentityKey(), req.GetDevice(), req.GetKeyset()
	if err := kt.ValidatePublicKey(identity); err != nil {
		return refuseStatement("identity_key", err)
	}
	if err := kt.ValidatePublicKey(device.GetDeviceKey()); err != nil {
		return refuseStatement("device.device_key", err)
	}
	if err := c.statement(serverName, req).Verify(identity, req.GetSignature()); err != nil {
		return refuseStatement("signature", err)
	}
	consent := statement.Device{ServerName: serverName, IdentityKey: identity, DeviceKey: device.GetDeviceKey()}
	if err := consent.Verify(device.GetDeviceKey(), device.GetSignature()); err != nil {
		return refuseStatement("device.signature", err)
	}
	if err := statement.VerifyKeySet(serverName, keySet); err != nil {
		return refuseStatement("keyset", err)
	}
	switch {
	case !bytes.Equal(keySet.GetIdentityKey(), identity):
		return Refuse(pb.Status_BadRequest, pb.Reason_KEYSET_INVALID, "keyset: of another identity")
	case keySet.GetVersion() != 0:
		return Refuse(pb.Status_BadRequest, pb.Reason_KEYSET_VERSION, "keyset: the first version is 0, not %d", keySet.GetVersion())
	case len(keySet.GetDeviceKeys()) != 1 || !bytes.Equal(keySet.GetDeviceKeys()[0], device.GetDeviceKey()):
		return Refuse(pb.Status_BadRequest, pb.Reason_KEYSET_INVALID, "keyset: must list exactly the first device")
	}
	if keySet.GetKemId() == 0 {
		return nil
	}
	if err := ValidateHybridKey(keySet.GetHybridKey()); err != nil {
		return Refuse(pb.Status_BadRequest, pb.Reason_KEY_INVALID, "keyset.hybrid_key: %v", err)
	}
	return nil
}

// registrationHash is the SHA-256 over everything that a registration consists
// of, each part with its length: the same again is a retry.
func registrationHash(username string, keySet []byte, req *pb.OpaqueRegisterFinishRequest) [32]byte {
	h := sha256.New()
	for _, part := range [][]byte{
		[]byte("qpc registration"), []byte(username), req.GetUpload(), req.GetIdentityKey(), req.GetChallenge(),
		req.GetSignature(), req.GetDevice().GetDeviceKey(), req.GetDevice().GetSignature(), keySet,
	} {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	return [32]byte(h.Sum(nil))
}

// marshalKeySet encodes a verified KeySet for the log. It was checked to hold no
// unknown fields, so the encoding carries what was signed and nothing else.
func marshalKeySet(keySet *pb.KeySet) ([]byte, error) {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(keySet)
	if err != nil {
		return nil, fmt.Errorf("commands: encoding a KeySet: %w", err)
	}
	return encoded, nil
}

// RegisterAccount decides a registration: first writer wins. The same
// registration again is Ok and changes nothing, so a lost answer is harmless.
// Refusals, all BadRequest: USERNAME_TAKEN, KEY_IN_USE, KEY_REVOKED.
func RegisterAccount(tx *Tx, r *Registration) (*pb.OpaqueRegisterFinishResponse, error) {
	existing, done, err := r.check(tx.View())
	if err != nil {
		return nil, err
	}
	if done {
		return registered(tx, existing.IdentityKey)
	}
	account := tx.NewID()
	err = tx.Emit(&pb.Event{Body: &pb.Event_AccountRegistered{AccountRegistered: &pb.AccountRegistered{
		AccountId:        account[:],
		Username:         r.challenge.Username,
		IdentityKey:      r.identityKey[:],
		Opaque:           r.challenge.record(r.upload, 0),
		DeviceKey:        r.deviceKey[:],
		RegistrationHash: r.hash[:],
		RevocationLabels: r.revocationLabels(),
	}}})
	if err != nil {
		return nil, err
	}
	return r.emitEntries(tx)
}

// emitEntries writes the account's binding and KeySet v0, and answers.
func (r *Registration) emitEntries(tx *Tx) (*pb.OpaqueRegisterFinishResponse, error) {
	if err := tx.EmitKT(r.account, r.binding); err != nil {
		return nil, err
	}
	if err := tx.EmitKT(r.identity, r.keySet); err != nil {
		return nil, err
	}
	return &pb.OpaqueRegisterFinishResponse{IdentityKey: r.identityKey[:], ServerTimeMs: tx.Now()}, nil
}

// check looks for what stands in the way of a registration. done is true when it
// was decided before, as that account.
func (r *Registration) check(view projections.Reader) (existing projections.Account, done bool, err error) {
	taken, err := inMap(view, r.account.Label)
	if err != nil {
		return existing, false, err
	}
	if taken {
		existing, found, err := projections.AccountByName(view, r.challenge.Username)
		if err != nil {
			return existing, false, err
		}
		if found && existing.RegistrationHash == r.hash {
			return existing, true, nil
		}
		return existing, false, Refuse(pb.Status_BadRequest, pb.Reason_USERNAME_TAKEN, "this username is taken")
	}
	return existing, false, r.checkKeys(view)
}

// checkKeys refuses keys that somebody has or ever had.
func (r *Registration) checkKeys(view projections.Reader) error {
	for _, revocation := range r.revocations {
		if revoked, err := inMap(view, revocation.label); err != nil {
			return err
		} else if revoked {
			return Refuse(pb.Status_BadRequest, pb.Reason_KEY_REVOKED, "a key was revoked and can't come back")
		}
	}
	for _, key := range [][KeySize]byte{r.identityKey, r.deviceKey} {
		if _, used, err := projections.KeyOwner(view, key); err != nil {
			return err
		} else if used {
			return Refuse(pb.Status_BadRequest, pb.Reason_KEY_IN_USE, "a key belongs to an account already")
		}
	}
	return nil
}

// registered is the answer about an account as it stands.
func registered(tx *Tx, identityKey [KeySize]byte) (*pb.OpaqueRegisterFinishResponse, error) {
	keySet, found, err := projections.KeySet(tx.View(), identityKey)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("commands: an account without a KeySet")
	}
	return &pb.OpaqueRegisterFinishResponse{
		IdentityKey:   identityKey[:],
		KeysetVersion: keySet.GetVersion(),
		ServerTimeMs:  tx.Now(),
	}, nil
}

// NewRegister makes the command of a registration: public, and safe to retry by
// its content.
func NewRegister(rule *pb.Rule, req *pb.OpaqueRegisterFinishRequest, r *Registration) (*Command, error) {
	c, err := NewCommand(rule, req, func(tx *Tx) (*pb.OpaqueRegisterFinishResponse, error) { return RegisterAccount(tx, r) })
	if err != nil {
		return nil, err
	}
	c.Auth, c.Token = pb.Auth_NONE, [32]byte{}
	return c, nil
}
