package commands

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// KeyRevocation is a revocation with its signature verified and its VRF proof
// made. Only the Prepare functions make one.
type KeyRevocation struct {
	key       [KeySize]byte
	reason    statement.RevocationReason
	signature []byte         // nil: on the word of a session or of the machine
	signer    [KeySize]byte  // whose signature it is
	way       pb.Actor_Way   // how an administrator of the machine comes, or 0
	prepared  *PreparedKT    // where the revocation goes
	successor *keySuccession // nil: only the key ends
	untold    bool           // whoever decides it tells the other devices
}

// PrepareRevocation verifies a RevokeKeyRequest as far as that needs no more than
// view, the published state: the key is or was somebody's here, a signature is
// its own or that of its identity key, a successor's statements are by both keys.
// Refusals: NotFound NO_SUCH_KEY; Unauthorized TOKEN_MISSING without signature
// and session; BadRequest MISSING_FIELD, INVALID_FIELD, KEY_INVALID,
// SIGNATURE_INVALID, KEYSET_INVALID, KEYSET_VERSION.
func PrepareRevocation(view projections.Reader, serverName string, vrf *kt.VRFPrivateKey, req *pb.RevokeKeyRequest) (*KeyRevocation, error) {
	r, account, err := findRevoked(view, vrf, req.GetKey(), req.GetReason())
	if err != nil {
		return nil, err
	}
	switch {
	case len(req.GetSignature()) > 0:
		if err := r.verify(serverName, account.IdentityKey, req.GetSignature()); err != nil {
			return nil, err
		}
	case len(req.GetSessionToken()) == 0:
		return nil, errTokenMissing
	}
	if req.GetSuccessor() == nil {
		return r, nil
	}
	r.successor, err = prepareSuccession(view, serverName, vrf, r.key, account, req.GetSuccessor())
	return r, err
}

// PrepareMachineRevocation checks a revocation by whoever runs the server.
// Refusals: those of PrepareRevocation.
func PrepareMachineRevocation(view projections.Reader, vrf *kt.VRFPrivateKey, req *pb.RevokeAnyKeyRequest, by pb.Actor_Way) (*KeyRevocation, error) {
	r, _, err := findRevoked(view, vrf, req.GetKey(), req.GetReason())
	if err != nil {
		return nil, err
	}
	r.way = by
	return r, nil
}

// findRevoked finds whose the key is, before anything costs much.
func findRevoked(view projections.Reader, vrf *kt.VRFPrivateKey, rawKey []byte, reason uint32) (*KeyRevocation, projections.Account, error) {
	var account projections.Account
	key, err := keyOf("key", rawKey)
	if err != nil {
		return nil, account, err
	}
	r := &KeyRevocation{key: key, reason: statement.RevocationReason(reason)}
	switch r.reason {
	case statement.ReasonUnspecified, statement.ReasonKeyCompromise, statement.ReasonSuperseded, statement.ReasonCessation:
	default:
		return nil, account, invalid("reason %d: use 0, 1, 4 or 5 (RFC 5280, section 5.3.1)", reason)
	}
	owner, found, err := projections.KeyOwner(view, key)
	if err != nil {
		return nil, account, err
	}
	if !found {
		return nil, account, errNoSuchKey
	}
	if account, found, err = projections.AccountByID(view, owner.AccountID); err != nil {
		return nil, account, err
	}
	if !found {
		return nil, account, fmt.Errorf("commands: a key of no account")
	}
	r.prepared = PrepareKT(vrf, kt.KindRevocation, key[:], 0)
	return r, account, nil
}

// verify finds out who signed: the key itself, or its identity key.
func (r *KeyRevocation) verify(serverName string, identity projections.Key, signature []byte) error {
	s := statement.Revoke{ServerName: serverName, Key: r.key[:], Reason: r.reason}
	r.signature = bytes.Clone(signature)
	r.signer = r.key
	err := s.Verify(r.key[:], signature)
	if err == nil || identity == r.key {
		return refuseSignature(err)
	}
	r.signer = identity
	return refuseSignature(s.Verify(identity[:], signature))
}

func refuseSignature(err error) error {
	if err == nil {
		return nil
	}
	return refuseStatement("signature", err)
}

var (
	errNoSuchKey = Refuse(pb.Status_NotFound, pb.Reason_NO_SUCH_KEY, "this key was never registered here")
	errNotYours  = Refuse(pb.Status_Forbidden, pb.Reason_WRONG_ACCOUNT, "the key is not this account's")
)

// RevokeKey decides a revocation, or a hand-over to a successor. It can't be
// taken back; the same again is Ok with what stands. What the key was good for
// ends with the event (projections). ErrStale: the account's keys changed since
// the preparation. Refusals: NotFound NO_SUCH_KEY; Unauthorized TOKEN_MISSING;
// Forbidden SCOPE, REAUTH, WRONG_ACCOUNT; those of a succession.
func RevokeKey(tx *Tx, r *KeyRevocation) (*pb.RevokeKeyResponse, error) {
	owner, found, err := projections.KeyOwner(tx.View(), r.key)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, errNoSuchKey
	}
	if r.successor != nil {
		return r.succeed(tx, owner)
	}
	authority, actor, err := r.authority(tx, owner)
	if err != nil {
		return nil, err
	}
	revocation, err := r.emit(tx, authority, actor)
	if err != nil {
		return nil, err
	}
	return &pb.RevokeKeyResponse{Revocation: revocation, ServerTimeMs: tx.Now()}, nil
}

