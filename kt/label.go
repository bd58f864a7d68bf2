package kt

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Label is where one version of one key stands in the map: the first 32 bytes of
// the VRF output over VRFInput.
type Label [32]byte

// Kind says what a key transparency entry binds. The numbers are part of the
// format and never change.
type Kind uint8

const (
	// KindAccount binds a canonical username to an identity key.
	KindAccount Kind = 1
	// KindIdentity binds an identity key to its signed KeySet.
	KindIdentity Kind = 2
	// KindRevocation marks a key as revoked; it has version 0 only.
	KindRevocation Kind = 3
)

// String names the kind as docs/formats/leaves.md does.
func (k Kind) String() string {
	switch k {
	case KindAccount:
		return "account"
	case KindIdentity:
		return "identity"
	case KindRevocation:
		return "revocation"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// VRFInput is what a label is made of, and the context of a KT leaf's
// commitment: kind u8 ‖ u16 len(id) ‖ id ‖ version u32. It panics if id is so
// long that the result is no context any more (65,528 bytes): ids are canonical
// usernames and keys.
func VRFInput(k Kind, id []byte, version uint32) []byte {
	const fixed = 1 + 2 + 4
	if len(id) > math.MaxUint16-fixed {
		panic(fmt.Sprintf("kt: VRFInput: id of %d bytes", len(id)))
	}
	b := make([]byte, 0, fixed+len(id))
	b = append(b, byte(k))
	b = binary.BigEndian.AppendUint16(b, uint16(len(id)))
	b = append(b, id...)
	return binary.BigEndian.AppendUint32(b, version)
}

// Label is the label of one version of one key, with the proof that it is.
func (k *VRFPrivateKey) Label(kind Kind, id []byte, version uint32) (Label, VRFProof) {
	proof, out := k.Prove(VRFInput(kind, id, version))
	return Label(out[:32]), proof
}

// VerifyLabel checks a label's proof and returns the label. Errors are those of
// Verify.
func (p VRFPublicKey) VerifyLabel(kind Kind, id []byte, version uint32, proof []byte) (Label, error) {
	out, err := p.Verify(VRFInput(kind, id, version), proof)
	if err != nil {
		return Label{}, err
	}
	return Label(out[:32]), nil
}
