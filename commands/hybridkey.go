package commands

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/dh/x25519"
	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
	"github.com/cloudflare/circl/kem/xwing"

	"quicprochat/kt/statement"
)

// The two ways in which 1,216 bytes are no X-Wing key, besides their number.
var (
	// ErrHybridKeyModulus: a coefficient of the ML-KEM part is not reduced
	// (FIPS 203, section 7.2, modulus check).
	ErrHybridKeyModulus = errors.New("the ML-KEM part fails the modulus check")
	// ErrHybridKeyLowOrder: the X25519 part has low order, so the classical half
	// of every shared secret would be zero (RFC 7748, section 6.1).
	ErrHybridKeyLowOrder = errors.New("the X25519 part has low order")
)

// ValidateHybridKey checks an X-Wing public key as it stands in a KeySet: its
// length, the ML-KEM encapsulation key check, and that its X25519 part is not of
// low order. X-Wing implementations check the first two when they encapsulate
// and let the third pass, so a published key must be checked for it here. It is
// pure and costs one X25519 operation.
func ValidateHybridKey(key []byte) error {
	if len(key) != statement.HybridKeySize {
		return fmt.Errorf("a hybrid key has %d bytes, not %d", statement.HybridKeySize, len(key))
	}
	var public xwing.PublicKey
	if err := public.Unpack(key); err != nil {
		return fmt.Errorf("%w: %w", ErrHybridKeyModulus, err)
	}
	// Any scalar will do: a clamped one is a multiple of the cofactor, so it
	// takes exactly the points of low order to zero.
	scalar := x25519.Key(sha256.Sum256([]byte("qpc: low order probe")))
	point := x25519.Key(key[mlkem768.PublicKeySize:])
	var shared x25519.Key
	if !x25519.Shared(&shared, &scalar, &point) || shared == (x25519.Key{}) {
		return ErrHybridKeyLowOrder
	}
	return nil
}
