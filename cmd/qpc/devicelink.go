package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/client/seal"
)

type deviceLinkCommand struct {
	Name    string        `arg:"" help:"Username of the account."`
	NoWait  bool          `help:"Print the code and end; 'qpc login' goes on once the device was added."`
	Timeout time.Duration `default:"15m" placeholder:"DURATION" help:"How long to wait; the code stays good afterwards."`
	passwordFlags
}

func (deviceLinkCommand) Help() string {
	return `Makes the key of a new device in an empty home folder, proves with the password that it is yours, and shows a code. Give that code to 'qpc device add' on a device that holds the identity key. The code is no secret, but make sure that it is yours that is added: compare the keys that both show.

  qpc --home phone device link alice     here; it waits, and is logged in once it was added
  qpc device add CODE                    there

Status 75: not added in time, or interrupted. Nothing is lost: 'qpc device link' shows the same code again, and 'qpc login' goes on once it was added.`
}

// handOverTime is how long a device that was added waits for its keys: the other one
// sends them as soon as it was let in, which this one may see first.
const handOverTime = 15 * time.Second

// linkPoll is how often a waiting link looks whether it was added, secretsPoll how
// often it then looks for its keys.
const (
	linkPoll    = 2 * time.Second
	secretsPoll = 200 * time.Millisecond
)

// Run makes the device, shows its code, and waits until it was added.
func (cmd deviceLinkCommand) Run(ctx context.Context, a *app) error {
	h, err := openHome(a.Home)
	if err != nil {
		return err
	}
	name, err := statement.CanonicalUsername(cmd.Name)
	if err != nil {
		return usageError("%w", err)
	}
	if cmd.Timeout <= 0 {
		return usageError("--timeout %v: give at least 1s, or --no-wait", cmd.Timeout)
	}
	defer h.lock()()
	k, err := h.keysToLink(name)
	if err != nil {
		return err
	}
	password, err := cmd.read(a, "Password of "+name, false)
	if err != nil {
		return err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	k.ServerName = c.ServerName()
	if _, err := c.Login(ctx, name, password, k.device()); err != nil {
		return err
	}
	known, err := c.ListDevices(ctx)
	if err != nil {
		return err
	}
	if known.IdentityRevoked {
		return client.ErrKeyRevoked
	}
	k.IdentityKey = known.KeySet.GetIdentityKey()
	if err := h.save(keysFile, k); err != nil {
		return err
	}
	if err := cmd.show(a, k, c); err != nil || cmd.NoWait {
		return err
	}
	if err := cmd.await(ctx, a, k, c); err != nil {
		return err
	}
	return a.finishLogin(ctx, h, k, c, password, handOverTime)
}

// show prints the code of this device.
func (cmd deviceLinkCommand) show(a *app, k *keys, c *client.Client) error {
	own, err := k.sealPair()
	if err != nil {
		return err
	}
	consent := c.Consent(identityOf(k), k.device())
	code, err := seal.FormatCode(&pb.DeviceCode{
		ServerName: k.ServerName, Username: k.Username, IdentityKey: identityOf(k),
		DeviceKey: consent.GetDeviceKey(), Signature: consent.GetSignature(), HybridKey: own.Public(),
	})
	if err != nil {
		return err
	}
	if !a.JSON {
		fmt.Fprintf(a.stderr, "This device's key: %s\nOn a device of %s: qpc device add CODE\n", fingerprint(consent.GetDeviceKey()), k.Username)
	}
	return a.print(map[string]any{"code": code, "device_key": hex.EncodeToString(consent.GetDeviceKey())}, "%s", code)
}

// await waits for another device to let this one in.
func (cmd deviceLinkCommand) await(ctx context.Context, a *app, k *keys, c *client.Client) error {
	if !a.JSON {
		fmt.Fprintf(a.stderr, "Waiting up to %v to be added.\n", cmd.Timeout)
	}
	waiting, cancel := context.WithTimeout(ctx, cmd.Timeout)
	defer cancel()
	err := k.awaitAdded(waiting, c)
	if err == nil || waiting.Err() == nil {
		return err
	}
	why := "it was not added within " + cmd.Timeout.String()
	if ctx.Err() != nil {
		why = "interrupted before it was added"
	}
	return &exitError{exitPending, fmt.Errorf("this device is not linked yet: %s. Its code stays good: 'qpc login' goes on once it was added, and 'qpc device link %s' shows the code again", why, k.Username)}
}

// awaitAdded asks until this device is one of the account.
func (k *keys) awaitAdded(ctx context.Context, c *client.Client) error {
	device := k.device().Public().(ed25519.PublicKey)
	for {
		known, err := c.ListDevices(ctx)
		if err != nil {
			return err
		}
		if known.IdentityRevoked {
			return client.ErrKeyRevoked
		}
		for _, key := range known.Active() {
			if bytes.Equal(key, device) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(linkPoll):
		}
	}
}

// keysToLink are the keys of a device to link: new ones, or those of an earlier
// try.
func (h *home) keysToLink(name string) (*keys, error) {
	k := new(keys)
	err := h.load(keysFile, k)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &keys{Username: name, DeviceSeed: newSeed(), SealSeed: newSeed()}, nil
	case err != nil:
		return nil, err
	case k.Registered || k.holdsIdentity() || k.Username != name:
		return nil, fmt.Errorf("this home (%s) is the home of %s already: name another with --home", h.dir, k.Username)
	}
	return k, nil
}

