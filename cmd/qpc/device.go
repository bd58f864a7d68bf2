package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/client/seal"
)

type deviceCommand struct {
	List   deviceListCommand   `cmd:"" help:"List the devices of this account."`
	Link   deviceLinkCommand   `cmd:"" help:"Make this home a new device of an existing account."`
	Add    deviceAddCommand    `cmd:"" help:"Let a new device in, by the code that it shows."`
	Revoke deviceRevokeCommand `cmd:"" help:"Take a device out of the account for ever."`
}

func (deviceCommand) Help() string {
	return `An account has up to ten devices, each with its own key, queue and sessions; a message reaches all of them. A second one joins in three steps:

  qpc --home phone device link alice     on the new device: shows a code, and waits
  qpc device add CODE                    on this one: lets it in and hands it the keys that open messages
  (the new device goes on by itself; after --no-wait: qpc --home phone login)

A lost device: 'qpc device revoke KEY', or 'qpc device add CODE --replaces KEY' where a new one takes its place and its queue.`
}

type deviceListCommand struct{}

// Run lists devices, as the log proves them.
func (deviceListCommand) Run(ctx context.Context, a *app) error {
	_, _, c, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	known, err := c.ListDevices(ctx)
	if err != nil {
		return err
	}
	for _, device := range known.Devices {
		state := "active since " + time.UnixMilli(int64(device.GetAddedMs())).Local().Format(time.DateOnly)
		if device.GetRevocation() != nil {
			state = "revoked"
		}
		if device.GetCurrent() {
			state += ", this device"
		}
		err := a.print(map[string]any{
			"device_key": hex.EncodeToString(device.GetDeviceKey()), "added_ms": device.GetAddedMs(), "active": device.GetActive(),
			"listed": device.GetListed(), "revoked": device.GetRevocation() != nil, "current": device.GetCurrent(),
		}, "%s  %s", hex.EncodeToString(device.GetDeviceKey()), state)
		if err != nil {
			return err
		}
	}
	if known.RotationDue && !a.JSON {
		fmt.Fprintln(a.stderr, "A device that left can still read what is sealed for you: run 'qpc login' on the device that holds the identity key.")
	}
	return nil
}

type deviceAddCommand struct {
	Code         string `arg:"" help:"The code that 'qpc device link' shows on the new device; '-' reads it from stdin."`
	Replaces     string `placeholder:"KEY" help:"The device whose place and queue it takes, which is revoked: its key, or the first digits of it."`
	WithIdentity bool   `help:"Hand the identity key over as well: the new device can then let in and revoke devices itself."`
	passwordFlags
}

func (deviceAddCommand) Help() string {
	return "Asks for the password, since a device is let in only right after a login. Compare the key that this shows with what the new device shows before you go on with it. The keys that open messages are sealed for the new device alone."
}

