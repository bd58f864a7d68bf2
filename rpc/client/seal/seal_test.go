package seal_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client/seal"
)

const serverName = "chat.example"

// person is somebody with keys derived from a name, so that tests repeat.
type person struct {
	name     string
	identity ed25519.PrivateKey
	device   ed25519.PrivateKey
	hybrid   *seal.HybridKey
}

func newPerson(t testing.TB, name string) person {
	t.Helper()
	seed := func(part string) [32]byte { return sha256.Sum256([]byte(name + "/" + part)) }
	identity, device := seed("identity"), seed("device")
	hybrid, err := seal.NewHybridKey(seed("hybrid"))
	if err != nil {
		t.Fatal(err)
	}
	return person{name, ed25519.NewKeyFromSeed(identity[:]), ed25519.NewKeyFromSeed(device[:]), hybrid}
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func (p person) keySet() *pb.KeySet {
	return &pb.KeySet{
		IdentityKey: public(p.identity), DeviceKeys: [][]byte{public(p.device)},
		KemId: seal.KEMID, HybridKey: p.hybrid.Public(),
	}
}

func (p person) sender() seal.Sender {
	return seal.Sender{ServerName: serverName, Username: p.name, IdentityKey: public(p.identity), Device: p.device}
}

func draft(text string) seal.Draft {
	return seal.Draft{ID: [16]byte{1, 2, 3}, TimeMS: 1_800_000_000_000, Text: []byte(text)}
}

func mustSeal(t testing.TB, from, to person, text string) []byte {
	t.Helper()
	payload, err := seal.Seal(from.sender(), to.keySet(), draft(text))
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func TestSealedMessageOpensForItsRecipient(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob")
	for _, text := range []string{"", "hello", strings.Repeat("long ", 5000)} {
		payload := mustSeal(t, alice, bob, text)
		old := newPerson(t, "bob's former key").hybrid
		got, err := seal.Open(serverName, public(bob.identity), []*seal.HybridKey{old, bob.hybrid}, payload)
		if err != nil {
			t.Fatal(err)
		}
		if string(got.GetPlaintext()) != text || got.GetSender() != "alice" || got.GetTimeMs() != 1_800_000_000_000 {
			t.Errorf("opened %v, sealed %q", got, text)
		}
		if err := seal.VerifySender(got, alice.keySet()); err != nil {
			t.Errorf("the sender's own KeySet: %v", err)
		}
		if err := seal.VerifySender(got, bob.keySet()); !errors.Is(err, seal.ErrForeignDevice) {
			t.Errorf("another person's KeySet: %v", err)
		}
	}
}

func TestNobodyElseOpens(t *testing.T) {
	alice, bob, eve := newPerson(t, "alice"), newPerson(t, "bob"), newPerson(t, "eve")
	payload := mustSeal(t, alice, bob, "for bob")
	cases := map[string]struct {
		server   string
		identity ed25519.PrivateKey
		key      *seal.HybridKey
	}{
		"another person's key": {serverName, eve.identity, eve.hybrid},
		"another identity":     {serverName, eve.identity, bob.hybrid},
		"another server":       {"evil.example", bob.identity, bob.hybrid},
	}
	for name, c := range cases {
		if _, err := seal.Open(c.server, public(c.identity), []*seal.HybridKey{c.key}, payload); !errors.Is(err, seal.ErrNotForUs) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := seal.Open(serverName, public(bob.identity), nil, payload); !errors.Is(err, seal.ErrNotForUs) {
		t.Errorf("without keys: %v", err)
	}
}

// TestEveryFlippedByteIsSeen: nothing of a payload can be changed on the way.
func TestEveryFlippedByteIsSeen(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob")
	payload := mustSeal(t, alice, bob, "untouched")
	step := 1
	if testing.Short() {
		step = 17
	}
	for i := 0; i < len(payload); i += step {
		changed := bytes.Clone(payload)
		changed[i] ^= 0x40
		if _, err := seal.Open(serverName, public(bob.identity), []*seal.HybridKey{bob.hybrid}, changed); err == nil {
			t.Fatalf("byte %d changed, and it opened", i)
		}
	}
	for _, n := range []int{0, 1, 100, 1120, len(payload) - 1} {
		if _, err := seal.Open(serverName, public(bob.identity), []*seal.HybridKey{bob.hybrid}, payload[:n]); err == nil {
			t.Errorf("cut to %d bytes, and it opened", n)
		}
	}
}

func TestSenderCanNotBeForged(t *testing.T) {
	alice, bob, eve := newPerson(t, "alice"), newPerson(t, "bob"), newPerson(t, "eve")
	forger := alice.sender()
	forger.Device = eve.device // eve signs, and claims to be alice
	payload, err := seal.Seal(forger, bob.keySet(), draft("it is me"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := seal.Open(serverName, public(bob.identity), []*seal.HybridKey{bob.hybrid}, payload)
	if err != nil {
		t.Fatal(err)
	}
	if err := seal.VerifySender(got, alice.keySet()); !errors.Is(err, seal.ErrForeignDevice) {
		t.Errorf("a device that alice does not list: %v", err)
	}
}

func TestLengthsTellOnlySteps(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob")
	lengths := map[int]bool{}
	for n := range 200 {
		lengths[len(mustSeal(t, alice, bob, strings.Repeat("x", n)))] = true
	}
	if len(lengths) > 2 {
		t.Errorf("200 text lengths made %d payload lengths", len(lengths))
	}
}

func TestSealRefuses(t *testing.T) {
	alice, bob := newPerson(t, "alice"), newPerson(t, "bob")
	bare := bob.keySet()
	bare.KemId, bare.HybridKey = 0, nil
	if _, err := seal.Seal(alice.sender(), bare, draft("x")); err == nil || !strings.Contains(err.Error(), "no hybrid key") {
		t.Errorf("no hybrid key: %v", err)
	}
	short := bob.keySet()
	short.HybridKey = short.HybridKey[:100]
	if _, err := seal.Seal(alice.sender(), short, draft("x")); err == nil {
		t.Error("a short hybrid key was accepted")
	}
	long := draft("")
	long.Text = make([]byte, seal.MaxPlaintext+1)
	if _, err := seal.Seal(alice.sender(), bob.keySet(), long); err == nil {
		t.Error("a text over the limit was accepted")
	}
}
