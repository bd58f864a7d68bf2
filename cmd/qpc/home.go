package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"quicprochat/rpc/client/seal"
)

// Files of a home. Every one is 0600 in a folder of 0700 and is replaced whole,
// so that a cut never leaves half of one.
const (
	keysFile     = "keys.json"
	sessionFile  = "session.json"
	contactsFile = "contacts.json"
	inboxFile    = "inbox.json"
	channelsFile = "channels.json"
	heldFolder   = "held"
)

// home is the folder in which a person's keys and session live.
type home struct{ dir string }

// seed is 32 secret bytes, from which a key pair is derived.
type seed [32]byte

func newSeed() (s seed) {
	_, _ = rand.Read(s[:]) // never fails, by its documentation
	return s
}

// MarshalText and UnmarshalText keep seeds as hexadecimal in JSON.
func (s seed) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%x", s[:]), nil }

func (s *seed) UnmarshalText(text []byte) error {
	raw, err := decodeHex(string(text), len(s))
	copy(s[:], raw)
	return err
}

func (s seed) ed25519() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(s[:]) }

// keys are a home's account and device. HybridSeeds are newest first; former
// ones stay as long as messages sealed for them may arrive.
type keys struct {
	Username     string `json:"username"`
	ServerName   string `json:"server_name"`
	IdentitySeed seed   `json:"identity_seed"`
	DeviceSeed   seed   `json:"device_seed"`
	HybridSeeds  []seed `json:"hybrid_seeds"`
	// SealSeed is of the hybrid key that this device alone has, for secrets that
	// other devices hand to it; zero until it is needed.
	SealSeed seed `json:"seal_seed"`
	// SealKeys are those of the account's other devices, as far as this home met
	// them.
	SealKeys []sealKey `json:"seal_keys,omitempty"`
	// IdentityKey is the account's where this home does not hold its seed.
	IdentityKey []byte `json:"identity_key,omitempty"`
	// KeySet is the newest KeySet that the server took (protobuf).
	KeySet []byte `json:"keyset,omitempty"`
	// Registered turns true when the server confirmed the account.
	Registered bool `json:"registered"`
}

// sealKey is the hybrid key of one other device.
type sealKey struct {
	DeviceKey []byte `json:"device_key"`
	HybridKey []byte `json:"hybrid_key"`
}

func newKeys(username, serverName string) *keys {
	return &keys{
		Username: username, ServerName: serverName,
		IdentitySeed: newSeed(), DeviceSeed: newSeed(), HybridSeeds: []seed{newSeed()}, SealSeed: newSeed(),
	}
}

func (k *keys) identity() ed25519.PrivateKey { return k.IdentitySeed.ed25519() }
func (k *keys) device() ed25519.PrivateKey   { return k.DeviceSeed.ed25519() }

// holdsIdentity tells whether this home can sign KeySets.
func (k *keys) holdsIdentity() bool { return k.IdentitySeed != seed{} }

// sealPair is this device's own hybrid key. A home of an older qpc gets one at its
// first use; whoever calls saves the keys.
func (k *keys) sealPair() (*seal.HybridKey, error) {
	if k.SealSeed == (seed{}) {
		k.SealSeed = newSeed()
	}
	return seal.NewHybridKey(k.SealSeed)
}

// hybrid returns the key pairs, newest first.
func (k *keys) hybrid() ([]*seal.HybridKey, error) {
	var pairs []*seal.HybridKey
	for _, s := range k.HybridSeeds {
		pair, err := seal.NewHybridKey(s)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, pair)
	}
	if len(pairs) == 0 {
		return nil, errors.New("this home has no hybrid key: run 'qpc login' once another device of the account has handed it over")
	}
	return pairs, nil
}

// session is what a login left: a bearer token.
type session struct {
	Token     []byte `json:"token"`
	ExpiresMS uint64 `json:"expires_ms"`
}

// contact is what a home remembers of a person it has met.
type contact struct {
	IdentityKey []byte `json:"identity_key"`
	// FirstSeenMS is when the key was remembered, Unix milliseconds.
	FirstSeenMS uint64 `json:"first_seen_ms"`
}

// inbox is how far this device has read.
type inbox struct {
	// AfterSeq: everything up to this queue position was shown or held.
	AfterSeq uint64 `json:"after_seq"`
	// Seen are ids of messages of the last days, oldest first.
	Seen []string `json:"seen"`
}

// rememberedIDs bounds inbox.Seen: a queue holds at most 10,000 items.
const rememberedIDs = 20_000

// note remembers an id; it reports false when the id was seen before.
func (i *inbox) note(id string) bool {
	if slices.Contains(i.Seen, id) {
		return false
	}
	i.Seen = append(i.Seen, id)
	if over := len(i.Seen) - rememberedIDs; over > 0 {
		i.Seen = slices.Delete(i.Seen, 0, over)
	}
	return true
}

// openHome makes the folder when it is missing and refuses one that others can
// read.
func openHome(dir string) (*home, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("home folder: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("home folder: %w", err)
	}
	if open := info.Mode().Perm() & 0o077; open != 0 {
		return nil, fmt.Errorf("home folder %s can be entered by others (mode %o): it holds secret keys; run: chmod 700 %s", dir, info.Mode().Perm(), dir)
	}
	return &home{dir}, nil
}

// lock is held while keys and session change, lockContacts while contacts do,
// lockInbox while a process reads the queue.
func (h *home) lock() (unlock func())         { return h.lockPart("keys.lock") }
func (h *home) lockContacts() (unlock func()) { return h.lockPart("contacts.lock") }
func (h *home) lockInbox() (unlock func())    { return h.lockPart("inbox.lock") }
func (h *home) lockChannels() (unlock func()) { return h.lockPart("channels.lock") }

func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

// load reads one file into value; a missing one is fs.ErrNotExist.
func (h *home) load(name string, value any) error {
	info, err := os.Stat(h.path(name))
	if err != nil {
		return err
	}
	if open := info.Mode().Perm() & 0o077; open != 0 {
		return fmt.Errorf("%s can be read by others (mode %o); run: chmod 600 %s", h.path(name), info.Mode().Perm(), h.path(name))
	}
	content, err := os.ReadFile(h.path(name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, value); err != nil {
		return fmt.Errorf("%s is damaged: %w", h.path(name), err)
	}
	return nil
}

// save replaces one file; what it returns nil for survives a power cut.
func (h *home) save(name string, value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(h.path(name), append(content, '\n'))
}

// replaceFile writes a 0600 file beside the name, syncs it, and renames it over
// the name.
func replaceFile(name string, content []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	_, err = file.Write(content)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(file.Name(), name); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(name))
}

func syncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// keys loads the home's keys, or says how to get some.
func (h *home) keys() (*keys, error) {
	k := new(keys)
	err := h.load(keysFile, k)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("this home (%s) has no account yet: run 'qpc register NAME', or name another with --home", h.dir)
	}
	return k, err
}

// session loads the token of the last login, or says how to get one.
func (h *home) session() (*session, error) {
	s := new(session)
	err := h.load(sessionFile, s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("not logged in: run 'qpc login NAME'")
	}
	return s, err
}

// contacts loads the remembered identity keys by username.
func (h *home) contacts() (map[string]contact, error) {
	all := map[string]contact{}
	if err := h.load(contactsFile, &all); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return all, nil
}

// inbox loads the reading position; a home that never read starts at 0.
func (h *home) inbox() (*inbox, error) {
	i := new(inbox)
	if err := h.load(inboxFile, i); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return i, nil
}
