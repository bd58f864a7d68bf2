package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// SignRevocation makes the statement that takes a key out of use, by the key
// itself or by the identity key that it belongs to. It carries no time: made in
// advance and kept apart, it serves on the day on which the device is lost.
func (c *Client) SignRevocation(signer ed25519.PrivateKey, key ed25519.PublicKey, reason statement.RevocationReason) *pb.RevokeKeyRequest {
	s := statement.Revoke{ServerName: c.cfg.ServerName, Key: key, Reason: reason}
	return &pb.RevokeKeyRequest{Key: key, Reason: uint32(reason), Signature: s.Sign(signer)}
}

// RevokeKey takes a key out of use for ever: a device's, with its sessions and
// its queue, or an identity's, with all sessions of the account. It is decided by
// the signature of SignRevocation, or, when the request has none, in the session
// of this client: an own key after a login within 5 minutes, or any key when the
// account is an administrator's. The same again is no error. A key that was never
// registered is refused with NO_SUCH_KEY. The proof in the reply is checked, unless
// the request asks for one by itself.
func (c *Client) RevokeKey(ctx context.Context, req *pb.RevokeKeyRequest) (*pb.RevokeKeyResponse, error) {
	resp := new(pb.RevokeKeyResponse)
	with := &pb.RevokeKeyRequest{
		Key: req.GetKey(), Reason: req.GetReason(), Signature: req.GetSignature(), Successor: req.GetSuccessor(), Proof: req.GetProof(),
	}
	if len(req.GetSignature()) == 0 || req.GetSuccessor() != nil {
		session, ok := c.Session()
		if !ok {
			return nil, errors.New("client: without a signature a key can only be revoked in a session: log in first")
		}
		with.SessionToken = session.Token
	}
	if req.GetProof() != nil || req.GetSuccessor() != nil { // the caller checks it
		return resp, c.Call(ctx, with, resp)
	}
	_, err := c.proveChange(kt.Query{RevokedKey: req.GetKey()}, func(p *pb.ProofRequest) (*pb.KeyProof, error) {
		with.Proof = p
		err := c.Call(ctx, with, resp)
		return resp.GetProof(), err
	}, showsRevocation)
	return resp, err
}

func showsRevocation(answer *kt.Answer) error {
	if answer.Revocation.Revocation == nil {
		return fmt.Errorf("%w: the proof in the reply does not show the revocation", ErrProtocol)
	}
	return nil
}

// CheckRevocation asks whether a key is revoked. The answer is the server's word,
// unless the request asks for a proof.
func (c *Client) CheckRevocation(ctx context.Context, req *pb.CheckRevocationRequest) (*pb.CheckRevocationResponse, error) {
	resp := new(pb.CheckRevocationResponse)
	return resp, c.Call(ctx, req, resp)
}

// Replacement hands an account from one identity key to another.
type Replacement struct {
	Old, New ed25519.PrivateKey
	// Devices are the active devices in the order in which they were added, without
	// Old.
	Devices []ed25519.PublicKey
	// HybridKey is an X-Wing public key (1,216 bytes) that was never used before, or
	// nil: UploadHybridKey can follow.
	HybridKey []byte
	// Reason of the old key's revocation.
	Reason statement.RevocationReason
}

// ReplaceIdentity hands the account of this client's session, whose login must be
// less than 5 minutes old, to a new identity key and revokes the old one. Devices,
// queues and sessions stay. It returns version 0 of the new identity's KeySet, the
// current one from now on. After a lost answer the same Replacement is not the
// same request, as the time in the KeySet is another: resolve the username first.
func (c *Client) ReplaceIdentity(ctx context.Context, r Replacement) (*pb.KeySet, error) {
	session, ok := c.Session()
	if !ok {
		return nil, errors.New("client: an identity is replaced in a session: log in first")
	}
	if len(r.Old) != ed25519.PrivateKeySize || len(r.New) != ed25519.PrivateKeySize {
		return nil, errors.New("client: both identity keys must be Ed25519 private keys")
	}
	next := &pb.KeySet{IdentityKey: public(r.New), TimeMs: uint64(c.clock.now())}
	for _, device := range r.Devices {
		next.DeviceKeys = append(next.DeviceKeys, bytes.Clone(device))
	}
	if len(r.HybridKey) > 0 {
		next.KemId, next.HybridKey = statement.KEMXWing, r.HybridKey
	}
	statement.SignKeySet(c.cfg.ServerName, next, r.New)
	if err := statement.VerifyKeySet(c.cfg.ServerName, next); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	s := statement.Successor{
		ServerName: c.cfg.ServerName, Username: session.Username, OldKey: public(r.Old), NewKey: next.IdentityKey,
		KeySetHash: statement.KeySetHash(c.cfg.ServerName, next),
	}
	req := c.SignRevocation(r.Old, public(r.Old), r.Reason)
	req.Successor = &pb.Successor{
		Username: session.Username, Keyset: next, OldSignature: s.Sign(r.Old), NewSignature: s.Sign(r.New),
	}
	_, err := c.ownChange(kt.Query{Username: session.Username}, next, func(p *pb.ProofRequest) (*pb.KeyProof, error) {
		asked := &pb.RevokeKeyRequest{
			SessionToken: session.Token, Key: req.Key, Reason: req.Reason, Signature: req.Signature, Successor: req.Successor, Proof: p,
		}
		resp := new(pb.RevokeKeyResponse)
		err := c.Call(ctx, asked, resp)
		return resp.GetProof(), err
	})
	if err != nil {
		return nil, err
	}
	replaced := session
	replaced.IdentityKey = public(r.New)
	c.swapSession(&replaced)
	return next, nil
}
