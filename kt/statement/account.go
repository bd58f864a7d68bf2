package statement

import "crypto/ed25519"

// Labels of the statements about accounts.
const (
	LabelRegister = "qpc-register-v1"
	LabelLogin    = "qpc-login-v1"
	LabelDevice   = "qpc-device-v1"
)

// Register ties a name, an OPAQUE record and an identity key together. The
// identity key signs it at registration; at a password change the device key of
// the session does.
type Register struct {
	ServerName string
	// Username in canonical form.
	Username string
	// UploadHash is the SHA-256 of the OPAQUE RegistrationRecord.
	UploadHash [32]byte
	// IdentityKey is the account's Ed25519 key, 32 bytes.
	IdentityKey []byte
	// Challenge as the server gave it; opaque to the client.
	Challenge []byte
}

// Bytes is what is signed.
func (s Register) Bytes() []byte {
	return begin(LabelRegister, s.ServerName).text(s.Username).bytes(s.UploadHash[:]).
		bytes(s.IdentityKey).bytes(s.Challenge)
}

// Sign returns the signature of key, 64 bytes.
func (s Register) Sign(key ed25519.PrivateKey) []byte { return ed25519.Sign(key, s.Bytes()) }

// Verify checks the signature of key. Which key must have signed is the
// caller's to know. Errors wrap ErrKey or ErrSignature.
func (s Register) Verify(key, sig []byte) error {
	return verify(LabelRegister, s.Bytes(), key, sig)
}

// Login proves possession of a key in one login.
type Login struct {
	ServerName string
	// Username in canonical form.
	Username string
	// LoginID is the server's one-shot number of the login, 16 bytes.
	LoginID []byte
	// TranscriptHash is the SHA-256 of KE1 ‖ KE2 ‖ KE3 (RFC 9807).
	TranscriptHash [32]byte
	// Key is the Ed25519 key that logs in, 32 bytes; it signs.
	Key []byte
}

// Bytes is what is signed.
func (s Login) Bytes() []byte {
	return begin(LabelLogin, s.ServerName).text(s.Username).bytes(s.LoginID).
		bytes(s.TranscriptHash[:]).bytes(s.Key)
}

// Sign returns the signature of key, 64 bytes; key must belong to s.Key.
func (s Login) Sign(key ed25519.PrivateKey) []byte { return ed25519.Sign(key, s.Bytes()) }

// Verify checks the signature of key, which must be s.Key. Errors wrap ErrKey or
// ErrSignature.
func (s Login) Verify(key, sig []byte) error {
	return verifyBy(s.Key, LabelLogin, s.Bytes(), key, sig)
}

// Device is a device key's consent to belong to an identity; it is used once.
type Device struct {
	ServerName string
	// IdentityKey is the account's Ed25519 key, 32 bytes.
	IdentityKey []byte
	// DeviceKey is the device's Ed25519 key, 32 bytes; it signs.
	DeviceKey []byte
}

// Bytes is what is signed.
func (s Device) Bytes() []byte {
	return begin(LabelDevice, s.ServerName).bytes(s.IdentityKey).bytes(s.DeviceKey)
}

// Sign returns the signature of key, 64 bytes; key must belong to s.DeviceKey.
func (s Device) Sign(key ed25519.PrivateKey) []byte { return ed25519.Sign(key, s.Bytes()) }

// Verify checks the signature of key, which must be s.DeviceKey. Errors wrap
// ErrKey or ErrSignature.
func (s Device) Verify(key, sig []byte) error {
	return verifyBy(s.DeviceKey, LabelDevice, s.Bytes(), key, sig)
}
