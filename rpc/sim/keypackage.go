package sim

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// KeyPackage is an MLS KeyPackage (RFC 9420, section 10) as a client makes one,
// with every field open to be spoiled before it is signed. It is written without
// the server's reader.
type KeyPackage struct {
	Version, Suite         uint16
	InitKey, EncryptionKey []byte
	SignatureKey           []byte
	CredentialType         uint16
	Credential             []byte
	// Capabilities.
	Versions, Suites, Types, Proposals, Credentials []uint16
	Source                                          byte
	NotBefore, NotAfter                             uint64 // Unix seconds
	LeafExtensions, Extensions                      []Extension
}

// Extension is one extension of a KeyPackage or of its leaf.
type Extension struct {
	Type uint16
	Data []byte
}

// LastResort marks a KeyPackage that may be handed out more than once.
var LastResort = Extension{Type: 10}

// NewKeyPackage makes a valid KeyPackage of a device: not signed yet, with keys
// that follow from name, alive from an hour before now for four weeks.
func NewKeyPackage(device ed25519.PublicKey, suite uint16, name string, now time.Time) *KeyPackage {
	initKey, encryptionKey := sha256.Sum256([]byte("init "+name)), sha256.Sum256([]byte("encryption "+name))
	return &KeyPackage{
		Version: 1, Suite: suite, InitKey: initKey[:], EncryptionKey: encryptionKey[:], SignatureKey: device,
		CredentialType: 1, Credential: []byte(name),
		Versions: []uint16{1}, Suites: []uint16{suite, 0x1a1a}, Types: []uint16{10, 0x2a2a}, Credentials: []uint16{1},
		Source: 1, NotBefore: uint64(now.Add(-time.Hour).Unix()), NotAfter: uint64(now.Add(28 * 24 * time.Hour).Unix()),
	}
}

// Sign is the KeyPackage as bytes, signed by the device.
func (k *KeyPackage) Sign(device ed25519.PrivateKey) []byte {
	leaf := appendOpaque(nil, k.EncryptionKey)
	leaf = appendOpaque(leaf, k.SignatureKey)
	leaf = binary.BigEndian.AppendUint16(leaf, k.CredentialType)
	leaf = appendOpaque(leaf, k.Credential)
	for _, list := range [][]uint16{k.Versions, k.Suites, k.Types, k.Proposals, k.Credentials} {
		var numbers []byte
		for _, n := range list {
			numbers = binary.BigEndian.AppendUint16(numbers, n)
		}
		leaf = appendOpaque(leaf, numbers)
	}
	leaf = append(leaf, k.Source)
	leaf = binary.BigEndian.AppendUint64(leaf, k.NotBefore)
	leaf = binary.BigEndian.AppendUint64(leaf, k.NotAfter)
	leaf = appendExtensions(leaf, k.LeafExtensions)
	leaf = appendOpaque(leaf, signWithLabel(device, "LeafNodeTBS", leaf))

	raw := binary.BigEndian.AppendUint16(nil, k.Version)
	raw = binary.BigEndian.AppendUint16(raw, k.Suite)
	raw = appendOpaque(raw, k.InitKey)
	raw = append(raw, leaf...)
	raw = appendExtensions(raw, k.Extensions)
	return appendOpaque(raw, signWithLabel(device, "KeyPackageTBS", raw))
}

// signWithLabel is SignWithLabel of RFC 9420, section 5.1.2.
func signWithLabel(key ed25519.PrivateKey, label string, content []byte) []byte {
	return ed25519.Sign(key, appendOpaque(appendOpaque(nil, []byte("MLS 1.0 "+label)), content))
}

func appendExtensions(dst []byte, list []Extension) []byte {
	var all []byte
	for _, e := range list {
		all = appendOpaque(binary.BigEndian.AppendUint16(all, e.Type), e.Data)
	}
	return appendOpaque(dst, all)
}

// appendOpaque writes opaque<V> of RFC 9420, section 2.1.2.
func appendOpaque(dst, content []byte) []byte {
	switch n := len(content); {
	case n < 1<<6:
		dst = append(dst, byte(n))
	case n < 1<<14:
		dst = append(dst, 0x40|byte(n>>8), byte(n))
	default:
		dst = append(dst, 0x80|byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(dst, content...)
}
