package statement

import "crypto/ed25519"

// Labels of the statements that travel between people.
const (
	LabelEndpoint = "qpc-endpoint-v1"
	LabelMessage  = "qpc-message-v1"
)

// Endpoint says where a device can be reached directly.
type Endpoint struct {
	ServerName string
	// IdentityKey is the account's Ed25519 key, 32 bytes.
	IdentityKey []byte
	// DeviceKey is the device's Ed25519 key, 32 bytes; it signs.
	DeviceKey []byte
	// Sequence rises with each statement of the device; the highest holds.
	Sequence uint64
	// ExpiryMS is when it ends, Unix milliseconds.
	ExpiryMS uint64
	// AddressHash is the SHA-256 of the address bytes.
	AddressHash [32]byte
}

// Bytes is what is signed.
func (s Endpoint) Bytes() []byte {
	return begin(LabelEndpoint, s.ServerName).bytes(s.IdentityKey).bytes(s.DeviceKey).
		uint64(s.Sequence).uint64(s.ExpiryMS).bytes(s.AddressHash[:])
}

// Sign returns the signature of key, 64 bytes; key must belong to s.DeviceKey.
func (s Endpoint) Sign(key ed25519.PrivateKey) []byte { return ed25519.Sign(key, s.Bytes()) }

// Verify checks the signature of key, which must be s.DeviceKey. Errors wrap
// ErrKey or ErrSignature.
func (s Endpoint) Verify(key, sig []byte) error {
	return verifyBy(s.DeviceKey, LabelEndpoint, s.Bytes(), key, sig)
}

// Message is the sender's signature inside a sealed message: who says what to
// whom. The receiver checks that DeviceKey stands unrevoked in the sender's
// KeySet and drops an ID it has seen.
type Message struct {
	ServerName string
	// SenderKey is the sender's identity key, Ed25519, 32 bytes.
	SenderKey []byte
	// DeviceKey is the sending device's Ed25519 key, 32 bytes; it signs.
	DeviceKey []byte
	// RecipientKey is the recipient's identity key, Ed25519, 32 bytes.
	RecipientKey []byte
	// ChannelID is the channel, 16 bytes; empty outside of channels.
	ChannelID []byte
	// ID is chosen by the sender at random.
	ID [16]byte
	// TimeMS is the sender's time, Unix milliseconds.
	TimeMS uint64
	// PlaintextHash is the SHA-256 of the message's text.
	PlaintextHash [32]byte
}

// Bytes is what is signed.
func (s Message) Bytes() []byte {
	return begin(LabelMessage, s.ServerName).bytes(s.SenderKey).bytes(s.DeviceKey).
		bytes(s.RecipientKey).bytes(s.ChannelID).bytes(s.ID[:]).uint64(s.TimeMS).
		bytes(s.PlaintextHash[:])
}

// Sign returns the signature of key, 64 bytes; key must belong to s.DeviceKey.
func (s Message) Sign(key ed25519.PrivateKey) []byte { return ed25519.Sign(key, s.Bytes()) }

// Verify checks the signature of key, which must be s.DeviceKey. Errors wrap
// ErrKey or ErrSignature.
func (s Message) Verify(key, sig []byte) error {
	return verifyBy(s.DeviceKey, LabelMessage, s.Bytes(), key, sig)
}
