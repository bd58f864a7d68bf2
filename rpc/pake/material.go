package pake

import (
	"bytes"
	"fmt"

	"github.com/bytemare/opaque"
)

const (
	seedSize = 64
	keySize  = 32

	// materialVersion starts the stored form, so that a later profile can't be
	// mistaken for this one.
	materialVersion = 1

	// MaterialSize is the size of Material.Marshal in bytes.
	MaterialSize = 1 + seedSize + keySize + keySize
)

// Material is what makes a server's OPAQUE records usable: whoever has it and a
// record can search for the password offline. Lost, every account must be
// registered again.
//
//	stored form:  0x01 ‖ seed (64) ‖ private key (32) ‖ public key (32)
//
// The three fields are persisted here and not by the library, whose own encoding
// can't be read back without a server identity.
type Material struct {
	// Seed is the OPRF seed from which each credential identifier's key comes.
	Seed [seedSize]byte
	// PrivateKey and PublicKey are the server's AKE key pair, a ristretto255
	// scalar and element.
	PrivateKey [keySize]byte
	PublicKey  [keySize]byte
}

// NewMaterial draws fresh key material.
func NewMaterial() *Material {
	c := profile()
	private, public := c.KeyGen()
	m := &Material{
		PrivateKey: [keySize]byte(private.Encode()),
		PublicKey:  [keySize]byte(public.Encode()),
	}
	copy(m.Seed[:], c.GenerateOPRFSeed())
	return m
}

// Marshal returns the stored form, MaterialSize bytes. It is a secret.
func (m *Material) Marshal() []byte {
	b := make([]byte, 0, MaterialSize)
	b = append(b, materialVersion)
	b = append(b, m.Seed[:]...)
	b = append(b, m.PrivateKey[:]...)
	return append(b, m.PublicKey[:]...)
}

// ParseMaterial reads the stored form and checks that the keys are valid and
// belong together. Errors are ErrMaterial.
func ParseMaterial(b []byte) (*Material, error) {
	if len(b) != MaterialSize {
		return nil, fmt.Errorf("%w: %d bytes, want %d", ErrMaterial, len(b), MaterialSize)
	}
	if b[0] != materialVersion {
		return nil, fmt.Errorf("%w: version %d, want %d", ErrMaterial, b[0], materialVersion)
	}
	m := &Material{
		Seed:       [seedSize]byte(b[1:]),
		PrivateKey: [keySize]byte(b[1+seedSize:]),
		PublicKey:  [keySize]byte(b[1+seedSize+keySize:]),
	}
	if _, err := NewServer(m); err != nil {
		return nil, err
	}
	return m, nil
}

// library converts to the library's form, which checks the keys when it is set.
func (m *Material) library(d *opaque.Deserializer) (*opaque.ServerKeyMaterial, error) {
	if bytes.Equal(m.Seed[:], make([]byte, seedSize)) {
		return nil, fmt.Errorf("%w: the seed is all zero", ErrMaterial)
	}
	private, err := d.DecodePrivateKey(m.PrivateKey[:])
	if err != nil {
		return nil, fmt.Errorf("%w: private key: %w", ErrMaterial, err)
	}
	return &opaque.ServerKeyMaterial{
		PrivateKey:     private,
		PublicKeyBytes: bytes.Clone(m.PublicKey[:]),
		OPRFGlobalSeed: bytes.Clone(m.Seed[:]),
		Identity:       nil,
	}, nil
}