// Run registers the device of a code and hands it the secrets.
func (cmd deviceAddCommand) Run(ctx context.Context, a *app) error {
	code, err := cmd.code(a)
	if err != nil {
		return err
	}
	if err := a.checkIdentity(); err != nil {
		return err
	}
	h, k, c, done, err := a.freshSession(ctx, cmd.passwordFlags)
	if err != nil {
		return err
	}
	defer done()
	if err := k.checkCode(code, c.ServerName()); err != nil {
		return err
	}
	known, err := c.ListDevices(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(known.Active(), func(key []byte) bool { return bytes.Equal(key, code.GetDeviceKey()) }) {
		return cmd.again(ctx, a, k, c, known, code)
	}
	device := client.NewDevice{
		Identity: k.identity(), Known: known,
		Consent: &pb.DeviceConsent{DeviceKey: code.GetDeviceKey(), Signature: code.GetSignature()},
	}
	if cmd.Replaces != "" {
		if device.Replaces, err = findDevice(known, cmd.Replaces); err != nil {
			return err
		}
		device.Reason = statement.ReasonKeyCompromise
	}
	if cmd.Replaces != "" || known.RotationDue {
		if device.HybridKey, err = h.newHybridKey(k); err != nil {
			return err
		}
	}
	next, err := c.RegisterDevice(ctx, device)
	if err != nil {
		return err
	}
	k.forgetSealKey(device.Replaces)
	k.rememberSealKey(&pb.DeviceSealKey{DeviceKey: code.GetDeviceKey(), HybridKey: code.GetHybridKey()})
	if err := h.keepKeySet(k, next); err != nil {
		return err
	}
	to := [][]byte{code.GetDeviceKey()}
	if len(device.HybridKey) > 0 {
		to = next.GetDeviceKeys()
	}
	if err := a.handOver(ctx, c, k, to, cmd.WithIdentity); err != nil {
		return err
	}
	object := map[string]any{"device_key": hex.EncodeToString(code.GetDeviceKey()), "keyset_version": next.GetVersion()}
	return a.print(object, "Added device %s.%s", fingerprint(code.GetDeviceKey()), tellProof(c, object, fmt.Sprintf("KeySet version %d with it", next.GetVersion())))
}

func (cmd deviceAddCommand) code(a *app) (*pb.DeviceCode, error) {
	text := cmd.Code
	if text == "-" {
		content, err := io.ReadAll(io.LimitReader(a.stdin, 1<<16))
		if err != nil {
			return nil, err
		}
		text = string(content)
	}
	code, err := seal.ParseCode(text)
	if err != nil {
		return nil, usageError("%w: give the whole word that 'qpc device link' printed", err)
	}
	return code, nil
}

// checkCode refuses a code of another person or server.
func (k *keys) checkCode(code *pb.DeviceCode, serverName string) error {
	switch {
	case code.GetServerName() != serverName:
		return usageError("the code is for the server named %q, this is %q", code.GetServerName(), serverName)
	case code.GetUsername() != k.Username || !bytes.Equal(code.GetIdentityKey(), identityOf(k)):
		return usageError("the code is for the account %s with identity key %s", code.GetUsername(), fingerprint(code.GetIdentityKey()))
	}
	return nil
}

// again hands the secrets once more to a device that is in already: the first time
// may have ended before they were on their way. They are sealed with the key that
// was kept then; anybody could make a code that names a device of the account.
func (cmd deviceAddCommand) again(ctx context.Context, a *app, k *keys, c *client.Client, known *client.Devices, code *pb.DeviceCode) error {
	if cmd.Replaces != "" {
		return fmt.Errorf("device %s is one of the account already: it can't take another one's place. To take that one out: qpc device revoke %s", fingerprint(code.GetDeviceKey()), cmd.Replaces)
	}
	if err := a.handOver(ctx, c, k, [][]byte{code.GetDeviceKey()}, cmd.WithIdentity); err != nil {
		return err
	}
	return a.print(map[string]any{"device_key": hex.EncodeToString(code.GetDeviceKey()), "keyset_version": known.KeySet.GetVersion()},
		"Device %s is one of the account already. It gets the keys once more.", fingerprint(code.GetDeviceKey()))
}

// checkIdentity refuses a home that can't sign for the identity, before anything is
// asked of the person.
func (a *app) checkIdentity() error {
	h, err := openHome(a.Home)
	if err != nil {
		return err
	}
	k, err := h.keys()
	if err == nil && !k.holdsIdentity() {
		err = errNoIdentity
	}
	return err
}

var errNoIdentity = errors.New("this device does not hold the identity key: do it on the one that made the account, or that was added with --with-identity")

type deviceRevokeCommand struct {
	Device string `arg:"" optional:"" help:"Key of the device, or the first digits of it ('qpc device list')."`
	This   bool   `help:"This device: logs it out for ever."`
	passwordFlags
}

func (deviceRevokeCommand) Help() string {
	return "The device's sessions end, its queue is deleted with what waits in it, and its key never comes back. Where this home holds the identity key, the account goes on with another key for messages at once, which is handed to the other devices."
}

// Run revokes a device; where this home can, with the KeySet that no longer lists
// it.
func (cmd deviceRevokeCommand) Run(ctx context.Context, a *app) error {
	if cmd.This == (cmd.Device != "") {
		return usageError("name a device, or --this")
	}
	if cmd.This {
		return cmd.logOut(ctx, a)
	}
	h, k, c, done, err := a.freshSession(ctx, cmd.passwordFlags)
	if err != nil {
		return err
	}
	defer done()
	known, err := c.ListDevices(ctx)
	if err != nil {
		return err
	}
	lost := client.LostDevice{Known: known, Reason: statement.ReasonKeyCompromise}
	if lost.Device, err = findDevice(known, cmd.Device); err != nil {
		return err
	}
	if lost.Device.Equal(k.device().Public()) {
		return usageError("that is this device: 'qpc device revoke --this'")
	}
	if k.holdsIdentity() {
		lost.Identity = k.identity()
		if lost.HybridKey, err = h.newHybridKey(k); err != nil {
			return err
		}
	}
	next, err := c.RevokeDevice(ctx, lost)
	if err != nil {
		return err
	}
	k.forgetSealKey(lost.Device)
	if next != nil {
		if err := h.keepKeySet(k, next); err != nil {
			return err
		}
		if err := a.handOver(ctx, c, k, next.GetDeviceKeys(), false); err != nil {
			return err
		}
	} else if !a.JSON {
		fmt.Fprintln(a.stderr, "It can still read what others seal for you until a device that holds the identity key runs 'qpc login'.")
	}
	object := map[string]any{"device_key": hex.EncodeToString(lost.Device), "rotated": next != nil}
	what := "its revocation"
	if next != nil {
		what = fmt.Sprintf("KeySet version %d without it", next.GetVersion())
	}
	return a.print(object, "Revoked device %s.%s", fingerprint(lost.Device), tellProof(c, object, what))
}

// logOut revokes this device on the session's word: its KeySet is another device's
// to make.
func (deviceRevokeCommand) logOut(ctx context.Context, a *app) error {
	h, k, c, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	defer h.lock()()
	device := k.device().Public().(ed25519.PublicKey)
	if _, err := c.RevokeDevice(ctx, client.LostDevice{Device: device, Reason: statement.ReasonCessation}); err != nil {
		return err
	}
	if err := os.Remove(h.path(sessionFile)); err != nil {
		return err
	}
	return a.print(map[string]any{"device_key": hex.EncodeToString(device)}, "This device is logged out for ever.")
}

// findDevice finds a listed device by the first digits of its key.
func findDevice(known *client.Devices, text string) (ed25519.PublicKey, error) {
	text = strings.ToLower(strings.ReplaceAll(text, " ", ""))
	var found []ed25519.PublicKey
	for _, device := range known.Devices {
		if strings.HasPrefix(hex.EncodeToString(device.GetDeviceKey()), text) {
			found = append(found, device.GetDeviceKey())
		}
	}
	if len(found) != 1 {
		return nil, usageError("%d devices of the account begin with %q ('qpc device list' shows them)", len(found), text)
	}
	return found[0], nil
}

// freshSession logs in again: changes of devices want a login of the last minutes.
// The home is locked and the connection open until done is called.
func (a *app) freshSession(ctx context.Context, password passwordFlags) (h *home, k *keys, c *client.Client, done func(), err error) {
	if h, err = openHome(a.Home); err != nil {
		return nil, nil, nil, nil, err
	}
	unlock := h.lock()
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	if k, err = h.keys(); err != nil {
		return nil, nil, nil, nil, err
	}
	secret, err := password.read(a, "Password of "+k.Username, false)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	if c, err = a.connect(ctx); err != nil {
		return nil, nil, nil, nil, err
	}
	opened, err := c.Login(ctx, k.Username, secret, k.device())
	if err == nil {
		err = h.loggedIn(k, opened)
	}
	if err != nil {
		_ = c.Close()
		return nil, nil, nil, nil, err
	}
	return h, k, c, func() { _ = c.Close(); unlock() }, nil
}

// newHybridKey makes and keeps another hybrid key before the server hears of it.
func (h *home) newHybridKey(k *keys) ([]byte, error) {
	k.HybridSeeds = append([]seed{newSeed()}, k.HybridSeeds...)
	if err := h.save(keysFile, k); err != nil {
		return nil, err
	}
	pairs, err := k.hybrid()
	if err != nil {
		return nil, err
	}
	return pairs[0].Public(), nil
}

func (k *keys) rememberSealKey(key *pb.DeviceSealKey) {
	k.forgetSealKey(key.GetDeviceKey())
	k.SealKeys = append(k.SealKeys, sealKey{key.GetDeviceKey(), key.GetHybridKey()})
}

func (k *keys) forgetSealKey(device []byte) {
	k.SealKeys = slices.DeleteFunc(k.SealKeys, func(s sealKey) bool { return bytes.Equal(s.DeviceKey, device) })
}
