package statement

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"

	"filippo.io/edwards25519"
)

var (
	// ErrKey is in the chain of errors about a public key that is not acceptable.
	ErrKey = errors.New("invalid Ed25519 public key")
	// ErrSignature is in the chain of errors about a signature that does not hold.
	ErrSignature = errors.New("invalid signature")
)

// ValidatePublicKey checks an Ed25519 public key that somebody else chose: 32
// bytes, the canonical encoding of a point of the curve (RFC 8032 section
// 5.1.3), not of small order. Several spellings of one key would defeat "keys
// are unique", and under a key of small order one signature fits many messages.
// Errors wrap ErrKey.
func ValidatePublicKey(key []byte) error {
	if len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("%w: %d bytes, want %d", ErrKey, len(key), ed25519.PublicKeySize)
	}
	p, err := new(edwards25519.Point).SetBytes(key)
	if err != nil {
		return fmt.Errorf("%w: not a point of the curve", ErrKey)
	}
	// The library decodes what the RFC refuses: y not below the field's prime,
	// and a sign bit on x = 0.
	if !bytes.Equal(p.Bytes(), key) {
		return fmt.Errorf("%w: not canonical", ErrKey)
	}
	if new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return fmt.Errorf("%w: of small order", ErrKey)
	}
	return nil
}

// verify checks key and signature. The statement's name stands in the error, as
// a request may carry several.
func verify(label string, message []byte, key, sig []byte) error {
	if err := ValidatePublicKey(key); err != nil {
		return fmt.Errorf("%s: %w", label, err)
	}
	if len(sig) != ed25519.SignatureSize {
		return fmt.Errorf("%s: %w: %d bytes, want %d", label, ErrSignature, len(sig), ed25519.SignatureSize)
	}
	if !ed25519.Verify(key, message, sig) {
		return fmt.Errorf("%s: %w", label, ErrSignature)
	}
	return nil
}

// verifyBy is verify for a statement that names its signer: a signature by any
// other key says nothing.
func verifyBy(signer []byte, label string, message []byte, key, sig []byte) error {
	if !bytes.Equal(signer, key) {
		return fmt.Errorf("%s: %w: the statement names another key", label, ErrSignature)
	}
	return verify(label, message, key, sig)
}
