package keypackage

import (
	"crypto"
	"crypto/ecdh"
	_ "crypto/sha256" // the hashes of the suites
	_ "crypto/sha512"
	"fmt"
)

// Suite is the number of a cipher suite (RFC 9420, section 17.1).
type Suite uint16

// The suites that this package reads, by their names in the registry.
const (
	X25519AES128Ed25519   Suite = 1 // MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519
	P256AES128P256        Suite = 2 // MLS_128_DHKEMP256_AES128GCM_SHA256_P256
	X25519ChaCha20Ed25519 Suite = 3 // MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519
	X448AES256Ed448       Suite = 4 // MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448
	P521AES256P521        Suite = 5 // MLS_256_DHKEMP521_AES256GCM_SHA512_P521
	X448ChaCha20Ed448     Suite = 6 // MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448
	P384AES256P384        Suite = 7 // MLS_256_DHKEMP384_AES256GCM_SHA384_P384
)

// algorithms are what a suite's name stands for, as far as a KeyPackage shows it.
type algorithms struct {
	name   string
	hash   crypto.Hash
	scheme scheme
	// kemKeySize is the length of init_key and encryption_key in bytes (RFC 9180,
	// section 7.1); curve checks those that are points of a NIST curve.
	kemKeySize int
	curve      ecdh.Curve
}

var suites = map[Suite]algorithms{
	X25519AES128Ed25519:   {"MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519", crypto.SHA256, schemeEd25519, 32, nil},
	P256AES128P256:        {"MLS_128_DHKEMP256_AES128GCM_SHA256_P256", crypto.SHA256, schemeP256, 65, ecdh.P256()},
	X25519ChaCha20Ed25519: {"MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519", crypto.SHA256, schemeEd25519, 32, nil},
	X448AES256Ed448:       {"MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448", crypto.SHA512, schemeEd448, 56, nil},
	P521AES256P521:        {"MLS_256_DHKEMP521_AES256GCM_SHA512_P521", crypto.SHA512, schemeP521, 133, ecdh.P521()},
	X448ChaCha20Ed448:     {"MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448", crypto.SHA512, schemeEd448, 56, nil},
	P384AES256P384:        {"MLS_256_DHKEMP384_AES256GCM_SHA384_P384", crypto.SHA384, schemeP384, 97, ecdh.P384()},
}

// Known reports whether this package can read KeyPackages of the suite.
func (s Suite) Known() bool { _, known := suites[s]; return known }

// SignsWithEd25519 reports whether signature keys of the suite are Ed25519 keys,
// as the device keys of this server are.
func (s Suite) SignsWithEd25519() bool { return s.Known() && suites[s].scheme == schemeEd25519 }

// String is the suite's name in the registry, or its number where it is not known.
func (s Suite) String() string {
	if a, known := suites[s]; known {
		return a.name
	}
	return fmt.Sprintf("cipher suite 0x%04x", uint16(s))
}

// checkKEMKey checks a public key of the suite's KEM as far as its encoding goes:
// every 32 or 56 bytes are a key of X25519 or X448.
func (a *algorithms) checkKEMKey(key []byte, field string) error {
	if len(key) != a.kemKeySize {
		return fmt.Errorf("%w: %s has %d bytes, those of %s have %d", ErrKey, field, len(key), a.name, a.kemKeySize)
	}
	if a.curve == nil {
		return nil
	}
	if _, err := a.curve.NewPublicKey(key); err != nil {
		return fmt.Errorf("%w: %s is no point of the curve of %s", ErrKey, field, a.name)
	}
	return nil
}
