package seal_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client/seal"
)

// second is another device of a person, with a hybrid key of its own.
func second(t testing.TB, p person) (device ed25519.PrivateKey, own *seal.HybridKey) {
	t.Helper()
	seed := sha256.Sum256([]byte(p.name + "/second"))
	own, err := seal.NewHybridKey(seed)
	if err != nil {
		t.Fatal(err)
	}
	return ed25519.NewKeyFromSeed(seed[:]), own
}

func TestSecretsReachOneDevice(t *testing.T) {
	alice := newPerson(t, "alice")
	device, own := second(t, alice)
	from := seal.Sender{ServerName: serverName, Username: "alice", IdentityKey: public(alice.identity), Device: alice.device}
	to := &pb.DeviceSealKey{DeviceKey: public(device), HybridKey: own.Public()}
	secrets := &pb.DeviceSecrets{HybridSeeds: [][]byte{bytes.Repeat([]byte{7}, 32)}, SealKeys: []*pb.DeviceSealKey{to}}
	payload, err := seal.SealSecrets(from, to, secrets, 1234)
	if err != nil {
		t.Fatal(err)
	}
	if !seal.IsSecrets(payload) || seal.IsSecrets(nil) {
		t.Error("secrets are not told from other payloads")
	}
	got, sender, err := seal.OpenSecrets(serverName, public(alice.identity), public(device), own, payload)
	if err != nil || !proto.Equal(got, secrets) || !bytes.Equal(sender, public(alice.device)) {
		t.Fatalf("opened %v from %x: %v", got, sender, err)
	}
	// No other device, identity, server or key opens it, and no altered byte passes.
	bob := newPerson(t, "bob")
	for name, open := range map[string]func() error{
		"another server": func() error {
			_, _, err := seal.OpenSecrets("other.example", public(alice.identity), public(device), own, payload)
			return err
		},
		"another identity": func() error {
			_, _, err := seal.OpenSecrets(serverName, public(bob.identity), public(device), own, payload)
			return err
		},
		"another device": func() error {
			_, _, err := seal.OpenSecrets(serverName, public(alice.identity), public(bob.device), own, payload)
			return err
		},
		"the identity's hybrid key": func() error {
			_, _, err := seal.OpenSecrets(serverName, public(alice.identity), public(device), alice.hybrid, payload)
			return err
		},
		"altered": func() error {
			altered := bytes.Clone(payload)
			altered[len(altered)-1] ^= 1
			_, _, err := seal.OpenSecrets(serverName, public(alice.identity), public(device), own, altered)
			return err
		},
	} {
		if err := open(); !errors.Is(err, seal.ErrNotForUs) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := seal.Open(serverName, public(alice.identity), []*seal.HybridKey{own}, payload); !errors.Is(err, seal.ErrMalformed) {
		t.Errorf("secrets opened as a message: %v", err)
	}
}

func TestDeviceCode(t *testing.T) {
	alice := newPerson(t, "alice")
	device, own := second(t, alice)
	consent := statement.Device{ServerName: serverName, IdentityKey: public(alice.identity), DeviceKey: public(device)}
	code := &pb.DeviceCode{
		ServerName: serverName, Username: "alice", IdentityKey: public(alice.identity), DeviceKey: public(device),
		Signature: consent.Sign(device), HybridKey: own.Public(),
	}
	text, err := seal.FormatCode(code)
	if err != nil || strings.ContainsAny(text, " \n") {
		t.Fatalf("code %q: %v", text, err)
	}
	got, err := seal.ParseCode(" " + text + "\n")
	if err != nil || !proto.Equal(got, code) {
		t.Fatalf("read %v: %v", got, err)
	}
	bad := map[string]string{"empty": "", "cut": text[:len(text)/2], "no prefix": strings.TrimPrefix(text, "qpc-device-1:")}
	for name, change := range map[string]func(*pb.DeviceCode){
		"another server":   func(c *pb.DeviceCode) { c.ServerName = "other.example" },
		"another identity": func(c *pb.DeviceCode) { c.IdentityKey = public(alice.device) },
		"short key":        func(c *pb.DeviceCode) { c.DeviceKey = c.DeviceKey[:31] },
		"short hybrid key": func(c *pb.DeviceCode) { c.HybridKey = c.HybridKey[:32] },
	} {
		changed := proto.CloneOf(code)
		change(changed)
		if bad[name], err = seal.FormatCode(changed); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range bad {
		if _, err := seal.ParseCode(text); !errors.Is(err, seal.ErrCode) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
