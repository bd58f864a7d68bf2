package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

type registerCommand struct {
	Name string `arg:"" help:"2 to 32 of a-z 0-9 . _ -, the first one a letter or digit."`
	passwordFlags
	resetFlags
}

func (registerCommand) Help() string {
	return "Makes the keys of an account and its first device in the home folder, and registers them. The password protects the login; it never leaves this machine. Nobody can reset it for you without making a new identity: who lost everything asks the server's administrator for a reset token, and registers the same name with it in a new home. The keys of before are revoked then, and contacts are told that the key changed."
}

// resetFlags say where the token of a reset comes from.
type resetFlags struct {
	ResetTokenFile string `placeholder:"FILE" help:"Register a taken name anew, with the one-time token of an administrator in the first line of this file. Otherwise QPC_RESET_TOKEN is used, if it is set."`
}

// resetTokenSize is the length of a reset token in bytes.
const resetTokenSize = 16

// token is the reset token, nil without one.
func (f resetFlags) token() ([]byte, error) {
	text := os.Getenv("QPC_RESET_TOKEN")
	if f.ResetTokenFile != "" {
		content, err := os.ReadFile(f.ResetTokenFile)
		if err != nil {
			return nil, usageError("--reset-token-file: %w", err)
		}
		line, _, _ := bytes.Cut(content, []byte("\n"))
		text = string(line)
	} else if text == "" {
		return nil, nil
	}
	token, err := decodeHex(strings.TrimSpace(text), resetTokenSize)
	if err != nil {
		return nil, usageError("the reset token: %w", err)
	}
	return token, nil
}

// Run registers the account. The keys are kept before the server hears of them,
// so that an account whose confirmation was lost is not lost with it.
func (cmd registerCommand) Run(ctx context.Context, a *app) error {
	h, err := openHome(a.Home)
	if err != nil {
		return err
	}
	name, err := statement.CanonicalUsername(cmd.Name)
	if err != nil {
		return usageError("%w", err)
	}
	token, err := cmd.token()
	if err != nil {
		return err
	}
	defer h.lock()()
	k, err := h.keysFor(name)
	if err != nil {
		return err
	}
	password, err := cmd.read(a, "New password for "+name, true)
	if err != nil {
		return err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	k.ServerName = c.ServerName()
	if err := h.save(keysFile, k); err != nil {
		return err
	}
	pairs, err := k.hybrid()
	if err != nil {
		return err
	}
	made, err := c.Register(ctx, client.RegisterParams{
		Username: name, Password: password, IdentityKey: k.identity(), DeviceKey: k.device(), HybridKey: pairs[0].Public(),
		ResetToken: token,
	})
	if err != nil {
		return h.registrationFailed(name, err)
	}
	if k.KeySet, err = proto.Marshal(made.KeySet); err != nil {
		return err
	}
	k.Registered = true
	if err := h.save(keysFile, k); err != nil {
		return err
	}
	object := map[string]any{"username": name, "identity_key": hex.EncodeToString(identityOf(k))}
	return a.print(object, "Registered %s. Identity key %s%s\nNext: qpc login %s", name, fingerprint(identityOf(k)),
		tellProof(c, object, "this key for "+name), name)
}

// keysFor returns the keys to register under a name: new ones, or those of an
// earlier try whose outcome is not known.
func (h *home) keysFor(name string) (*keys, error) {
	k := new(keys)
	err := h.load(keysFile, k)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return newKeys(name, ""), nil
	case err != nil:
		return nil, err
	case k.Registered || k.Username != name:
		return nil, fmt.Errorf("this home (%s) is the home of %s already: name another with --home", h.dir, k.Username)
	}
	return k, nil
}

// registrationFailed removes keys that no server can know, and explains a taken
// name: it may have been taken by an earlier try from this home.
func (h *home) registrationFailed(name string, err error) error {
	if isReason(err, pb.Reason_RESET_TOKEN_INVALID) {
		return fmt.Errorf("%w\nIf an earlier 'qpc register %s' with it from this home was cut off, the name may be yours: try 'qpc login %s'", err, name, name)
	}
	if isReason(err, pb.Reason_USERNAME_TAKEN) || isReason(err, pb.Reason_KEY_IN_USE) {
		return fmt.Errorf("%w\nIf an earlier 'qpc register %s' from this home was cut off, the name may be yours: try 'qpc login %s'. Otherwise remove %s and take another name", err, name, name, h.path(keysFile))
	}
	return err
}

type loginCommand struct {
	Name string `arg:"" optional:"" help:"Username; default: this home's."`
	passwordFlags
}

func (loginCommand) Help() string {
	return "Opens a session of this home's device, keeps its token in the home folder (0600), and publishes the home's hybrid key, so that others can seal messages for you. It asks the log whose your name is, and tells when somebody else changed that."
}

