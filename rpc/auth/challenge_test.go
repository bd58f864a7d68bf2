package auth

import (
	"bytes"
	"errors"
	"testing"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/pake"
)

func testSealer(t testing.TB, key byte, serverName string) *sealer {
	t.Helper()
	s, err := newSealer(bytes.Repeat([]byte{key}, 32), serverName)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var challengeInvalid = &commands.Refusal{Status: pb.Status_BadRequest, Reason: pb.Reason_CHALLENGE_INVALID}

func TestChallengeLifetime(t *testing.T) {
	s := testSealer(t, 1, "chat.example.org")
	want := commands.Challenge{Username: "alice", CredentialID: [32]byte{1, 2, 3}, KeyVersion: 7}
	const now = 1_700_000_000_000
	sealed := s.seal(want, now)
	if bytes.Contains(sealed, []byte("alice")) {
		t.Error("the name can be read")
	}
	for _, at := range []uint64{now, now + challengeLifetimeMS - 1} {
		if got, err := s.open(sealed, at); err != nil || got != want {
			t.Errorf("after %d ms: %v, %v", at-now, got, err)
		}
	}
	for _, at := range []uint64{now + challengeLifetimeMS, now * 2} {
		if _, err := s.open(sealed, at); !errors.Is(err, challengeInvalid) {
			t.Errorf("after %d ms: %v", at-now, err)
		}
	}
	if bytes.Equal(sealed, s.seal(want, now)) {
		t.Error("two challenges are the same bytes")
	}
}

func TestChallengeForged(t *testing.T) {
	s := testSealer(t, 1, "chat.example.org")
	sealed := s.seal(commands.Challenge{Username: "alice"}, 0)
	for i := range sealed {
		forged := bytes.Clone(sealed)
		forged[i] ^= 0x10
		if _, err := s.open(forged, 0); !errors.Is(err, challengeInvalid) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := s.open(sealed[:i], 0); !errors.Is(err, challengeInvalid) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	for name, other := range map[string]*sealer{
		"another key": testSealer(t, 2, "chat.example.org"), "another server": testSealer(t, 1, "other.example.org"),
	} {
		if _, err := other.open(sealed, 0); !errors.Is(err, challengeInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A text of another form, sealed with the right key.
	for _, text := range [][]byte{{}, {challengeForm}, append([]byte{challengeForm + 1}, make([]byte, challengeHeader)...)} {
		if _, err := s.open(s.aead.Seal(nil, nil, text, s.serverName), 0); !errors.Is(err, challengeInvalid) {
			t.Errorf("text %x: %v", text, err)
		}
	}
}

// FuzzCeremonies gives arbitrary bytes to what reads the messages of registrations
// and logins, by the selector: the challenges that the server sealed itself, and
// the server's side of OPAQUE.
func FuzzCeremonies(f *testing.F) {
	s := testSealer(f, 1, "chat.example.org")
	f.Add(uint8(0), s.seal(commands.Challenge{Username: "alice"}, 0))
	f.Add(uint8(0), []byte{})
	f.Add(uint8(0), make([]byte, 28))
	opaque := newFuzzOPAQUE(f)
	for _, seed := range [][]byte{opaque.ke1, opaque.ke3, opaque.record, make([]byte, pake.RegistrationRequestSize)} {
		f.Add(uint8(1), seed)
	}
	f.Fuzz(func(t *testing.T, selector uint8, b []byte) {
		if selector%2 == 1 {
			opaque.fuzz(t, b)
			return
		}
		c, err := s.open(b, 0)
		if err == nil && len(b) != 12+challengeHeader+len(c.Username)+16 {
			t.Errorf("opened %x as %v", b, c)
		}
	})
}

// fuzzOPAQUE is a server with one record and one login that waits for its end.
type fuzzOPAQUE struct {
	server           *pake.Server
	id               []byte
	ke1, ke3, record []byte
	parsed           *pake.Record
	state            *pake.LoginState
}

func newFuzzOPAQUE(f *testing.F) *fuzzOPAQUE {
	password := []byte("correct horse battery staple")
	o := &fuzzOPAQUE{id: bytes.Repeat([]byte{7}, pake.CredentialIDSize)}
	check := func(err error) {
		f.Helper()
		if err != nil {
			f.Fatal(err)
		}
	}
	var err error
	o.server, err = pake.NewServer(pake.NewMaterial())
	check(err)
	registration, request, err := pake.StartRegistration(password, pake.InsecureKSF())
	check(err)
	response, err := o.server.RegistrationResponse(request, o.id)
	check(err)
	o.record, _, err = registration.Finish(response)
	check(err)
	o.parsed, err = o.server.ParseRecord(o.record)
	check(err)
	login, ke1, err := pake.StartLogin(password, pake.InsecureKSF())
	check(err)
	ke2, state, err := o.server.LoginStart(ke1, o.parsed, o.id)
	check(err)
	o.ke1, o.state = ke1, state
	o.ke3, _, _, err = login.Finish(ke2)
	check(err)
	return o
}

// fuzz: bytes are refused as malformed, a record that was taken serves logins, and
// no other end of a login is accepted than the right one.
func (o *fuzzOPAQUE) fuzz(t *testing.T, b []byte) {
	if _, err := o.server.RegistrationResponse(b, o.id); err != nil && !errors.Is(err, pake.ErrMalformed) {
		t.Error(err)
	}
	if _, _, err := o.server.LoginStart(b, o.parsed, o.id); err != nil && !errors.Is(err, pake.ErrMalformed) {
		t.Error(err)
	}
	parsed, err := o.server.ParseRecord(b)
	if err != nil && !errors.Is(err, pake.ErrMalformed) {
		t.Error(err)
	}
	if err == nil { // whatever was uploaded must not fail a later login start
		if _, _, err := o.server.LoginStart(o.ke1, parsed, o.id); err != nil {
			t.Error(err)
		}
	}
	if _, err := o.server.LoginFinish(o.state, b); err == nil && !bytes.Equal(b, o.ke3) {
		t.Error("another KE3 was accepted")
	}
}
