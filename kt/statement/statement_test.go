package statement

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
)

const server = "chat.example.org"

// testKey is an Ed25519 key whose seed is one byte, repeated.
func testKey(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32))
}

func public(key ed25519.PrivateKey) []byte { return key.Public().(ed25519.PublicKey) }

// fill gives 32 bytes of one value, in place of a hash.
func fill(b byte) [32]byte { return [32]byte(bytes.Repeat([]byte{b}, 32)) }

var (
	identity  = testKey(1)
	device    = testKey(2)
	recipient = testKey(3)
	successor = testKey(4)
	stranger  = testKey(5)
)

// statement is what every struct of the package is.
type statement interface {
	Bytes() []byte
	Sign(ed25519.PrivateKey) []byte
	Verify(key, sig []byte) error
}

// field is one field of a statement: the plain text of its value, and a
// statement that differs in it alone.
type field struct {
	name    string
	value   []byte
	changed statement
}

// testCase is one statement with what must hold for it.
type testCase struct {
	label     string
	statement statement
	fields    []field // in signed order, after the server name
	signers   []ed25519.PrivateKey
	// anyKey: the statement does not name who signs.
	anyKey bool
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// with returns a changed copy of a statement.
func with[S any](s S, change func(*S)) S {
	change(&s)
	return s
}

func hash(b byte) []byte { h := fill(b); return h[:] }

func testCases() []testCase {
	register := Register{ServerName: server, Username: "alice", UploadHash: fill(0x11), IdentityKey: public(identity), Challenge: []byte("sealed by the server")}
	login := Login{ServerName: server, Username: "alice", LoginID: bytes.Repeat([]byte{0x22}, 16), TranscriptHash: fill(0x33), Key: public(device)}
	consent := Device{ServerName: server, IdentityKey: public(identity), DeviceKey: public(device)}
	revoke := Revoke{ServerName: server, Key: public(device), Reason: ReasonKeyCompromise}
	handover := Successor{ServerName: server, Username: "alice", OldKey: public(identity), NewKey: public(successor), KeySetHash: fill(0x44)}
	endpoint := Endpoint{ServerName: server, IdentityKey: public(identity), DeviceKey: public(device), Sequence: 7, ExpiryMS: 1_700_000_000_000, AddressHash: fill(0x55)}
	message := Message{ServerName: server, SenderKey: public(identity), DeviceKey: public(device), RecipientKey: public(recipient), ChannelID: nil, ID: [16]byte{0x66}, TimeMS: 1_700_000_000_001, PlaintextHash: fill(0x77)}
	return []testCase{
		{"qpc-register-v1", register, []field{
			{"username", []byte("alice"), with(register, func(s *Register) { s.Username = "alicf" })},
			{"upload_hash", hash(0x11), with(register, func(s *Register) { s.UploadHash[31] = 0 })},
			{"identity_key", public(identity), with(register, func(s *Register) { s.IdentityKey = public(stranger) })},
			{"challenge", []byte("sealed by the server"), with(register, func(s *Register) { s.Challenge = nil })},
		}, []ed25519.PrivateKey{identity, device}, true},
		{"qpc-login-v1", login, []field{
			{"username", []byte("alice"), with(login, func(s *Login) { s.Username = "bob" })},
			{"login_id", bytes.Repeat([]byte{0x22}, 16), with(login, func(s *Login) { s.LoginID = nil })},
			{"transcript_hash", hash(0x33), with(login, func(s *Login) { s.TranscriptHash[0] = 0 })},
			{"key", public(device), with(login, func(s *Login) { s.Key = public(stranger) })},
		}, []ed25519.PrivateKey{device}, false},
		{"qpc-device-v1", consent, []field{
			{"identity_key", public(identity), with(consent, func(s *Device) { s.IdentityKey = public(stranger) })},
			{"device_key", public(device), with(consent, func(s *Device) { s.DeviceKey = public(stranger) })},
		}, []ed25519.PrivateKey{device}, false},
		{"qpc-revoke-v1", revoke, []field{
			{"key", public(device), with(revoke, func(s *Revoke) { s.Key = public(stranger) })},
			{"reason", u32(1), with(revoke, func(s *Revoke) { s.Reason = ReasonCessation })},
		}, []ed25519.PrivateKey{device, identity}, true},
		{"qpc-successor-v1", handover, []field{
			{"username", []byte("alice"), with(handover, func(s *Successor) { s.Username = "bob" })},
			{"old_key", public(identity), with(handover, func(s *Successor) { s.OldKey = public(stranger) })},
			{"new_key", public(successor), with(handover, func(s *Successor) { s.NewKey = public(stranger) })},
			{"keyset_hash", hash(0x44), with(handover, func(s *Successor) { s.KeySetHash = fill(0) })},
		}, []ed25519.PrivateKey{identity, successor}, false},
		{"qpc-endpoint-v1", endpoint, []field{
			{"identity_key", public(identity), with(endpoint, func(s *Endpoint) { s.IdentityKey = public(stranger) })},
			{"device_key", public(device), with(endpoint, func(s *Endpoint) { s.DeviceKey = public(stranger) })},
			{"sequence", u64(7), with(endpoint, func(s *Endpoint) { s.Sequence++ })},
			{"expiry_ms", u64(1_700_000_000_000), with(endpoint, func(s *Endpoint) { s.ExpiryMS++ })},
			{"address_hash", hash(0x55), with(endpoint, func(s *Endpoint) { s.AddressHash = fill(0) })},
		}, []ed25519.PrivateKey{device}, false},
		{"qpc-message-v1", message, []field{
			{"sender_key", public(identity), with(message, func(s *Message) { s.SenderKey = public(stranger) })},
			{"device_key", public(device), with(message, func(s *Message) { s.DeviceKey = public(stranger) })},
			{"recipient_key", public(recipient), with(message, func(s *Message) { s.RecipientKey = public(stranger) })},
			{"channel_id", nil, with(message, func(s *Message) { s.ChannelID = make([]byte, 16) })},
			{"id", append([]byte{0x66}, make([]byte, 15)...), with(message, func(s *Message) { s.ID[15] = 1 })},
			{"time_ms", u64(1_700_000_000_001), with(message, func(s *Message) { s.TimeMS = 0 })},
			{"plaintext_hash", hash(0x77), with(message, func(s *Message) { s.PlaintextHash = fill(0) })},
		}, []ed25519.PrivateKey{device}, false},
	}
}

// frame is the definition of a statement's bytes, written down a second time.
func frame(label string, fields ...[]byte) []byte {
	out := append([]byte(label), 0)
	for _, f := range fields {
		out = append(out, byte(len(f)>>24), byte(len(f)>>16), byte(len(f)>>8), byte(len(f)))
		out = append(out, f...)
	}
	return out
}

func TestStatementBytes(t *testing.T) {
	for _, c := range testCases() {
		values := [][]byte{[]byte(server)}
		for _, f := range c.fields {
			values = append(values, f.value)
		}
		if got, want := c.statement.Bytes(), frame(c.label, values...); !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %x\nwant %x", c.label, got, want)
		}
	}
}

