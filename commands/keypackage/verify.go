package keypackage

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"fmt"
	"slices"
	"time"

	"github.com/cloudflare/circl/sign/ed448"
)

// MaxLifetime is the longest total lifetime: 84 days, and the hour by which
// clients date not_before back so that others whose clocks are late accept it.
const MaxLifetime = 84*24*time.Hour + time.Hour

// Verify checks everything that does not depend on the time (RFC 9420, sections
// 7.2, 7.3 and 10.1, as far as they do not speak of a group): keys, capabilities,
// extensions and both signatures. It costs two verifications of the suite's
// signature scheme. Errors: ErrSuite, ErrKey, ErrLeaf, ErrExtension, ErrSignature.
func (k *KeyPackage) Verify() error {
	a, known := suites[k.Suite]
	if !known {
		return fmt.Errorf("%w: 0x%04x", ErrSuite, uint16(k.Suite))
	}
	for _, check := range []func(*algorithms) error{k.checkKeys, k.checkCapabilities, k.checkExtensions, k.checkSignatures} {
		if err := check(&a); err != nil {
			return err
		}
	}
	return nil
}

func (k *KeyPackage) checkKeys(a *algorithms) error {
	if err := a.checkKEMKey(k.InitKey, "init_key"); err != nil {
		return err
	}
	if err := a.checkKEMKey(k.EncryptionKey, "encryption_key"); err != nil {
		return err
	}
	if bytes.Equal(k.InitKey, k.EncryptionKey) {
		return fmt.Errorf("%w: init_key and encryption_key are the same", ErrKey)
	}
	return nil
}

// checkCapabilities holds the leaf against itself: whoever can't do what the
// package says of its maker could not be added by it.
func (k *KeyPackage) checkCapabilities(*algorithms) error {
	switch {
	case !k.versions.has(versionMLS10):
		return fmt.Errorf("%w: its capabilities do not list mls10", ErrLeaf)
	case !k.suites.has(uint16(k.Suite)):
		return fmt.Errorf("%w: its capabilities do not list the package's cipher suite", ErrLeaf)
	case !k.credentials.has(k.credential):
		return fmt.Errorf("%w: its capabilities do not list the type of its credential", ErrLeaf)
	}
	return nil
}

// checkExtensions: those of the leaf must be supported by it (section 7.3). Those
// of the package itself may be unknown to everybody (GREASE, section 13.5), so
// they are only counted.
func (k *KeyPackage) checkExtensions(*algorithms) error {
	for _, t := range k.leafExtensions {
		if t > lastDefaultExtension && !k.types.has(t) {
			return fmt.Errorf("%w: the leaf has one of type %d and does not support it", ErrExtension, t)
		}
	}
	for _, list := range [][]uint16{k.leafExtensions, k.extensions} {
		list = slices.Clone(list)
		slices.Sort(list)
		if len(slices.Compact(list)) != len(list) {
			return fmt.Errorf("%w: two of the same type", ErrExtension)
		}
	}
	return nil
}

func (k *KeyPackage) checkSignatures(a *algorithms) error {
	if !a.scheme.verify(k.SignatureKey, "LeafNodeTBS", k.leafTBS, k.leafSignature) {
		return fmt.Errorf("%w: that of the leaf node", ErrSignature)
	}
	if !a.scheme.verify(k.SignatureKey, "KeyPackageTBS", k.tbs, k.signature) {
		return fmt.Errorf("%w: that of the KeyPackage", ErrSignature)
	}
	return nil
}

// CheckLifetime checks that a time, Unix milliseconds, lies in the package's
// lifetime, and that this is not longer than MaxLifetime. Error: ErrLifetime.
func (k *KeyPackage) CheckLifetime(nowMS uint64) error {
	now := nowMS / 1000
	switch {
	case k.NotAfter < k.NotBefore || k.NotAfter-k.NotBefore > uint64(MaxLifetime/time.Second):
		return fmt.Errorf("%w: it must not be longer than 84 days", ErrLifetime)
	case now < k.NotBefore:
		return fmt.Errorf("%w: it has not begun", ErrLifetime)
	case now >= k.NotAfter:
		return fmt.Errorf("%w: it is over", ErrLifetime)
	}
	return nil
}

// Ref is the KeyPackageRef (section 5.2): by it a Welcome names the package that
// it answers. It is 32, 48 or 64 bytes long, and nil for a suite that is not known.
func (k *KeyPackage) Ref() []byte {
	a, known := suites[k.Suite]
	if !known {
		return nil
	}
	return refHash(a.hash, "MLS 1.0 KeyPackage Reference", k.Raw)
}

func refHash(hash crypto.Hash, label string, value []byte) []byte {
	h := hash.New()
	h.Write(appendVector(nil, []byte(label)))
	h.Write(appendVector(nil, value))
	return h.Sum(nil)
}

// scheme is a signature scheme of RFC 8446, section 4.2.3.
type scheme uint8

const (
	schemeEd25519 scheme = 1 + iota
	schemeEd448
	schemeP256
	schemeP384
	schemeP521
)

// verify is VerifyWithLabel (section 5.1.2); false also for a key that is none.
func (s scheme) verify(key []byte, label string, content, signature []byte) bool {
	signed := appendVector(nil, []byte("MLS 1.0 "+label))
	signed = appendVector(signed, content)
	switch s {
	case schemeEd25519:
		return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, signed, signature)
	case schemeEd448:
		return len(key) == ed448.PublicKeySize && ed448.Verify(key, signed, signature, "")
	case schemeP256:
		return verifyECDSA(elliptic.P256(), crypto.SHA256, key, signed, signature)
	case schemeP384:
		return verifyECDSA(elliptic.P384(), crypto.SHA384, key, signed, signature)
	case schemeP521:
		return verifyECDSA(elliptic.P521(), crypto.SHA512, key, signed, signature)
	}
	return false
}

// verifyECDSA checks a DER signature under an uncompressed point.
func verifyECDSA(curve elliptic.Curve, hash crypto.Hash, key, signed, signature []byte) bool {
	public, err := ecdsa.ParseUncompressedPublicKey(curve, key)
	if err != nil {
		return false
	}
	h := hash.New()
	h.Write(signed)
	return ecdsa.VerifyASN1(public, h.Sum(nil), signature)
}
