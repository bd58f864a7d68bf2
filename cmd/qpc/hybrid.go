package main

import (
	"bytes"
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// publishHybridKey makes the newest KeySet carry this home's newest hybrid key
// and returns its version. Nothing is sent when it does already.
func (h *home) publishHybridKey(ctx context.Context, c *client.Client, k *keys) (uint32, error) {
	pairs, err := k.hybrid()
	if err != nil {
		return 0, err
	}
	current, err := h.currentKeySet(ctx, c, k)
	if err != nil {
		return 0, err
	}
	public := pairs[0].Public()
	if bytes.Equal(current.GetHybridKey(), public) {
		return current.GetVersion(), h.keepKeySet(k, current)
	}
	next, err := c.UploadHybridKey(ctx, k.identity(), current, public)
	if err != nil {
		return 0, fmt.Errorf("publish the hybrid key: %w", err)
	}
	return next.GetVersion(), h.keepKeySet(k, next)
}

// currentKeySet is what the server tells, checked against what the home kept: an
// older one than that is a lie. Where the server has no hybrid key of ours the
// kept KeySet is the newest.
func (h *home) currentKeySet(ctx context.Context, c *client.Client, k *keys) (*pb.KeySet, error) {
	kept := new(pb.KeySet)
	if err := proto.Unmarshal(k.KeySet, kept); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", h.path(keysFile), err)
	}
	reply, err := c.FetchHybridKey(ctx, &pb.FetchHybridKeyRequest{IdentityKey: identityOf(k)})
	switch {
	case isReason(err, pb.Reason_NO_SUCH_KEY) && len(k.KeySet) > 0:
		return kept, nil
	case err != nil:
		return nil, err
	case len(k.KeySet) > 0 && reply.GetKeyset().GetVersion() < kept.GetVersion():
		return nil, fmt.Errorf("the server tells KeySet version %d of %s, but took version %d before: it lies, or was set back; ask its operator",
			reply.GetKeyset().GetVersion(), k.Username, kept.GetVersion())
	}
	return reply.GetKeyset(), statement.VerifyKeySet(c.ServerName(), reply.GetKeyset())
}

func (h *home) keepKeySet(k *keys, keyset *pb.KeySet) (err error) {
	if k.KeySet, err = proto.Marshal(keyset); err != nil {
		return err
	}
	return h.save(keysFile, k)
}
