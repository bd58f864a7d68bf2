package commands

import (
	"bytes"
	"fmt"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// PasswordChange is an OpaqueRegisterFinish that replaces an account's OPAQUE
// record, verified as far as that needs no view. Only PreparePasswordChange
// makes one.
type PasswordChange struct {
	challenge   Challenge
	upload      []byte
	identityKey []byte
	deviceKey   [KeySize]byte // whose signature was verified
}

// PreparePasswordChange verifies a password change by itself: the name is the
// sealed one, and qpc-register-v1 is by deviceKey, the device of the session that
// the request carries. Refusals, all BadRequest: USERNAME_INVALID,
// CHALLENGE_INVALID, OPAQUE_MALFORMED, NOT_SUPPORTED, INVALID_FIELD,
// MISSING_FIELD, SIGNATURE_INVALID.
func PreparePasswordChange(serverName string, c Challenge, deviceKey [KeySize]byte, req *pb.OpaqueRegisterFinishRequest) (*PasswordChange, error) {
	if err := c.check(req); err != nil {
		return nil, err
	}
	switch {
	case len(req.GetRecoveryBundle()) > 0:
		return nil, notSupported("recovery bundles are")
	case len(req.GetResetToken()) > 0:
		return nil, invalid("reset_token belongs to a reset, not to a password change")
	case req.GetDevice() != nil:
		return nil, invalid("device belongs to a registration, not to a password change")
	case req.GetKeyset() != nil:
		return nil, invalid("keyset belongs to a registration, not to a password change")
	case len(req.GetIdentityKey()) == 0:
		return nil, missing("identity_key")
	}
	if err := c.statement(serverName, req).Verify(deviceKey[:], req.GetSignature()); err != nil {
		return nil, refuseStatement("signature", err)
	}
	return &PasswordChange{
		challenge:   c,
		upload:      req.GetUpload(),
		identityKey: req.GetIdentityKey(),
		deviceKey:   deviceKey,
	}, nil
}

// ChangePassword decides a password change. The command's level is FRESH. It
// replaces the OPAQUE record and ends all other sessions of the account; the
// same change again is Ok and changes nothing. Refusals: Forbidden WRONG_ACCOUNT
// when name or identity are not the session's own, Forbidden REAUTH when the
// session is not one of a device with a login within FreshMS.
func ChangePassword(tx *Tx, p *PasswordChange) (*pb.OpaqueRegisterFinishResponse, error) {
	caller := tx.Caller()
	if caller.Scope != pb.SessionScope_DEVICE || caller.DeviceKey != p.deviceKey || tx.Now() >= caller.LoginMS+FreshMS {
		return nil, Refuse(pb.Status_Forbidden, pb.Reason_REAUTH, "log in again to change the password")
	}
	account, found, err := projections.AccountByID(tx.View(), caller.Account)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("commands: a session without an account")
	}
	if account.Username != p.challenge.Username || !bytes.Equal(account.IdentityKey[:], p.identityKey) {
		return nil, Refuse(pb.Status_Forbidden, pb.Reason_WRONG_ACCOUNT, "the name or the identity key is not this session's own")
	}
	record, found, err := projections.OpaqueRecord(tx.View(), account.ID)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("commands: an account without an OPAQUE record")
	}
	response, err := registered(tx, account.IdentityKey)
	if err != nil || p.is(record) {
		return response, err
	}
	err = tx.Emit(&pb.Event{Body: &pb.Event_PasswordChanged{PasswordChanged: &pb.PasswordChanged{
		AccountId:   account.ID[:],
		Opaque:      p.challenge.record(p.upload, record.GetVersion()+1),
		KeptSession: bytes.Clone(caller.Session[:]),
	}}})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// is reports whether a record is what this change leaves behind: it was decided
// before. The credential identifier is drawn per challenge, so no other change
// has the same.
func (p *PasswordChange) is(record *pb.OpaqueRecord) bool {
	return bytes.Equal(record.GetUpload(), p.upload) &&
		bytes.Equal(record.GetCredentialId(), p.challenge.CredentialID[:])
}

// NewChangePassword makes the command of a password change: the request's
// session must be fresh.
func NewChangePassword(rule *pb.Rule, req *pb.OpaqueRegisterFinishRequest, p *PasswordChange) (*Command, error) {
	c, err := NewCommand(rule, req, func(tx *Tx) (*pb.OpaqueRegisterFinishResponse, error) { return ChangePassword(tx, p) })
	if err != nil {
		return nil, err
	}
	c.Auth = pb.Auth_FRESH
	return c, nil
}
