package statement

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
)

// Labels of the statements about keys that end.
const (
	LabelRevoke    = "qpc-revoke-v1"
	LabelSuccessor = "qpc-successor-v1"
)

// RevocationReason says why a key is revoked, with the numbers of RFC 5280
// section 5.3.1.
type RevocationReason uint32

const (
	// ReasonUnspecified gives no reason.
	ReasonUnspecified RevocationReason = 0
	// ReasonKeyCompromise means that somebody else may hold the private key.
	ReasonKeyCompromise RevocationReason = 1
	// ReasonSuperseded means that another key took its place.
	ReasonSuperseded RevocationReason = 4
	// ReasonCessation means that the key is not used any more.
	ReasonCessation RevocationReason = 5
)

// Revoke takes a key out of use for ever. It carries no time, so that it can be
// made in advance and kept for the day on which the key is lost.
type Revoke struct {
	ServerName string
	// Key is the Ed25519 key that ends, 32 bytes.
	Key    []byte
	Reason RevocationReason
}

// Bytes is what is signed.
func (s Revoke) Bytes() []byte {
	return begin(LabelRevoke, s.ServerName).bytes(s.Key).uint32(uint32(s.Reason))
}

// Sign returns the signature of key, 64 bytes: the revoked key itself, or the
// identity key that it belongs to.
func (s Revoke) Sign(key ed25519.PrivateKey) []byte { return ed25519.Sign(key, s.Bytes()) }

// Verify checks the signature of key. Whether key may revoke s.Key is the
// caller's to know. Errors wrap ErrKey or ErrSignature.
func (s Revoke) Verify(key, sig []byte) error {
	return verify(LabelRevoke, s.Bytes(), key, sig)
}

// Successor hands a username from one identity key to another. Both keys sign.
type Successor struct {
	ServerName string
	// Username in canonical form.
	Username string
	// OldKey and NewKey are identity keys, Ed25519, 32 bytes.
	OldKey, NewKey []byte
	// KeySetHash is the KeySetHash of the new identity's KeySet version 0.
	KeySetHash [32]byte
}

// Bytes is what is signed.
func (s Successor) Bytes() []byte {
	return begin(LabelSuccessor, s.ServerName).text(s.Username).bytes(s.OldKey).
		bytes(s.NewKey).bytes(s.KeySetHash[:])
}

// Sign returns the signature of key, 64 bytes; key must belong to s.OldKey or
// s.NewKey.
func (s Successor) Sign(key ed25519.PrivateKey) []byte { return ed25519.Sign(key, s.Bytes()) }

// Verify checks the signature of key, which must be s.OldKey or s.NewKey: a
// hand-over needs one call for each. Errors wrap ErrKey or ErrSignature.
func (s Successor) Verify(key, sig []byte) error {
	if bytes.Equal(s.OldKey, s.NewKey) {
		return fmt.Errorf("%s: %w: the new key is the old one", LabelSuccessor, ErrKey)
	}
	if !bytes.Equal(s.OldKey, key) {
		return verifyBy(s.NewKey, LabelSuccessor, s.Bytes(), key, sig)
	}
	return verify(LabelSuccessor, s.Bytes(), key, sig)
}
