package statement

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"

	pb "quicprochat/proto/qpcv1"
)

// LabelKeySet is the label of a KeySet.
const LabelKeySet = "qpc-keyset-v1"

const (
	// KEMXWing is the HPKE KEM id of X25519+ML-KEM-768 as X-Wing.
	KEMXWing = 0x647a
	// HybridKeySize is the length of an X-Wing public key in bytes.
	HybridKeySize = 1216
	// MaxDeviceKeys bounds the devices in one KeySet.
	MaxDeviceKeys = 256
)

var (
	// ErrKeySet is in the chain of errors about a KeySet's fields.
	ErrKeySet = errors.New("invalid KeySet")
	// ErrKeySetVersion is in the chain of errors about a KeySet that is not the
	// successor of the one before.
	ErrKeySetVersion = errors.New("not the successor of the current KeySet")
)

// KeySetBytes is what the identity key signs: all fields of ks but the
// signature, in their order, with previous_hash as it stands (empty at version
// 0) and the device keys as their count and one field each. It encodes any
// value: VerifyKeySet says whether ks is well-formed.
func KeySetBytes(serverName string, ks *pb.KeySet) []byte {
	e := begin(LabelKeySet, serverName).bytes(ks.GetIdentityKey()).uint32(ks.GetVersion()).
		bytes(ks.GetPreviousHash()).uint32(uint32(len(ks.GetDeviceKeys())))
	for _, key := range ks.GetDeviceKeys() {
		e = e.bytes(key)
	}
	return e.uint32(ks.GetKemId()).bytes(ks.GetHybridKey()).uint64(ks.GetTimeMs())
}

// KeySetHash is the SHA-256 of KeySetBytes: previous_hash of the next version.
func KeySetHash(serverName string, ks *pb.KeySet) [32]byte {
	return sha256.Sum256(KeySetBytes(serverName, ks))
}

// SignKeySet sets the signature of ks; key must belong to its identity key.
func SignKeySet(serverName string, ks *pb.KeySet, key ed25519.PrivateKey) {
	ks.Signature = ed25519.Sign(key, KeySetBytes(serverName, ks))
}

// VerifyKeySet checks a KeySet by itself: sizes, canonical keys, no key twice, at
// least one device in version 0, a hybrid key exactly where kem_id names one,
// nothing unsigned beside the fields, and the identity key's signature. It does
// not look into the hybrid key, nor at the version before: VerifySuccessor does.
// Errors wrap ErrKeySet, ErrKey or ErrSignature.
func VerifyKeySet(serverName string, ks *pb.KeySet) error {
	if err := checkKeySet(ks); err != nil {
		return err
	}
	if err := checkKeys(ks); err != nil {
		return err
	}
	return verify(LabelKeySet, KeySetBytes(serverName, ks), ks.GetIdentityKey(), ks.GetSignature())
}

func checkKeySet(ks *pb.KeySet) error {
	if ks == nil {
		return fmt.Errorf("%w: absent", ErrKeySet)
	}
	// What is stored and shown to others must be what was signed.
	if len(ks.ProtoReflect().GetUnknown()) > 0 {
		return fmt.Errorf("%w: it has unknown fields", ErrKeySet)
	}
	wantHash := sha256.Size
	if ks.GetVersion() == 0 {
		wantHash = 0
	}
	if n := len(ks.GetPreviousHash()); n != wantHash {
		return fmt.Errorf("%w: previous_hash of %d bytes in version %d", ErrKeySet, n, ks.GetVersion())
	}
	if t := ks.GetTimeMs(); t == 0 || t > math.MaxInt64 {
		return fmt.Errorf("%w: time_ms %d", ErrKeySet, t)
	}
	switch n := len(ks.GetHybridKey()); {
	case ks.GetKemId() == 0 && n == 0:
	case ks.GetKemId() == KEMXWing && n == HybridKeySize:
	default:
		return fmt.Errorf("%w: kem_id 0x%04x with a hybrid key of %d bytes", ErrKeySet, ks.GetKemId(), n)
	}
	return nil
}

func checkKeys(ks *pb.KeySet) error {
	keys := ks.GetDeviceKeys()
	if len(keys) > MaxDeviceKeys || len(keys) == 0 && ks.GetVersion() == 0 {
		return fmt.Errorf("%w: %d device keys in version %d", ErrKeySet, len(keys), ks.GetVersion())
	}
	if err := ValidatePublicKey(ks.GetIdentityKey()); err != nil {
		return fmt.Errorf("identity key: %w", err)
	}
	seen := make(map[string]bool, len(keys))
	for i, key := range keys {
		if err := ValidatePublicKey(key); err != nil {
			return fmt.Errorf("device key %d: %w", i, err)
		}
		if seen[string(key)] {
			return fmt.Errorf("%w: device key %d stands twice", ErrKeySet, i)
		}
		seen[string(key)] = true
	}
	return nil
}

// VerifySuccessor checks that next follows current: the same identity key, the
// version after it, its hash. It verifies neither signature. Times may go back:
// a device whose clock ran ahead once must not lock the identity. Errors wrap
// ErrKeySetVersion, or ErrKeySet for another identity.
func VerifySuccessor(serverName string, current, next *pb.KeySet) error {
	hash := KeySetHash(serverName, current)
	switch {
	case !bytes.Equal(current.GetIdentityKey(), next.GetIdentityKey()):
		return fmt.Errorf("%w: of another identity", ErrKeySet)
	case uint64(next.GetVersion()) != uint64(current.GetVersion())+1:
		return fmt.Errorf("%w: version %d after %d", ErrKeySetVersion, next.GetVersion(), current.GetVersion())
	case !bytes.Equal(next.GetPreviousHash(), hash[:]):
		return fmt.Errorf("%w: previous_hash is not the hash of version %d", ErrKeySetVersion, current.GetVersion())
	}
	return nil
}