// Run logs in and publishes the hybrid key when the newest KeySet lacks it.
func (cmd loginCommand) Run(ctx context.Context, a *app) error {
	h, err := openHome(a.Home)
	if err != nil {
		return err
	}
	defer h.lock()()
	k, err := h.keys()
	if err != nil {
		return err
	}
	if err := cmd.check(h, k); err != nil {
		return err
	}
	password, err := cmd.read(a, "Password of "+k.Username, false)
	if err != nil {
		return err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return a.finishLogin(ctx, h, k, c, password, 0)
}

// finishLogin opens a session, keeps it, and brings the keys for messages up to
// date: a home that holds the identity key publishes its own, another one takes what
// was handed to it, and waits for it as long as patience says.
func (a *app) finishLogin(ctx context.Context, h *home, k *keys, c *client.Client, password []byte, patience time.Duration) error {
	opened, err := c.Login(ctx, k.Username, password, k.device())
	if err != nil {
		return err
	}
	if err := h.loggedIn(k, opened); err != nil {
		return err
	}
	if err := h.monitor(ctx, c, k); err != nil {
		return err
	}
	before := k.KeySet
	version, err := h.bringKeysUpToDate(ctx, a, c, k, patience)
	if err != nil {
		return err
	}
	object := map[string]any{"username": k.Username, "expires_ms": opened.Expires.UnixMilli(), "keyset_version": version}
	proof := ""
	if c.ProvedChange() != nil && !bytes.Equal(before, k.KeySet) {
		proof = tellProof(c, object, fmt.Sprintf("KeySet version %d", version))
	}
	return a.print(object, "Logged in as %s until %s.%s", k.Username, opened.Expires.Local().Format(time.DateOnly), proof)
}

func (cmd loginCommand) check(h *home, k *keys) error {
	if cmd.Name == "" {
		return nil
	}
	name, err := statement.CanonicalUsername(cmd.Name)
	if err != nil {
		return usageError("%w", err)
	}
	if name != k.Username {
		return fmt.Errorf("this home (%s) is the home of %s: name another with --home", h.dir, k.Username)
	}
	return nil
}

// loggedIn keeps the session, after checking that it is one of this account.
func (h *home) loggedIn(k *keys, opened *client.Session) error {
	if !opened.IdentityKey.Equal(identityOf(k)) {
		return fmt.Errorf("the server says that %s has another identity key (%s) than this home: do not trust it, and ask its operator", k.Username, fingerprint(opened.IdentityKey))
	}
	if opened.Scope != pb.SessionScope_DEVICE {
		if !k.Registered {
			return fmt.Errorf("this device was not added yet: 'qpc device add CODE' on another device of %s does it", k.Username)
		}
		return fmt.Errorf("the device of this home is not a device of %s (any more)", k.Username)
	}
	k.Registered = true
	if err := h.save(keysFile, k); err != nil {
		return err
	}
	return h.save(sessionFile, session{Token: opened.Token, ExpiresMS: uint64(opened.Expires.UnixMilli())})
}

type whoamiCommand struct{}

// Run shows what the home holds; it asks no server.
func (whoamiCommand) Run(_ context.Context, a *app) error {
	h, err := openHome(a.Home)
	if err != nil {
		return err
	}
	k, err := h.keys()
	if err != nil {
		return err
	}
	device := k.device().Public().(ed25519.PublicKey)
	state, expires := "not logged in", uint64(0)
	if s, err := h.session(); err == nil {
		expires = s.ExpiresMS
		state = "session until " + time.UnixMilli(int64(expires)).Local().Format(time.DateTime)
	}
	return a.print(map[string]any{
		"username": k.Username, "server_name": k.ServerName, "registered": k.Registered,
		"identity_key": hex.EncodeToString(identityOf(k)), "device_key": hex.EncodeToString(device), "session_expires_ms": expires,
	}, "%s at %s (%s)\nidentity key  %s\ndevice key    %s", k.Username, k.ServerName, state, fingerprint(identityOf(k)), fingerprint(device))
}

type passwdCommand struct {
	OldPasswordFile string `placeholder:"FILE" help:"Read the present password from the first line of a file."`
	NewPasswordFile string `placeholder:"FILE" help:"Read the new password from the first line of a file."`
}

func (passwdCommand) Help() string {
	return "Changes the password of this home's account. All other sessions of the account end."
}

// Run proves the old password by a login and stores a record of the new one.
func (cmd passwdCommand) Run(ctx context.Context, a *app) error {
	h, err := openHome(a.Home)
	if err != nil {
		return err
	}
	defer h.lock()()
	k, err := h.keys()
	if err != nil {
		return err
	}
	former, err := passwordFlags{cmd.OldPasswordFile}.read(a, "Present password of "+k.Username, false)
	if err != nil {
		return err
	}
	fresh, err := passwordFlags{cmd.NewPasswordFile}.readNew(a, "New password")
	if err != nil {
		return err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	opened, err := c.ChangePassword(ctx, client.PasswordChange{Username: k.Username, Old: former, New: fresh, DeviceKey: k.device()})
	if err != nil {
		return err
	}
	if err := h.loggedIn(k, opened); err != nil {
		return err
	}
	return a.print(map[string]any{"username": k.Username}, "The password of %s is changed; other sessions have ended.", k.Username)
}

// identityOf is the account's identity key; a linked device may not hold its seed.
func identityOf(k *keys) ed25519.PublicKey {
	if !k.holdsIdentity() {
		return k.IdentityKey
	}
	return k.identity().Public().(ed25519.PublicKey)
}