// authority tells on whose word the key ends, and which administrator asked if
// one did.
func (r *KeyRevocation) authority(tx *Tx, owner projections.Owner) (pb.Authority, *pb.Actor, error) {
	caller := tx.Caller()
	switch {
	case r.way != pb.Actor_UNSPECIFIED:
		return pb.Authority_ADMINISTRATOR, &pb.Actor{Way: r.way}, nil
	case r.signature != nil && r.signer == r.key:
		return pb.Authority_KEY, nil, nil
	case r.signature != nil:
		account, found, err := projections.AccountByID(tx.View(), owner.AccountID)
		if err == nil && (!found || account.IdentityKey != r.signer) {
			err = ErrStale // the identity that signed was replaced meanwhile
		}
		return pb.Authority_IDENTITY, nil, err
	case !caller.Known():
		return 0, nil, errTokenMissing
	case !caller.IsDevice():
		return 0, nil, errScope
	case owner.AccountID == caller.Account:
		return pb.Authority_SESSION_LOGIN, nil, caller.RequireFresh(tx.Now())
	}
	switch role, err := projections.RoleOf(tx.View(), caller.Account); {
	case err != nil:
		return 0, nil, err
	case role != pb.Role_ADMIN:
		return 0, nil, errNotYours
	}
	actor := &pb.Actor{Way: pb.Actor_SESSION, AccountId: bytes.Clone(caller.Account[:])}
	return pb.Authority_ADMINISTRATOR, actor, caller.RequireFresh(tx.Now())
}

// emit revokes the key unless it is revoked already, and returns the revocation
// that stands. The other devices of the account are told when the key is a
// device's.
func (r *KeyRevocation) emit(tx *Tx, authority pb.Authority, actor *pb.Actor) (*pb.Revocation, error) {
	existing, found, err := projections.Revocation(tx.View(), r.key)
	if err != nil || found {
		return existing, err
	}
	revocation := &pb.Revocation{Reason: uint32(r.reason), TimeMs: tx.Now(), Authority: authority}
	if authority == pb.Authority_KEY || authority == pb.Authority_IDENTITY {
		revocation.Signature = r.signature
	}
	value, err := marshalValue(revocation)
	if err != nil {
		return nil, err
	}
	if actor != nil {
		err := tx.Emit(&pb.Event{Body: &pb.Event_KeyRevoked{KeyRevoked: &pb.KeyRevoked{Key: r.key[:], Actor: actor}}})
		if err != nil {
			return nil, err
		}
	}
	if !r.untold {
		if err := tellRemoved(tx, r.key, revocation); err != nil {
			return nil, err
		}
	}
	return revocation, tx.EmitKT(r.prepared, value)
}

// marshalValue encodes the value of a key-transparency entry.
func marshalValue(m proto.Message) ([]byte, error) {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("commands: encoding a %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return encoded, nil
}

// NewRevokeKey makes the command of a RevokeKey from what PrepareRevocation made
// of the same request.
func NewRevokeKey(rule *pb.Rule, req *pb.RevokeKeyRequest, r *KeyRevocation) (*Command, error) {
	c, err := NewCommand(rule, req, func(tx *Tx) (*pb.RevokeKeyResponse, error) { return RevokeKey(tx, r) })
	if err == nil {
		c.Entries = MaxDevices
	}
	return c, err
}

// NewRevokeAnyKey makes the command of a RevokeAnyKey from what
// PrepareMachineRevocation made of the same request.
func NewRevokeAnyKey(rule *pb.Rule, req *pb.RevokeAnyKeyRequest, r *KeyRevocation) (*Command, error) {
	c, err := NewCommand(rule, req, func(tx *Tx) (*pb.RevokeAnyKeyResponse, error) {
		resp, err := RevokeKey(tx, r)
		if err != nil {
			return nil, err
		}
		return &pb.RevokeAnyKeyResponse{Revocation: resp.GetRevocation(), ServerTimeMs: resp.GetServerTimeMs()}, nil
	})
	if err == nil {
		c.Entries = MaxDevices
	}
	return c, err
}

// CheckRevocation answers whether a key is revoked, from the published view. A
// key that nobody registered here is Ok and not known. Refusals: BadRequest
// MISSING_FIELD, KEY_INVALID; those of Proofs.
func CheckRevocation(v *View, req *pb.CheckRevocationRequest) (*pb.CheckRevocationResponse, error) {
	key, err := keyOf("key", req.GetKey())
	if err != nil {
		return nil, err
	}
	_, known, err := projections.KeyOwner(v.Reader, key)
	if err != nil {
		return nil, err
	}
	revocation, revoked, err := projections.Revocation(v.Reader, key)
	if err != nil {
		return nil, err
	}
	resp := &pb.CheckRevocationResponse{Known: known || revoked, Revocation: revocation, ServerTimeMs: v.Now}
	if v.Proofs == nil {
		return resp, nil
	}
	if err := v.Proofs.Revocation(key[:]); err != nil {
		return nil, err
	}
	resp.Proof, err = v.Proofs.Proof()
	return resp, err
}

// refuseRevoked refuses what would be signed by, or sent to, a revoked key.
func refuseRevoked(view projections.Reader, key projections.Key, status pb.Status, what string) error {
	owner, found, err := projections.KeyOwner(view, key)
	if err != nil || !found || !owner.Revoked {
		return err
	}
	return Refuse(status, pb.Reason_KEY_REVOKED, "%s was revoked", what)
}
