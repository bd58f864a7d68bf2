package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
)

// challengeLifetimeMS is how long a challenge of OpaqueRegisterStart is good
// for, in milliseconds.
const challengeLifetimeMS = 5 * 60 * 1000

// challengeForm starts the sealed text, so that a later form can't be mistaken
// for this one.
const challengeForm = 1

// challengeHeader is what stands before the name: form, expiry, key version,
// credential id.
const challengeHeader = 1 + 8 + 4 + commands.CredentialIDSize

// sealer makes and opens challenges:
//
//	nonce[12] ‖ AES-256-GCM( form u8 ‖ expiry_ms u64 ‖ key_version u32 ‖ credential_id[32] ‖ username ) ‖ tag[16]
//
// with the server name as additional data. The client gives it back as it got
// it, and signs it.
type sealer struct {
	aead       cipher.AEAD
	serverName []byte
}

func newSealer(key []byte, serverName string) (*sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("challenge key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("challenge key: %w", err)
	}
	return &sealer{aead: aead, serverName: []byte(serverName)}, nil
}

// seal makes the challenge for c, good until now + challengeLifetimeMS.
func (s *sealer) seal(c commands.Challenge, nowMS uint64) []byte {
	text := make([]byte, 0, challengeHeader+len(c.Username))
	text = append(text, challengeForm)
	text = binary.BigEndian.AppendUint64(text, nowMS+challengeLifetimeMS)
	text = binary.BigEndian.AppendUint32(text, c.KeyVersion)
	text = append(text, c.CredentialID[:]...)
	text = append(text, c.Username...)
	return s.aead.Seal(nil, nil, text, s.serverName)
}

// open reads a challenge. Refusal: BadRequest CHALLENGE_INVALID when it was not
// made here or has expired.
func (s *sealer) open(sealed []byte, nowMS uint64) (commands.Challenge, error) {
	text, err := s.aead.Open(nil, nil, sealed, s.serverName)
	if err != nil || len(text) < challengeHeader || text[0] != challengeForm {
		return commands.Challenge{}, commands.Refuse(pb.Status_BadRequest, pb.Reason_CHALLENGE_INVALID,
			"the challenge is not one of this server: begin again with OpaqueRegisterStart")
	}
	if expires := binary.BigEndian.Uint64(text[1:]); nowMS >= expires {
		return commands.Challenge{}, commands.Refuse(pb.Status_BadRequest, pb.Reason_CHALLENGE_INVALID,
			"the challenge has expired: begin again with OpaqueRegisterStart")
	}
	return commands.Challenge{
		KeyVersion:   binary.BigEndian.Uint32(text[9:]),
		CredentialID: [commands.CredentialIDSize]byte(text[13:]),
		Username:     string(text[challengeHeader:]),
	}, nil
}
