package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// ErrKeySet: a KeySet that the server handed out is not signed by the identity
// it was asked for, or breaks the rules of KeySets. It must not be used.
var ErrKeySet = errors.New("the server handed out an invalid KeySet")

// checkKeySet holds a reply against the identity it is about; an absent KeySet
// is fine.
func (c *Client) checkKeySet(identity []byte, ks *pb.KeySet) error {
	if ks == nil {
		return nil
	}
	if !bytes.Equal(ks.IdentityKey, identity) {
		return fmt.Errorf("%w: it is of another identity", ErrKeySet)
	}
	if err := statement.VerifyKeySet(c.cfg.ServerName, ks); err != nil {
		return fmt.Errorf("%w: %w", ErrKeySet, err)
	}
	return nil
}

func (c *Client) checkKeySets(identities [][]byte, entries []*pb.FetchHybridKeysResponse_Entry) error {
	if len(entries) != len(identities) {
		return fmt.Errorf("%w: FetchHybridKeys: %d entries for %d keys", ErrProtocol, len(entries), len(identities))
	}
	for i, entry := range entries {
		if err := c.checkKeySet(identities[i], entry.GetKeyset()); err != nil {
			return err
		}
	}
	return nil
}

// UploadHybridKey publishes an X-Wing public key (1,216 bytes) in the KeySet that
// follows current: same devices, next version, signed by the identity key. It
// returns the new KeySet, which the caller keeps as the next current one. A
// refusal KEYSET_VERSION says that current is not the newest.
func (c *Client) UploadHybridKey(ctx context.Context, identity ed25519.PrivateKey, current *pb.KeySet, hybridKey []byte) (*pb.KeySet, error) {
	next, err := c.nextKeySet(identity, current, current.GetDeviceKeys(), hybridKey)
	if err != nil {
		return nil, err
	}
	return c.publishKeySet(ctx, next)
}

// publishKeySet sends a KeySet that changes nothing but the hybrid key.
func (c *Client) publishKeySet(ctx context.Context, next *pb.KeySet) (*pb.KeySet, error) {
	_, err := c.ownChange(kt.Query{IdentityKey: next.GetIdentityKey()}, next, func(p *pb.ProofRequest) (*pb.KeyProof, error) {
		resp := new(pb.UploadHybridKeyResponse)
		err := c.Call(ctx, &pb.UploadHybridKeyRequest{Keyset: next, Proof: p}, resp)
		return resp.GetProof(), err
	})
	if err != nil {
		return nil, err
	}
	return next, nil
}

// ownChange makes a change of the caller's own keys and checks the proof in the
// reply, if there is one: the log must show the KeySet that was sent, or one that
// follows it. A change that is made stays made when its proof comes too late.
func (c *Client) ownChange(query kt.Query, sent *pb.KeySet, change func(*pb.ProofRequest) (*pb.KeyProof, error)) (proved bool, err error) {
	return c.proveChange(query, change, func(answer *kt.Answer) error {
		identity := answer.Identity
		if answer.Person != nil {
			identity = answer.Person.Identity
		}
		switch {
		case identity == nil || identity.KeySet == nil || identity.KeySet.Version < sent.Version:
			return fmt.Errorf("%w: the proof in the reply does not show the new KeySet", ErrProtocol)
		case identity.KeySet.Version == sent.Version && !proto.Equal(identity.KeySet, sent):
			return fmt.Errorf("%w: the proof in the reply shows another KeySet than the one sent", ErrProtocol)
		}
		return nil
	})
}

// proveChange makes a change and holds what the reply proves against it.
func (c *Client) proveChange(query kt.Query, change func(*pb.ProofRequest) (*pb.KeyProof, error), shows func(*kt.Answer) error) (proved bool, err error) {
	c.changed.Store(nil)
	if c.cfg.Transparency.Off {
		_, err := change(nil)
		return false, err
	}
	asked, err := c.trust.ask(query)
	if err != nil {
		return false, err
	}
	request, err := asked.Request()
	if err != nil {
		return false, err
	}
	p, err := change(request)
	if err != nil || p == nil {
		return false, err
	}
	answer, err := c.trust.verify(asked, p)
	switch {
	case errors.Is(err, kt.ErrOlder), errors.Is(err, kt.ErrIncomplete):
		return false, nil // the next look-up tells
	case err != nil:
		return false, err
	}
	if err := shows(answer); err != nil {
		return false, err
	}
	c.changed.Store(answer.Head)
	return true, nil
}

// ProvedChange is the head under which the reply to this Client's last change of keys
// (Register, UploadHybridKey, RegisterDevice, RevokeDevice, RevokeKey and the like)
// proved it to be in the log; nil if it did not, which the next look-up makes up for.
func (c *Client) ProvedChange() *kt.VerifiedHead { return c.changed.Load() }