func TestSignAndVerify(t *testing.T) {
	for _, c := range testCases() {
		t.Run(c.label, func(t *testing.T) {
			for _, key := range c.signers {
				sig := c.statement.Sign(key)
				if err := c.statement.Verify(public(key), sig); err != nil {
					t.Errorf("honest signature: %v", err)
				}
				if !ed25519.Verify(public(key), c.statement.Bytes(), sig) {
					t.Error("Sign does not sign Bytes")
				}
				for i := range 8 * len(sig) {
					bad := slices.Clone(sig)
					bad[i/8] ^= 1 << (i % 8)
					if err := c.statement.Verify(public(key), bad); !errors.Is(err, ErrSignature) {
						t.Errorf("signature with bit %d flipped: %v", i, err)
					}
				}
				for _, n := range []int{0, 63} {
					if err := c.statement.Verify(public(key), sig[:n]); !errors.Is(err, ErrSignature) {
						t.Errorf("signature of %d bytes: %v", n, err)
					}
				}
				if err := c.statement.Verify(public(key), append(slices.Clone(sig), 0)); !errors.Is(err, ErrSignature) {
					t.Errorf("signature of 65 bytes: %v", err)
				}
			}
			err := c.statement.Verify(public(stranger), c.statement.Sign(stranger))
			if c.anyKey != (err == nil) {
				t.Errorf("signed by a stranger: %v", err)
			}
		})
	}
}

