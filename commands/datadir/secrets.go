package datadir

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/rpc/pake"
)

// secretsDir is the folder with one file per secret.
const secretsDir = "secrets"

// Names of the secrets. A number is the version of the key material.
const (
	caKeyFile   = "ca-key"
	logKeyFile  = "log-key"
	vrfSeedFile = "vrf-seed"
	opaqueFile  = "opaque-1"
	fakeFile    = "opaque-fake-1"
	frankFile   = "frank-1"
)

// FrankVersion is the version of the key for tags of delivered messages; it stands
// in each tag.
const FrankVersion = 1

// OPAQUEVersion is the version of OPAQUE material that new records are made with.
const OPAQUEVersion = 1

// Secrets are what the server must keep over restarts and never show. They
// lie as 0600 files in secrets/, never in the log.
type Secrets struct {
	// CAKey signs the server's own certificates (ECDSA P-256).
	CAKey *ecdsa.PrivateKey
	// LogKey signs the log's checkpoints; its public half stands in CONFIG.
	LogKey ed25519.PrivateKey
	// VRFSeed is the secret of the key-transparency VRF (RFC 9381).
	VRFSeed [32]byte
	// OPAQUE is the password protocol's key material (RFC 9807), of version
	// OPAQUEVersion. It can't rotate without every user registering anew,
	// therefore the version stands in each user's record.
	OPAQUE *pake.Material
	// FakeRecord is a RegistrationRecord of OPAQUE (192 bytes) that answers for
	// unknown names: stored, so that they look alike before and after a restart.
	FakeRecord []byte
	// FrankKey makes the tags with which a recipient can report a message. Losing it
	// costs the proofs of earlier messages and nothing else, so a directory of an
	// older server gets one at its next start.
	FrankKey [32]byte
}

// String hides the secrets from logs and formatted errors.
func (*Secrets) String() string { return "Secrets(secret)" }

// GoString hides the secrets from %#v.
func (s *Secrets) GoString() string { return s.String() }

// newSecrets draws the secrets of a new server.
func newSecrets() (*Secrets, error) {
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	_, logKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	fake, err := pake.NewFakeRecord()
	if err != nil {
		return nil, err
	}
	s := &Secrets{CAKey: ca, LogKey: logKey, OPAQUE: pake.NewMaterial(), FakeRecord: fake}
	rand.Read(s.VRFSeed[:])
	rand.Read(s.FrankKey[:])
	return s, nil
}

// randomID draws a store id.
func randomID() (id [16]byte) {
	rand.Read(id[:])
	return id
}

// writeSecrets makes the folder with all secrets, durable but for its own entry.
func writeSecrets(fs vfs.FS, folder string, s *Secrets) error {
	ca, err := x509.MarshalPKCS8PrivateKey(s.CAKey)
	if err != nil {
		return err
	}
	if err := makeDir(fs, folder, 0o700); err != nil {
		return err
	}
	for _, file := range []struct {
		name   string
		secret []byte
	}{
		{caKeyFile, ca},
		{logKeyFile, s.LogKey.Seed()},
		{vrfSeedFile, s.VRFSeed[:]},
		{opaqueFile, s.OPAQUE.Marshal()},
		{fakeFile, s.FakeRecord},
		{frankFile, s.FrankKey[:]},
	} {
		if err := writeFile(fs, fs.PathJoin(folder, file.name), encodeSecret(file.name, file.secret), 0o600); err != nil {
			return err
		}
	}
	return syncDir(fs, folder)
}

// readSecrets reads all secrets. It refuses a folder or a file that others may
// read, one that is missing and one that is damaged.
func readSecrets(fs vfs.FS, folder string) (*Secrets, error) {
	if onDisk(fs) {
		if err := CheckPrivate(folder); err != nil {
			return nil, err
		}
	}
	s := &Secrets{}
	if err := addFrankKey(fs, folder); err != nil {
		return nil, err
	}
	for _, file := range []struct {
		name string
		size int // 0: parse tells
		take func([]byte) error
	}{
		{caKeyFile, 0, s.takeCAKey},
		{logKeyFile, ed25519.SeedSize, func(b []byte) error { s.LogKey = ed25519.NewKeyFromSeed(b); return nil }},
		{vrfSeedFile, len(s.VRFSeed), func(b []byte) error { s.VRFSeed = [32]byte(b); return nil }},
		{opaqueFile, pake.MaterialSize, func(b []byte) (err error) { s.OPAQUE, err = pake.ParseMaterial(b); return err }},
		{fakeFile, pake.RecordSize, s.takeFakeRecord}, // after the material that it goes with
		{frankFile, len(s.FrankKey), func(b []byte) error { s.FrankKey = [32]byte(b); return nil }},
	} {
		secret, err := readSecret(fs, folder, file.name, file.size)
		if err != nil {
			return nil, err
		}
		if err := file.take(secret); err != nil {
			return nil, damaged(fs.PathJoin(folder, file.name), "does not hold a valid key", err)
		}
	}
	return s, nil
}

// addFrankKey draws the key for tags where a directory has none. The file appears
// whole or not at all, so that a cut never leaves half a secret.
func addFrankKey(fs vfs.FS, folder string) error {
	path := fs.PathJoin(folder, frankFile)
	if _, err := fs.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := fs.Stat(fs.PathJoin(folder, caKeyFile)); errors.Is(err, os.ErrNotExist) {
		return nil // no server's secrets: whoever reads them says what is wrong
	}
	var key [32]byte
	rand.Read(key[:])
	part := path + ".new"
	if err := fs.Remove(part); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := writeFile(fs, part, encodeSecret(frankFile, key[:]), 0o600); err != nil {
		return err
	}
	if err := fs.Rename(part, path); err != nil {
		return err
	}
	return syncDir(fs, folder)
}

func (s *Secrets) takeFakeRecord(record []byte) error {
	server, err := pake.NewServer(s.OPAQUE)
	if err != nil {
		return err
	}
	if _, err := server.ParseRecord(record); err != nil {
		return err
	}
	s.FakeRecord = record
	return nil
}

func (s *Secrets) takeCAKey(der []byte) error {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return err
	}
	ca, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return errors.New("not an ECDSA key")
	}
	if ca.Curve != elliptic.P256() {
		return fmt.Errorf("on curve %s instead of P-256", ca.Curve.Params().Name)
	}
	s.CAKey = ca
	return nil
}
