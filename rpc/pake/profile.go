package pake

import (
	"errors"
	"fmt"

	"github.com/bytemare/opaque"
)

// Sizes of messages and keys in bytes (RFC 9807 §6 with ristretto255-SHA512).
const (
	RegistrationRequestSize  = 32
	RegistrationResponseSize = 64
	RecordSize               = 192
	KE1Size                  = 96
	KE2Size                  = 320
	KE3Size                  = 64

	// SessionKeySize is the size of the key that a login gives both ends.
	SessionKeySize = 64
	// ExportKeySize is the size of the key that only the client derives, the
	// same at registration and at each login with that password.
	ExportKeySize = 64
	// CredentialIDSize is the size of the identifier under which the OPRF key of
	// a record is derived.
	CredentialIDSize = 32
)

var (
	// ErrMalformed: a message has the wrong size or encoding.
	ErrMalformed = errors.New("malformed OPAQUE message")
	// ErrAuthentication: the password, the record or the server's key is not
	// the one that was registered; which of them can't be told.
	ErrAuthentication = errors.New("OPAQUE authentication failed")
	// ErrMaterial: the server's key material is damaged.
	ErrMaterial = errors.New("invalid OPAQUE key material")
	// ErrUsed: a registration or login was finished before; each serves once.
	ErrUsed = errors.New("OPAQUE state was already used")
)

// profile is the only configuration: context nil, identities nil. Identities are
// always passed as nil; an empty slice would be another identity.
func profile() *opaque.Configuration { return opaque.DefaultConfiguration() }

// checkSize is called with every message before it is decoded.
func checkSize(name string, b []byte, want int) error {
	if len(b) != want {
		return fmt.Errorf("%w: %s of %d bytes, want %d", ErrMalformed, name, len(b), want)
	}
	return nil
}

// KSF is the key stretching that makes guessing a password expensive. The zero
// value is the profile's: Argon2id with t = 3, m = 64 MiB, p = 4.
type KSF struct {
	cheap bool
}

// InsecureKSF returns a stretching that costs next to nothing: for tests and
// load drivers, whose passwords protect nothing. Registration and logins of one
// account must use the same KSF; it is not interoperable with other clients.
func InsecureKSF() KSF { return KSF{cheap: true} }

// options returns what must be passed both to RegistrationFinalize and to
// GenerateKE3: the library's own defaults are another salt and length.
func (k KSF) options() *opaque.ClientOptions {
	parameters := []uint64{3, 64 << 10, 4} // passes, KiB, lanes
	if k.cheap {
		parameters = []uint64{1, 8, 1}
	}
	return &opaque.ClientOptions{
		KSFSalt:       make([]byte, 16),
		KSFParameters: parameters,
		KSFLength:     64,
	}
}
