package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// bringKeysUpToDate makes the newest KeySet and this home agree about the hybrid key,
// and returns the KeySet's version. A home without one waits for it as long as
// patience says.
func (h *home) bringKeysUpToDate(ctx context.Context, a *app, c *client.Client, k *keys, patience time.Duration) (uint32, error) {
	if len(k.HybridSeeds) == 0 {
		if err := h.awaitSecrets(ctx, c, k, patience); err != nil {
			return 0, err
		}
		if len(k.HybridSeeds) == 0 {
			fmt.Fprintln(a.stderr, "The keys that open messages did not arrive yet: run 'qpc login' again when the other device has handed them over.")
		}
	}
	if !k.holdsIdentity() {
		known, err := c.ListDevices(ctx)
		if err != nil {
			return 0, err
		}
		return known.KeySet.GetVersion(), h.keepKeySet(k, known.KeySet)
	}
	return h.publishHybridKey(ctx, a, c, k)
}

// publishHybridKey makes the newest KeySet carry this home's newest hybrid key
// and returns its version. Nothing is sent when it does already. When a device left
// that has the present one, another one is published and handed to the others.
func (h *home) publishHybridKey(ctx context.Context, a *app, c *client.Client, k *keys) (uint32, error) {
	current, err := h.currentKeySet(ctx, c, k)
	if err != nil {
		return 0, err
	}
	known, err := c.ListDevices(ctx)
	if err != nil {
		return 0, err
	}
	if known.RotationDue {
		public, err := h.newHybridKey(k)
		if err != nil {
			return 0, err
		}
		next, err := c.RotateHybridKey(ctx, k.identity(), known, public)
		if err != nil {
			return 0, fmt.Errorf("publish another hybrid key: %w", err)
		}
		if err := h.keepKeySet(k, next); err != nil {
			return 0, err
		}
		return next.GetVersion(), a.handOver(ctx, c, k, next.GetDeviceKeys(), false)
	}
	pairs, err := k.hybrid()
	if err != nil {
		return 0, err
	}
	public := pairs[0].Public()
	for _, pair := range pairs { // another device may have published a newer one of ours
		if bytes.Equal(current.GetHybridKey(), pair.Public()) {
			return current.GetVersion(), h.keepKeySet(k, current)
		}
	}
	next, err := c.RotateHybridKey(ctx, k.identity(), known, public)
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
