// Package seal turns a text for a person into an opaque payload and back.
//
// A payload is sealed for the recipient's hybrid key (HPKE with X-Wing, so that
// it stays closed even to somebody who records it today and has a quantum
// computer later) and signed inside by a device key of the sender:
//
//	payload    = 0x01 ‖ enc[1120] ‖ ciphertext
//	ciphertext = HPKE.Seal(KEM 0x647a, HKDF-SHA256, AES-256-GCM,
//	             info = "qpc-sealed-v1" ‖ 0x00 ‖ server_name ‖ 0x00 ‖ recipient identity key)
//	plaintext  = u32 length ‖ SealedContent (proto/qpc/v1/sealed.proto) ‖ zeros up to a multiple of 256 bytes
//
// The package holds no state and does no I/O: who asks for the sender's key,
// remembers it, and drops ids seen before, is the caller.
package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

const (
	// KEMID is the HPKE KEM of hybrid keys: X-Wing, X25519 + ML-KEM-768.
	KEMID = 0x647a
	// HybridKeySize is the length of a hybrid public key in bytes.
	HybridKeySize = 1216
	// MaxPlaintext is the longest text that one payload carries, in bytes.
	MaxPlaintext = 1 << 20 / 2

	version      = 0x01
	encapsulated = 1120
	paddingStep  = 256
)

var (
	// ErrNotForUs means that none of the given keys opens the payload.
	ErrNotForUs = errors.New("seal: the payload is not sealed for a key of this home")
	// ErrMalformed means that the payload is no sealed message.
	ErrMalformed = errors.New("seal: not a sealed message")
	// ErrSignature means that the message was altered, or was not signed by the
	// device key it names.
	ErrSignature = errors.New("seal: the signature does not verify")
	// ErrForeignDevice means that the signing device key is not listed in the
	// KeySet of the identity it claims.
	ErrForeignDevice = errors.New("seal: the signing device is not listed by the sender's identity")
)

// HybridKey is the secret half of a hybrid key.
type HybridKey struct{ private hpke.PrivateKey }

// NewHybridKey derives the key pair from its 32-byte seed.
func NewHybridKey(seed [32]byte) (*HybridKey, error) {
	private, err := hpke.MLKEM768X25519().NewPrivateKey(seed[:])
	if err != nil {
		return nil, fmt.Errorf("seal: hybrid key: %w", err)
	}
	return &HybridKey{private}, nil
}

// Public returns the hybrid public key, HybridKeySize bytes, as a KeySet
// carries it.
func (k *HybridKey) Public() []byte { return k.private.PublicKey().Bytes() }

// Sender is who writes.
type Sender struct {
	// ServerName is the name that the client was configured with.
	ServerName string
	// Username is canonical; the recipient resolves it.
	Username    string
	IdentityKey ed25519.PublicKey
	// Device signs; its public half stands in the sender's KeySet.
	Device ed25519.PrivateKey
}

// Draft is what is written: the id is 16 random bytes, the time Unix
// milliseconds of the sender's clock. Within a channel it names that, 16 bytes.
type Draft struct {
	ID        [16]byte
	TimeMS    uint64
	Text      []byte
	ChannelID []byte
}

// Seal closes a draft for the identity that the KeySet belongs to. The caller
// has verified the KeySet. Errors: a KeySet without a hybrid key, a text over
// MaxPlaintext.
func Seal(from Sender, to *pb.KeySet, draft Draft) ([]byte, error) {
	if to.GetKemId() != KEMID {
		return nil, fmt.Errorf("seal: the recipient has published no hybrid key (kem_id %#x)", to.GetKemId())
	}
	if len(draft.Text) > MaxPlaintext {
		return nil, fmt.Errorf("seal: a text of %d bytes; at most %d fit", len(draft.Text), MaxPlaintext)
	}
	public, err := hpke.MLKEM768X25519().NewPublicKey(to.GetHybridKey())
	if err != nil {
		return nil, fmt.Errorf("seal: the recipient's hybrid key: %w", err)
	}
	content := &pb.SealedContent{
		Sender:               from.Username,
		SenderIdentityKey:    from.IdentityKey,
		SenderDeviceKey:      from.Device.Public().(ed25519.PublicKey),
		RecipientIdentityKey: to.GetIdentityKey(),
		ChannelId:            draft.ChannelID,
		Id:                   draft.ID[:],
		TimeMs:               draft.TimeMS,
		Plaintext:            draft.Text,
	}
	content.Signature = signed(from.ServerName, content).Sign(from.Device)
	plaintext, err := marshalPadded(content)
	if err != nil {
		return nil, err
	}
	sealed, err := hpke.Seal(public, hpke.HKDFSHA256(), hpke.AES256GCM(), info(from.ServerName, to.GetIdentityKey()), plaintext)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return append([]byte{version}, sealed...), nil
}

