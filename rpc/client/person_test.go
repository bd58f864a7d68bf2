package client

import (
	"crypto/ed25519"
	"crypto/sha256"
	"testing"

	"quicprochat/kt/statement"
)

// person is somebody with keys that depend on the name only.
type person struct {
	name             string
	identity, device ed25519.PrivateKey
}

func newPerson(t testing.TB, name string) *person {
	t.Helper()
	if _, err := statement.CanonicalUsername(name); err != nil {
		t.Fatal(err)
	}
	key := func(use string) ed25519.PrivateKey {
		seed := sha256.Sum256([]byte(use + name))
		return ed25519.NewKeyFromSeed(seed[:])
	}
	return &person{name: name, identity: key("identity"), device: key("device")}
}

func (p *person) password() []byte { return []byte("password of " + p.name) }

func (p *person) params() RegisterParams {
	return RegisterParams{Username: p.name, Password: p.password(), IdentityKey: p.identity, DeviceKey: p.device}
}
