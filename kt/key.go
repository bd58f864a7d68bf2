package kt

import "quicprochat/kt/statement"

// ValidatePublicKey checks an Ed25519 public key that somebody else chose:
// statement.ValidatePublicKey. Errors wrap statement.ErrKey.
func ValidatePublicKey(key []byte) error { return statement.ValidatePublicKey(key) }
