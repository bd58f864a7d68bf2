package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// errKeyChanged: the server tells another identity key than the remembered one.
var errKeyChanged = errors.New("identity key changed")

// person is somebody whose key was resolved, compared with the remembered one,
// and whose KeySet verified.
type person struct {
	name   string
	keyset *pb.KeySet
	// devices are the keys of the KeySet that are not revoked.
	devices [][]byte
	// rotationDue: a device that left can read what is sealed for the KeySet.
	rotationDue bool
	// isNew: this home meets the person for the first time.
	isNew bool
}

// meet resolves a name, compares the key with what the home remembers, and
// fetches the person's KeySet. A new key is remembered, a changed one is
// errKeyChanged.
func (h *home) meet(ctx context.Context, c *client.Client, name string) (*person, error) {
	name, err := statement.CanonicalUsername(name)
	if err != nil {
		return nil, usageError("%w", err)
	}
	resolved, err := c.ResolveUser(ctx, name)
	if err != nil {
		return nil, err
	}
	p := &person{name: name}
	if p.isNew, err = h.remember(name, resolved.GetIdentityKey(), uint64(c.ServerTime().UnixMilli())); err != nil {
		return nil, err
	}
	recipient, err := c.FetchRecipient(ctx, resolved.GetIdentityKey())
	if isReason(err, pb.Reason_NO_SUCH_KEY) {
		return nil, fmt.Errorf("%s has published no hybrid key yet, so nothing can be sealed for them: %w", name, err)
	}
	if err != nil {
		return nil, err
	}
	p.keyset, p.devices, p.rotationDue = recipient.KeySet, recipient.Devices, recipient.RotationDue
	if !bytes.Equal(p.keyset.GetIdentityKey(), resolved.GetIdentityKey()) {
		return nil, fmt.Errorf("the server gave the KeySet of another identity for %s", name)
	}
	if err := statement.VerifyKeySet(c.ServerName(), p.keyset); err != nil {
		return nil, fmt.Errorf("the KeySet of %s does not verify: %w", name, err)
	}
	return p, nil
}

// remember notes the key of a name; it reports whether the name is new.
func (h *home) remember(name string, key []byte, nowMS uint64) (isNew bool, err error) {
	defer h.lockContacts()()
	all, err := h.contacts()
	if err != nil {
		return false, err
	}
	known, met := all[name]
	if met && bytes.Equal(known.IdentityKey, key) {
		return false, nil
	}
	if met {
		return false, fmt.Errorf("%w: %s was %s, the server now tells %s. Compare with that person over another channel; if it is right: qpc trust %s %s",
			errKeyChanged, name, fingerprint(known.IdentityKey), fingerprint(key), name, hex.EncodeToString(key))
	}
	all[name] = contact{IdentityKey: key, FirstSeenMS: nowMS}
	return true, h.save(contactsFile, all)
}

type trustCommand struct {
	Name string `arg:"" help:"Username of the contact."`
	Key  string `arg:"" help:"The identity key, 64 hexadecimal digits, as that person reads it out to you."`
}

func (trustCommand) Help() string {
	return "A contact's identity key does not change by itself. When qpc reports a changed key, ask that person over another channel for the digits that 'qpc whoami' shows them, and give them here. Messages that were held back are then shown by 'qpc recv'."
}

// Run replaces the remembered key; it asks no server.
func (cmd trustCommand) Run(a *app) error {
	h, err := openHome(a.Home)
	if err != nil {
		return err
	}
	name, err := statement.CanonicalUsername(cmd.Name)
	if err != nil {
		return usageError("%w", err)
	}
	key, err := decodeHex(cmd.Key, ed25519.PublicKeySize)
	if err != nil {
		return usageError("the key: %w", err)
	}
	defer h.lockContacts()()
	all, err := h.contacts()
	if err != nil {
		return err
	}
	all[name] = contact{IdentityKey: key, FirstSeenMS: all[name].FirstSeenMS}
	if err := h.save(contactsFile, all); err != nil {
		return err
	}
	return a.print(map[string]any{"username": name, "identity_key": hex.EncodeToString(key)},
		"Remembered for %s: %s", name, fingerprint(key))
}

// isGone tells that somebody has no key that anything could be sealed for, and that
// trying again does not help: nobody has the name or the key, or the key is revoked.
func isGone(err error) bool {
	return isReason(err, pb.Reason_NO_SUCH_USER) || isReason(err, pb.Reason_NO_SUCH_KEY) ||
		isReason(err, pb.Reason_KEY_REVOKED) || errors.Is(err, client.ErrKeyRevoked)
}