// TestEveryFieldIsSigned changes one field at a time: bytes differ from all
// others, and the signature of the unchanged statement does not hold.
func TestEveryFieldIsSigned(t *testing.T) {
	seen := map[string]string{}
	note := func(name string, b []byte) {
		if other, ok := seen[string(b)]; ok {
			t.Errorf("%s and %s have the same bytes", name, other)
		}
		seen[string(b)] = name
	}
	for _, c := range testCases() {
		note(c.label, c.statement.Bytes())
		for _, f := range c.fields {
			note(c.label+" "+f.name, f.changed.Bytes())
			for _, key := range c.signers {
				if err := f.changed.Verify(public(key), c.statement.Sign(key)); !errors.Is(err, ErrSignature) {
					t.Errorf("%s with another %s: %v", c.label, f.name, err)
				}
			}
		}
	}
}

// TestStatementsOfAnotherServer: no signature moves to another server.
func TestStatementsOfAnotherServer(t *testing.T) {
	other := "chat.example.net"
	moved := []statement{
		with(testCases()[0].statement.(Register), func(s *Register) { s.ServerName = other }),
		with(testCases()[1].statement.(Login), func(s *Login) { s.ServerName = other }),
		with(testCases()[2].statement.(Device), func(s *Device) { s.ServerName = other }),
		with(testCases()[3].statement.(Revoke), func(s *Revoke) { s.ServerName = other }),
		with(testCases()[4].statement.(Successor), func(s *Successor) { s.ServerName = other }),
		with(testCases()[5].statement.(Endpoint), func(s *Endpoint) { s.ServerName = other }),
		with(testCases()[6].statement.(Message), func(s *Message) { s.ServerName = other }),
	}
	for i, c := range testCases() {
		key := c.signers[0]
		if err := moved[i].Verify(public(key), c.statement.Sign(key)); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", c.label, err)
		}
	}
}

// TestNoStatementPassesForAnother: bytes of one label are never bytes of another,
// and bytes cannot be shifted from one field to the next.
func TestNoStatementPassesForAnother(t *testing.T) {
	a := Login{ServerName: server, Username: "ab", LoginID: []byte("c")}.Bytes()
	b := Login{ServerName: server, Username: "a", LoginID: []byte("bc")}.Bytes()
	if bytes.Equal(a, b) {
		t.Error("a byte moved from the username to the login id unseen")
	}
	for i, c := range testCases() {
		for j, d := range testCases() {
			if i != j && bytes.HasPrefix(d.statement.Bytes(), append([]byte(c.label), 0)) {
				t.Errorf("%s begins like %s", d.label, c.label)
			}
		}
	}
}

func TestSuccessorToItself(t *testing.T) {
	s := testCases()[4].statement.(Successor)
	s.NewKey = s.OldKey
	if err := s.Verify(public(identity), s.Sign(identity)); !errors.Is(err, ErrKey) {
		t.Errorf("a key that succeeds itself: %v", err)
	}
}

// TestSmallOrderSignature uses the known trick: under the identity as public key
// the signature (R = [s]B, s) fits every message. The key check stops it.
func TestSmallOrderSignature(t *testing.T) {
	weak := append([]byte{1}, make([]byte, 31)...)
	sig := make([]byte, 64)
	sig[0] = 1 // R = identity = [0]B
	s := Login{ServerName: server, Username: "alice", Key: weak}
	if !ed25519.Verify(weak, s.Bytes(), sig) {
		t.Fatal("the trick no longer works in the library: find another")
	}
	if err := s.Verify(weak, sig); !errors.Is(err, ErrKey) {
		t.Errorf("a signature that fits every message: %v", err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("bad hex in a test: %v", err)
	}
	return b
}
