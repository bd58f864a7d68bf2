package auth

import (
	"bytes"
	"errors"
	"testing"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
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

func FuzzChallengeOpen(f *testing.F) {
	s := testSealer(f, 1, "chat.example.org")
	f.Add(s.seal(commands.Challenge{Username: "alice"}, 0))
	f.Add([]byte{})
	f.Add(make([]byte, 28))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := s.open(b, 0)
		if err == nil && len(b) != 12+challengeHeader+len(c.Username)+16 {
			t.Errorf("opened %x as %v", b, c)
		}
	})
}
