package client

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/pake"
)

// RegisterParams is what a new account is made of.
type RegisterParams struct {
	Username string
	Password []byte
	// IdentityKey is the account's key; DeviceKey that of its first device,
	// another one. Both stay with the caller.
	IdentityKey, DeviceKey ed25519.PrivateKey
	// HybridKey is an X-Wing public key (1,216 bytes) for KeySet version 0, or
	// nil: UploadHybridKey can follow.
	HybridKey []byte
	// ResetToken registers a taken name anew, as an administrator allowed; nil for a
	// new name. The keys of before are revoked by it.
	ResetToken []byte
}

// Registration is what the caller keeps of a new account, besides its keys.
type Registration struct {
	// Username in canonical form.
	Username string
	// KeySet is version 0: the current one for UploadHybridKey.
	KeySet *pb.KeySet
	// ExportKey comes from the password, 64 bytes; a secret.
	ExportKey []byte
	// Proved tells that the reply proved the new account to be in the log. A
	// server that could not sign in time leaves it to the next look-up.
	Proved bool
}

// Register creates an account with its first device. A lost answer is asked for
// again with the same content, which the server takes as the same registration.
func (c *Client) Register(ctx context.Context, p RegisterParams) (*Registration, error) {
	username, err := statement.CanonicalUsername(p.Username)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if len(p.IdentityKey) != ed25519.PrivateKeySize || len(p.DeviceKey) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("client: identity key and device key must be Ed25519 private keys")
	}
	up, err := c.newUpload(ctx, username, p.Password)
	if err != nil {
		return nil, err
	}
	identity, device := public(p.IdentityKey), public(p.DeviceKey)
	consent := statement.Device{ServerName: c.cfg.ServerName, IdentityKey: identity, DeviceKey: device}
	keyset := &pb.KeySet{
		IdentityKey: identity,
		DeviceKeys:  [][]byte{device},
		TimeMs:      uint64(c.clock.now()),
	}
	if len(p.HybridKey) > 0 {
		keyset.KemId, keyset.HybridKey = statement.KEMXWing, p.HybridKey
	}
	statement.SignKeySet(c.cfg.ServerName, keyset, p.IdentityKey)
	if err := statement.VerifyKeySet(c.cfg.ServerName, keyset); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	req := &pb.OpaqueRegisterFinishRequest{
		Username:    username,
		Upload:      up.record,
		IdentityKey: identity,
		Challenge:   up.challenge,
		Signature:   c.registerStatement(username, up, identity).Sign(p.IdentityKey),
		Device:      &pb.DeviceConsent{DeviceKey: device, Signature: consent.Sign(p.DeviceKey)},
		Keyset:      keyset,
		ResetToken:  p.ResetToken,
	}
	r := &Registration{Username: username, KeySet: keyset, ExportKey: up.exportKey}
	r.Proved, err = c.ownChange(kt.Query{Username: username}, keyset, func(p *pb.ProofRequest) (*pb.KeyProof, error) {
		req.Proof = p
		resp := new(pb.OpaqueRegisterFinishResponse)
		err := c.Call(ctx, req, resp)
		return resp.GetProof(), err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// upload is the client's half of a registration or password change.
type upload struct {
	record, challenge, exportKey []byte
}

// newUpload runs OPAQUE registration up to the record: method 100 and the KSF.
func (c *Client) newUpload(ctx context.Context, username string, password []byte) (*upload, error) {
	registration, request, err := pake.StartRegistration(password, c.cfg.KSF)
	if err != nil {
		return nil, err
	}
	resp := new(pb.OpaqueRegisterStartResponse)
	req := &pb.OpaqueRegisterStartRequest{Username: username, RegistrationRequest: request}
	if err := c.Call(ctx, req, resp); err != nil {
		return nil, err
	}
	if resp.Username != username {
		return nil, fmt.Errorf("%w: the server's form of the username is %q, it should be %q", ErrProtocol, resp.Username, username)
	}
	record, exportKey, err := registration.Finish(resp.RegistrationResponse)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return &upload{record: record, challenge: resp.Challenge, exportKey: exportKey}, nil
}

func (c *Client) registerStatement(username string, up *upload, identity []byte) statement.Register {
	return statement.Register{
		ServerName:  c.cfg.ServerName,
		Username:    username,
		UploadHash:  sha256.Sum256(up.record),
		IdentityKey: identity,
		Challenge:   up.challenge,
	}
}

// PasswordChange is a change of the password by somebody who knows the old one.
type PasswordChange struct {
	Username string
	Old, New []byte
	// DeviceKey is an active device of the account.
	DeviceKey ed25519.PrivateKey
	// DropBundle gives up a stored recovery bundle, which the old password sealed.
	DropBundle bool
}

// ChangePassword logs in with the old password, which the server wants to be
// recent, and puts the new one in its place. It returns the session of that
// login, with the export key of the new password; all other sessions of the
// account have ended.
func (c *Client) ChangePassword(ctx context.Context, p PasswordChange) (*Session, error) {
	session, err := c.Login(ctx, p.Username, p.Old, p.DeviceKey)
	if err != nil {
		return nil, err
	}
	if session.Scope != pb.SessionScope_DEVICE {
		return nil, fmt.Errorf("client: the password can only be changed by a device of the account")
	}
	up, err := c.newUpload(ctx, session.Username, p.New)
	if err != nil {
		return nil, err
	}
	req := &pb.OpaqueRegisterFinishRequest{
		SessionToken: session.Token,
		Username:     session.Username,
		Upload:       up.record,
		IdentityKey:  session.IdentityKey,
		Challenge:    up.challenge,
		Signature:    c.registerStatement(session.Username, up, session.IdentityKey).Sign(p.DeviceKey),
		DropBundle:   p.DropBundle,
	}
	if err := c.Call(ctx, req, new(pb.OpaqueRegisterFinishResponse)); err != nil {
		return nil, err
	}
	changed := *session
	changed.ExportKey = up.exportKey
	c.swapSession(&changed)
	return &changed, nil
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }
