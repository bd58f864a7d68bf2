package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"quicprochat/kt"
)

// witnessKey signs cosignatures. Its file has one line, as note.GenerateKey of
// golang.org/x/mod writes it, with the signature type 0x04 of cosignature/v1:
//
//	PRIVATE+KEY+<name>+<hash>+<base64 of 0x04 ‖ seed>
type witnessKey struct {
	*kt.Witness
	private ed25519.PrivateKey
}

const (
	privatePrefix   = "PRIVATE+KEY+"
	cosignatureType = 0x04
)

// openWitnessKey reads the key file, or makes one for name when it is missing.
func openWitnessKey(file, name string) (*witnessKey, error) {
	content, err := readPrivate(file)
	if errors.Is(err, fs.ErrNotExist) {
		if name == "" {
			return nil, usageError("there is no key in %s: give the new witness a name with --name (a host name you own, such as witness.example.net)", file)
		}
		return createWitnessKey(file, name)
	}
	if err != nil {
		return nil, err
	}
	k, err := parseWitnessKey(strings.TrimSpace(string(content)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if name != "" && name != k.Name() {
		return nil, usageError("the key in %s is that of %s, not of %s", file, k.Name(), name)
	}
	return k, nil
}

func createWitnessKey(file, name string) (*witnessKey, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	k, err := newWitnessKey(name, private)
	if err != nil {
		return nil, usageError("--name: %v", err)
	}
	return k, replaceFile(file, []byte(k.secret()+"\n"), 0o600)
}

func newWitnessKey(name string, private ed25519.PrivateKey) (*witnessKey, error) {
	w, err := kt.NewWitness(name, private.Public().(ed25519.PublicKey))
	return &witnessKey{w, private}, err
}

// secret is the line of the key file.
func (k *witnessKey) secret() string {
	seed := append([]byte{cosignatureType}, k.private.Seed()...)
	return fmt.Sprintf("%s%s+%08x+%s", privatePrefix, k.Name(), k.KeyHash(), base64.StdEncoding.EncodeToString(seed))
}

func parseWitnessKey(line string) (*witnessKey, error) {
	bad := errors.New("it holds no witness key (PRIVATE+KEY+name+hash+key)")
	rest, found := strings.CutPrefix(line, privatePrefix)
	name, rest, _ := strings.Cut(rest, "+")
	_, encoded, _ := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if !found || err != nil || len(raw) != 1+ed25519.SeedSize || raw[0] != cosignatureType {
		return nil, bad
	}
	k, err := newWitnessKey(name, ed25519.NewKeyFromSeed(raw[1:]))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal([]byte(k.secret()), []byte(line)) {
		return nil, bad
	}
	return k, nil
}

// cosign makes the signature line over a note.
func (k *witnessKey) cosign(signed []byte, seconds uint64) ([]byte, error) {
	return kt.Cosign(signed, k.Name(), k.private, seconds)
}
