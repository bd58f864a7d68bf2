package datadir

import (
	"crypto/ecdsa"
	"crypto/ed25519"
)

// Secrets are what the server must keep over restarts and never show. They
// lie as 0600 files in secrets/, never in the log.
type Secrets struct {
	// CAKey signs the server's own certificates (ECDSA P-256).
	CAKey *ecdsa.PrivateKey
	// LogKey signs the log's checkpoints; its public half stands in CONFIG.
	LogKey ed25519.PrivateKey
	// VRFSeed is the secret of the key-transparency VRF (RFC 9381).
	VRFSeed [32]byte
	// OPAQUE is the password protocol's key material (RFC 9807).
	OPAQUE OPAQUE
}

// OPAQUE is one version of the server's OPAQUE key material. It can't rotate
// without every user registering anew, therefore the version stands in each
// user's record.
type OPAQUE struct {
	// Version that records made with this material carry; from 1.
	Version uint32
	// Seed of the OPRF keys, 64 bytes; other keys derive from it by HKDF.
	Seed []byte
	// PrivateKey and PublicKey of the AKE, ristretto255, 32 bytes each.
	PrivateKey, PublicKey []byte
	// FakeRecord is a RegistrationRecord (192 bytes) that answers for unknown
	// names, stored once so that they look alike before and after a restart.
	FakeRecord []byte
}