// Open opens a payload with the first of the keys that fits, checks for whom it
// was written and that the device key it names signed it. That the device
// belongs to the claimed identity is checked by VerifySender, with a KeySet
// that the caller trusts.
func Open(serverName string, identity ed25519.PublicKey, keys []*HybridKey, payload []byte) (*pb.SealedContent, error) {
	if len(payload) < 1+encapsulated || payload[0] != version {
		return nil, ErrMalformed
	}
	plaintext, err := openWithAny(keys, info(serverName, identity), payload[1:])
	if err != nil {
		return nil, err
	}
	content, err := parsePadded(plaintext)
	if err != nil {
		return nil, err
	}
	if len(content.GetId()) != 16 || content.GetSender() == "" {
		return nil, ErrMalformed
	}
	if !bytes.Equal(content.GetRecipientIdentityKey(), identity) {
		return nil, ErrNotForUs
	}
	if err := signed(serverName, content).Verify(content.GetSenderDeviceKey(), content.GetSignature()); err != nil {
		return nil, ErrSignature
	}
	return content, nil
}

func openWithAny(keys []*HybridKey, info, sealed []byte) ([]byte, error) {
	for _, key := range keys {
		plaintext, err := hpke.Open(key.private, hpke.HKDFSHA256(), hpke.AES256GCM(), info, sealed)
		if err == nil {
			return plaintext, nil
		}
	}
	return nil, ErrNotForUs
}

// VerifySender checks that a verified KeySet, found under the sender's name,
// lists the device key that signed and belongs to the identity that is claimed.
func VerifySender(content *pb.SealedContent, keyset *pb.KeySet) error {
	if !bytes.Equal(content.GetSenderIdentityKey(), keyset.GetIdentityKey()) {
		return ErrForeignDevice
	}
	for _, device := range keyset.GetDeviceKeys() {
		if bytes.Equal(device, content.GetSenderDeviceKey()) {
			return nil
		}
	}
	return ErrForeignDevice
}

// signed is the statement qpc-message-v1 over the content, whose id has 16 bytes.
func signed(serverName string, c *pb.SealedContent) statement.Message {
	return statement.Message{
		ServerName:    serverName,
		SenderKey:     c.GetSenderIdentityKey(),
		DeviceKey:     c.GetSenderDeviceKey(),
		RecipientKey:  c.GetRecipientIdentityKey(),
		ChannelID:     c.GetChannelId(),
		ID:            [16]byte(c.GetId()),
		TimeMS:        c.GetTimeMs(),
		PlaintextHash: sha256.Sum256(c.GetPlaintext()),
	}
}

func info(serverName string, recipient []byte) []byte {
	info := append([]byte("qpc-sealed-v1\x00"), serverName...)
	return append(append(info, 0), recipient...)
}

// marshalPadded rounds the length up, so that it tells less about the text.
func marshalPadded(content proto.Message) ([]byte, error) {
	size := proto.Size(content)
	padded := (4 + size + paddingStep - 1) / paddingStep * paddingStep
	plaintext := binary.BigEndian.AppendUint32(make([]byte, 0, padded), uint32(size))
	plaintext, err := proto.MarshalOptions{}.MarshalAppend(plaintext, content)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return plaintext[:padded], nil
}

func parsePadded(plaintext []byte) (*pb.SealedContent, error) {
	content := new(pb.SealedContent)
	return content, unmarshalPadded(plaintext, content)
}

// unmarshalPadded is the inverse of marshalPadded; anything else is ErrMalformed.
func unmarshalPadded(plaintext []byte, content proto.Message) error {
	if len(plaintext) < 4 || len(plaintext)%paddingStep != 0 {
		return ErrMalformed
	}
	size := binary.BigEndian.Uint32(plaintext)
	if uint64(size) > uint64(len(plaintext)-4) {
		return ErrMalformed
	}
	body, padding := plaintext[4:4+size], plaintext[4+size:]
	if len(padding) >= paddingStep || len(bytes.Trim(padding, "\x00")) > 0 {
		return ErrMalformed
	}
	if err := proto.Unmarshal(body, content); err != nil {
		return ErrMalformed
	}
	return nil
}
