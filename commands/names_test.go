package commands_test

import "crypto/sha256"

// seedFrom derives a 32-byte seed from a name, so that keys in tests are the
// same in each run and need no storage.
func seedFrom(name string) [32]byte {
	return sha256.Sum256([]byte("qpc test seed: " + name))
}
