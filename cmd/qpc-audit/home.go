package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// homeFlags name the home of qpc whose account asks.
type homeFlags struct {
	Home string `env:"QPC_HOME" default:"~/.qpc" placeholder:"DIR" help:"Home of qpc whose session asks about persons (${env})."`
}

// home is what qpc keeps of its account, as far as it is needed here; it is only
// read.
type home struct {
	username   string
	serverName string
	identity   ed25519.PublicKey
	device     ed25519.PublicKey
	// keySet is the newest KeySet that this home made and the server took.
	keySet []byte
	token  []byte
}

// open reads keys.json and session.json.
func (f *homeFlags) open() (*home, error) {
	dir, err := f.folder()
	if err != nil {
		return nil, err
	}
	var keys struct {
		Username     string `json:"username"`
		ServerName   string `json:"server_name"`
		IdentitySeed string `json:"identity_seed"`
		DeviceSeed   string `json:"device_seed"`
		KeySet       []byte `json:"keyset"`
	}
	if err := loadJSON(filepath.Join(dir, "keys.json"), &keys); err != nil {
		return nil, fmt.Errorf("home of qpc: %w; name one with --home", err)
	}
	var session struct {
		Token []byte `json:"token"`
	}
	if err := loadJSON(filepath.Join(dir, "session.json"), &session); err != nil {
		return nil, fmt.Errorf("home of qpc: %w; run 'qpc login' in it, or name another with --home", err)
	}
	h := &home{username: keys.Username, serverName: keys.ServerName, keySet: keys.KeySet, token: session.Token}
	if h.identity, err = publicOf(keys.IdentitySeed); err == nil {
		h.device, err = publicOf(keys.DeviceSeed)
	}
	if err != nil {
		return nil, fmt.Errorf("home of qpc: keys.json: %w", err)
	}
	return h, nil
}

func (f *homeFlags) folder() (string, error) {
	rest, tilde := strings.CutPrefix(f.Home, "~")
	if !tilde || (rest != "" && rest[0] != os.PathSeparator) {
		return f.Home, nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no home folder: name one with --home: %w", err)
	}
	return user + rest, nil
}

func loadJSON(name string, value any) error {
	content, err := readPrivate(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s does not exist", name)
	}
	if err != nil {
		return err
	}
	if json.Unmarshal(content, value) != nil {
		return fmt.Errorf("%s is damaged", name)
	}
	return nil
}

func publicOf(seed string) (ed25519.PublicKey, error) {
	raw, err := hex.DecodeString(seed)
	if err != nil || len(raw) != ed25519.SeedSize {
		return nil, errors.New("a seed is damaged")
	}
	return ed25519.NewKeyFromSeed(raw).Public().(ed25519.PublicKey), nil
}

// use makes a connection ask in the home's session.
func (h *home) use(c *client.Client) error {
	if c.ServerName() != h.serverName {
		return usageError("this home belongs to the server named %q, not %q: set --server-name", h.serverName, c.ServerName())
	}
	c.SetSession(client.Session{Username: h.username, Token: h.token, Scope: pb.SessionScope_DEVICE, IdentityKey: h.identity, DeviceKey: h.device})
	return nil
}
