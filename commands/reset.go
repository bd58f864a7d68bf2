package commands

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"slices"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// A person who lost the password or the keys, and has no other device, can only
// begin anew. The administrator vouches for the person with a one-time token; the
// log shows that this was the administrator's word, and the keys of before end.

// NewResetAccount makes the command that issues a token for an account, by an
// actor on the server's machine. Only the token's SHA-256 is kept; a later token
// takes the place of one that was not used. Refusals: BadRequest
// USERNAME_INVALID, MISSING_FIELD; NotFound NO_SUCH_USER.
func NewResetAccount(rule *pb.Rule, req *pb.ResetAccountRequest, by pb.Actor_Way) (*Command, error) {
	name, err := nameOf(req.GetUsername())
	if err != nil {
		return nil, err
	}
	return NewCommand(rule, req, func(tx *Tx) (*pb.ResetAccountResponse, error) {
		account, found, err := projections.AccountByName(tx.View(), name)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, errNoSuchUser
		}
		token := tx.Random(ResetTokenSize)
		hash, expires := sha256.Sum256(token), tx.Now()+uint64(ResetTokenLife.Milliseconds())
		err = tx.Emit(&pb.Event{Body: &pb.Event_ResetIssued{ResetIssued: &pb.ResetIssued{
			AccountId: account.ID[:], TokenHash: hash[:], ExpiresMs: expires, Actor: &pb.Actor{Way: by},
		}}})
		return &pb.ResetAccountResponse{
			Username: name, ResetToken: token, ExpiresMs: expires, IdentityKey: account.IdentityKey[:], ServerTimeMs: tx.Now(),
		}, err
	})
}

// AccountReset is an OpaqueRegisterFinish with the token of a ResetAccount, with
// every statement verified and the VRF proofs made. Only PrepareReset makes one.
type AccountReset struct {
	*Registration
	tokenHash projections.Hash
	before    projections.Account // as the preparation found it
	ending    []*KeyRevocation    // of its keys that are not revoked yet
}

var (
	errResetToken   = Refuse(pb.Status_BadRequest, pb.Reason_RESET_TOKEN_INVALID, "the reset token is not good for this name: it is another, was used, or was replaced by a later one")
	errResetExpired = Refuse(pb.Status_BadRequest, pb.Reason_RESET_TOKEN_INVALID, "the reset token has expired: ask the administrator for a new one")
)

// PrepareReset verifies a reset as far as that needs no more than view, the
// published state at nowMS (Unix milliseconds). Refusals, all BadRequest: those of
// PrepareRegistration; RESET_TOKEN_INVALID.
func PrepareReset(view projections.Reader, nowMS uint64, serverName string, vrf *kt.VRFPrivateKey, c Challenge, req *pb.OpaqueRegisterFinishRequest) (*AccountReset, error) {
	registration, err := readRegistration(serverName, c, req)
	if err != nil {
		return nil, err
	}
	if n := len(req.GetResetToken()); n != ResetTokenSize {
		return nil, Refuse(pb.Status_BadRequest, pb.Reason_RESET_TOKEN_INVALID, "reset_token has %d bytes, not %d", n, ResetTokenSize)
	}
	r := &AccountReset{Registration: registration, tokenHash: sha256.Sum256(req.GetResetToken())}
	account, _, err := r.allowed(view, nowMS)
	if err != nil {
		return nil, err
	}
	if account.RegistrationHash == r.hash { // done before
		return r, nil
	}
	r.before = account
	version, _, err := projections.KTNewest(view, kt.KindAccount, []byte(account.Username))
	if err != nil {
		return nil, err
	}
	r.prepareLabels(vrf, version+1)
	r.binding, err = marshalValue(&pb.AccountBinding{IdentityKey: r.identityKey[:], Authority: pb.Authority_ADMINISTRATOR})
	if err != nil {
		return nil, err
	}
	return r, r.prepareEnding(view, vrf)
}