// handOver seals this home's secrets for devices of the account and queues them. A
// device whose seal key is not known here is named: it gets them from another one.
func (a *app) handOver(ctx context.Context, c *client.Client, k *keys, devices [][]byte, withIdentity bool) error {
	own, err := k.sealPair()
	if err != nil {
		return err
	}
	me := k.device().Public().(ed25519.PublicKey)
	secrets := &pb.DeviceSecrets{SealKeys: []*pb.DeviceSealKey{{DeviceKey: me, HybridKey: own.Public()}}}
	for _, s := range k.HybridSeeds {
		secrets.HybridSeeds = append(secrets.HybridSeeds, s[:])
	}
	if withIdentity {
		secrets.IdentitySeed = k.IdentitySeed[:]
	}
	known := map[string][]byte{}
	for _, s := range k.SealKeys {
		secrets.SealKeys = append(secrets.SealKeys, &pb.DeviceSealKey{DeviceKey: s.DeviceKey, HybridKey: s.HybridKey})
		known[string(s.DeviceKey)] = s.HybridKey
	}
	from := seal.Sender{ServerName: c.ServerName(), Username: k.Username, IdentityKey: identityOf(k), Device: k.device()}
	for _, device := range devices {
		switch {
		case bytes.Equal(device, me):
			continue
		case known[string(device)] == nil:
			fmt.Fprintf(a.stderr, "qpc: device %s gets no keys from here: it was added by another device\n", fingerprint(device))
			continue
		}
		payload, err := seal.SealSecrets(from, &pb.DeviceSealKey{DeviceKey: device, HybridKey: known[string(device)]}, secrets, uint64(c.ServerTime().UnixMilli()))
		if err != nil {
			return err
		}
		_, err = c.Enqueue(ctx, &pb.EnqueueRequest{Recipient: &pb.EnqueueRequest_RecipientDevice{RecipientDevice: device}, Payload: payload})
		if err != nil {
			return fmt.Errorf("hand the keys to device %s: %w", fingerprint(device), err)
		}
	}
	return nil
}

// takeSecrets opens what another device of the account handed over, and keeps what
// is new of it. The device must be an active one, as the log proves.
func (h *home) takeSecrets(ctx context.Context, c *client.Client, k *keys, payload []byte) error {
	own, err := k.sealPair()
	if err != nil {
		return err
	}
	secrets, sender, err := seal.OpenSecrets(c.ServerName(), identityOf(k), k.device().Public().(ed25519.PublicKey), own, payload)
	if err != nil {
		return &rejection{err}
	}
	known, err := c.ListDevices(ctx)
	if err != nil {
		return err
	}
	active := false
	for _, key := range known.Active() {
		active = active || bytes.Equal(key, sender)
	}
	if !active || known.IdentityRevoked {
		return &rejection{seal.ErrForeignDevice}
	}
	k.merge(secrets)
	return h.save(keysFile, k)
}

// merge adds handed-over secrets, the newest hybrid key first.
func (k *keys) merge(secrets *pb.DeviceSecrets) {
	had := map[seed]bool{}
	for _, s := range k.HybridSeeds {
		had[s] = true
	}
	var fresh []seed
	for _, raw := range secrets.GetHybridSeeds() {
		if len(raw) == len(seed{}) && !had[seed(raw)] {
			fresh = append(fresh, seed(raw))
		}
	}
	k.HybridSeeds = append(fresh, k.HybridSeeds...)
	if raw := secrets.GetIdentitySeed(); len(raw) == len(seed{}) && bytes.Equal(seed(raw).ed25519().Public().(ed25519.PublicKey), identityOf(k)) {
		k.IdentitySeed = seed(raw)
	}
	for _, key := range secrets.GetSealKeys() {
		if !bytes.Equal(key.GetDeviceKey(), k.device().Public().(ed25519.PublicKey)) {
			k.rememberSealKey(key)
		}
	}
}

// awaitSecrets looks for what another device handed over until it found hybrid keys,
// or for as long as patience says; once without any.
func (h *home) awaitSecrets(ctx context.Context, c *client.Client, k *keys, patience time.Duration) error {
	end := time.Now().Add(patience)
	for {
		if err := h.findSecrets(ctx, c, k); err != nil || len(k.HybridSeeds) > 0 || !time.Now().Before(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(secretsPoll):
		}
	}
}

// findSecrets looks through the queue for what the device that added this one
// handed over. Nothing is confirmed: 'recv' reads the queue.
func (h *home) findSecrets(ctx context.Context, c *client.Client, k *keys) error {
	from := uint64(1)
	for {
		page, err := c.Peek(ctx, &pb.PeekRequest{FromSeq: from, IncludeDrained: true, MaxItems: pageItems})
		if err != nil {
			return err
		}
		for _, envelope := range page.GetEnvelopes() {
			from = envelope.GetSeq() + 1
			if !seal.IsSecrets(envelope.GetPayload()) {
				continue
			}
			err := h.takeSecrets(ctx, c, k, envelope.GetPayload())
			var rejected *rejection
			if err != nil && !errors.As(err, &rejected) {
				return err
			}
		}
		if !page.GetMore() {
			return nil
		}
	}
}