// allowed finds the account that the token is good for, or that was registered by
// just this request before.
func (r *AccountReset) allowed(view projections.Reader, nowMS uint64) (account projections.Account, by pb.Actor_Way, err error) {
	account, found, err := projections.AccountByName(view, r.challenge.Username)
	if err != nil {
		return account, 0, err
	}
	if !found {
		return account, 0, errResetToken
	}
	if account.RegistrationHash == r.hash {
		return account, 0, nil
	}
	reset, found, err := projections.ResetOf(view, account.ID)
	switch {
	case err != nil:
		return account, 0, err
	case !found || subtle.ConstantTimeCompare(reset.TokenHash[:], r.tokenHash[:]) == 0:
		return account, 0, errResetToken
	case nowMS >= reset.ExpiresMS:
		return account, 0, errResetExpired
	}
	return account, reset.Way, nil
}

// prepareEnding prepares the revocations of the account's keys.
func (r *AccountReset) prepareEnding(view projections.Reader, vrf *kt.VRFPrivateKey) error {
	keys := append(slices.Clone(r.before.Devices), r.before.IdentityKey)
	slices.SortFunc(keys, func(a, b projections.Key) int { return bytes.Compare(a[:], b[:]) })
	for _, key := range slices.Compact(keys) {
		owner, _, err := projections.KeyOwner(view, key)
		if err != nil {
			return err
		}
		if owner.Revoked {
			continue
		}
		r.ending = append(r.ending, &KeyRevocation{
			key: key, reason: statement.ReasonSuperseded, prepared: PrepareKT(vrf, kt.KindRevocation, key[:], 0),
		})
	}
	return nil
}

// ResetRegistration decides a reset: the keys of before are revoked on the
// administrator's word, with their sessions and queues, and the name gets the new
// ones. The same again is Ok and changes nothing, though the token is used up.
// ErrStale: the account changed since the preparation. Refusals, all BadRequest:
// RESET_TOKEN_INVALID, KEY_IN_USE, KEY_REVOKED.
func ResetRegistration(tx *Tx, r *AccountReset) (*pb.OpaqueRegisterFinishResponse, error) {
	account, by, err := r.allowed(tx.View(), tx.Now())
	if err != nil {
		return nil, err
	}
	if account.RegistrationHash == r.hash {
		return registered(tx, account.IdentityKey)
	}
	if err := r.fresh(tx.View(), &account); err != nil {
		return nil, err
	}
	if err := r.checkKeys(tx.View()); err != nil {
		return nil, err
	}
	record, found, err := projections.OpaqueRecord(tx.View(), account.ID)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("commands: an account without an OPAQUE record")
	}
	for _, key := range r.ending {
		if _, err := key.emit(tx, pb.Authority_ADMINISTRATOR, &pb.Actor{Way: by}); err != nil {
			return nil, err
		}
	}
	err = tx.Emit(&pb.Event{Body: &pb.Event_AccountReset{AccountReset: &pb.AccountReset{
		AccountId:        account.ID[:],
		IdentityKey:      r.identityKey[:],
		Opaque:           r.challenge.record(r.upload, record.GetVersion()+1),
		DeviceKey:        r.deviceKey[:],
		RegistrationHash: r.hash[:],
		RevocationLabels: r.revocationLabels(),
	}}})
	if err != nil {
		return nil, err
	}
	return r.emitEntries(tx)
}

// fresh checks that the account is as the preparation found it. Keys that were
// revoked meanwhile need no second revocation: emit sees that.
func (r *AccountReset) fresh(view projections.Reader, account *projections.Account) error {
	version, _, err := projections.KTNewest(view, kt.KindAccount, []byte(account.Username))
	if err != nil {
		return err
	}
	if r.account == nil || r.account.Version != version+1 || account.IdentityKey != r.before.IdentityKey ||
		!slices.Equal(account.Devices, r.before.Devices) {
		return ErrStale
	}
	return nil
}

// NewReset makes the command of a reset: public, as the token says who may.
func NewReset(rule *pb.Rule, req *pb.OpaqueRegisterFinishRequest, r *AccountReset) (*Command, error) {
	c, err := NewCommand(rule, req, func(tx *Tx) (*pb.OpaqueRegisterFinishResponse, error) { return ResetRegistration(tx, r) })
	if err != nil {
		return nil, err
	}
	c.Auth, c.Token = pb.Auth_NONE, [32]byte{}
	return c, nil
}
