package kt

import (
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"

	"filippo.io/edwards25519"
)

// The VRF is ECVRF-EDWARDS25519-SHA512-TAI of RFC 9381: suite_string 0x03,
// cofactor 8, points and scalars of 32 bytes, challenges of 16. Who holds the
// private key can compute the one output for an input and prove it; who does not
// can check the proof but learns nothing about the output of any other input.
const (
	vrfSuite         = 0x03
	vrfChallengeSize = 16

	// Domain separators of RFC 9381: front (5.4.1.1, 5.4.3, 5.2) and back.
	vrfEncodeFront    = 0x01
	vrfChallengeFront = 0x02
	vrfOutputFront    = 0x03
	vrfBack           = 0x00

	// VRFProofSize is the length of a proof in bytes: Gamma, challenge, s.
	VRFProofSize = 32 + vrfChallengeSize + 32
	// VRFOutputSize is the length of an output in bytes.
	VRFOutputSize = sha512.Size
)

// VRFProof is pi_string of RFC 9381: Gamma[32] ‖ c[16] ‖ s[32].
type VRFProof [VRFProofSize]byte

// VRFOutput is beta_string of RFC 9381.
type VRFOutput [VRFOutputSize]byte

// VRFPublicKey is PK_string of RFC 9381, a compressed point.
type VRFPublicKey [32]byte

var (
	// ErrVRFKey is in the chain of errors about a VRF public key that is not a
	// canonical point of the curve, or of small order.
	ErrVRFKey = errors.New("invalid VRF public key")
	// ErrVRFProof is in the chain of errors about a proof that is malformed or
	// does not hold for key and input.
	ErrVRFProof = errors.New("invalid VRF proof")
)

// VRFPrivateKey makes labels. It is safe for concurrent use.
type VRFPrivateKey struct {
	x      *edwards25519.Scalar
	prefix [32]byte // the half of SHA-512(seed) that nonces are made of
	public VRFPublicKey
}

// NewVRFPrivateKey expands a 32-byte seed from a cryptographic source (SK of
// RFC 9381 section 5.5) as RFC 8032 section 5.1.5 does.
func NewVRFPrivateKey(seed [32]byte) *VRFPrivateKey {
	h := sha512.Sum512(seed[:])
	x, err := edwards25519.NewScalar().SetBytesWithClamping(h[:32])
	if err != nil {
		panic("kt: clamping 32 bytes: " + err.Error())
	}
	k := &VRFPrivateKey{x: x, prefix: [32]byte(h[32:])}
	k.public = VRFPublicKey(new(edwards25519.Point).ScalarBaseMult(x).Bytes())
	return k
}

// PublicKey is the key with which proofs are checked.
func (k *VRFPrivateKey) PublicKey() VRFPublicKey { return k.public }

// String hides the key from logs and formatted errors.
func (k *VRFPrivateKey) String() string { return "VRFPrivateKey(secret)" }

// GoString hides the key from %#v.
func (k *VRFPrivateKey) GoString() string { return k.String() }

// Prove computes the output for alpha and the proof that it is (RFC 9381
// sections 5.1 and 5.2). Its time depends on alpha, which is no secret from
// whoever may ask for the proof, but not on the key.
func (k *VRFPrivateKey) Prove(alpha []byte) (VRFProof, VRFOutput) {
	h := vrfEncodeToCurve(k.public, alpha)
	hString := h.Bytes()
	gamma := new(edwards25519.Point).ScalarMult(k.x, h)
	nonce := k.nonce(hString)
	kB := new(edwards25519.Point).ScalarBaseMult(nonce)
	kH := new(edwards25519.Point).ScalarMult(nonce, h)
	c := vrfChallenge(k.public, hString, gamma.Bytes(), kB.Bytes(), kH.Bytes())
	s := edwards25519.NewScalar().MultiplyAdd(vrfChallengeScalar(c), k.x, nonce)

	var proof VRFProof
	copy(proof[:32], gamma.Bytes())
	copy(proof[32:48], c[:])
	copy(proof[48:], s.Bytes())
	return proof, vrfOutput(gamma)
}

// nonce is ECVRF_nonce_generation_RFC8032, RFC 9381 section 5.4.2.2.
func (k *VRFPrivateKey) nonce(hString []byte) *edwards25519.Scalar {
	var buf [64]byte
	copy(buf[:32], k.prefix[:])
	copy(buf[32:], hString)
	sum := sha512.Sum512(buf[:])
	n, err := edwards25519.NewScalar().SetUniformBytes(sum[:])
	if err != nil {
		panic("kt: reducing 64 bytes: " + err.Error())
	}
	return n
}

// Validate is ECVRF_validate_key of RFC 9381 section 5.4.5, on top of the
// canonical decoding that section 5.3 asks for. Errors wrap ErrVRFKey.
func (p VRFPublicKey) Validate() error {
	_, err := p.point()
	return err
}

func (p VRFPublicKey) point() (*edwards25519.Point, error) {
	y, ok := decodePoint(p[:])
	if !ok {
		return nil, fmt.Errorf("%w: not a canonical point of the curve", ErrVRFKey)
	}
	if smallOrder(y) {
		return nil, fmt.Errorf("%w: of small order", ErrVRFKey)
	}
	return y, nil
}

// Verify checks that proof holds for alpha under p and returns the output
// (RFC 9381 section 5.3, with validate_key). The key is validated each time.
// Errors wrap ErrVRFKey or ErrVRFProof.
func (p VRFPublicKey) Verify(alpha, proof []byte) (VRFOutput, error) {
	y, err := p.point()
	if err != nil {
		return VRFOutput{}, err
	}
	gamma, c, s, err := decodeVRFProof(proof)
	if err != nil {
		return VRFOutput{}, err
	}
	h := vrfEncodeToCurve(p, alpha)
	cs := vrfChallengeScalar(c)
	// U = s*B - c*Y and V = s*H - c*Gamma. All of it is public, so variable time
	// is right; the points are negated, not c, to keep c short.
	u := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(cs, new(edwards25519.Point).Negate(y), s)
	v := new(edwards25519.Point).VarTimeMultiScalarMult(
		[]*edwards25519.Scalar{s, cs},
		[]*edwards25519.Point{h, new(edwards25519.Point).Negate(gamma)})
	want := vrfChallenge(p, h.Bytes(), gamma.Bytes(), u.Bytes(), v.Bytes())
	if subtle.ConstantTimeCompare(c[:], want[:]) != 1 {
		return VRFOutput{}, fmt.Errorf("%w: does not hold for this key and input", ErrVRFProof)
	}
	return vrfOutput(gamma), nil
}

// vrfProofLabel is the label that a proof is about if it holds, which it does not
// check.
func vrfProofLabel(proof []byte) (Label, error) {
	gamma, _, _, err := decodeVRFProof(proof)
	if err != nil {
		return Label{}, err
	}
	out := vrfOutput(gamma)
	return Label(out[:32]), nil
}

// decodeVRFProof is ECVRF_decode_proof, RFC 9381 section 5.4.4: Gamma must be
// canonical and s below the group order, or one proof would have many spellings.
func decodeVRFProof(proof []byte) (gamma *edwards25519.Point, c [vrfChallengeSize]byte, s *edwards25519.Scalar, err error) {
	if len(proof) != VRFProofSize {
		return nil, c, nil, fmt.Errorf("%w: %d bytes, want %d", ErrVRFProof, len(proof), VRFProofSize)
	}
	gamma, ok := decodePoint(proof[:32])
	if !ok {
		return nil, c, nil, fmt.Errorf("%w: Gamma is not a canonical point of the curve", ErrVRFProof)
	}
	s, err = edwards25519.NewScalar().SetCanonicalBytes(proof[48:])
	if err != nil {
		return nil, c, nil, fmt.Errorf("%w: s is not below the group order", ErrVRFProof)
	}
	return gamma, [vrfChallengeSize]byte(proof[32:48]), s, nil
}

// vrfEncodeToCurve is ECVRF_encode_to_curve_try_and_increment, RFC 9381 section
// 5.4.1.1, with the public key as salt. Half of all tries succeed, so running
// out of the 256 counters has probability 2^-256: it panics then.
func vrfEncodeToCurve(salt VRFPublicKey, alpha []byte) *edwards25519.Point {
	buf := make([]byte, 0, 2+32+len(alpha)+2)
	buf = append(buf, vrfSuite, vrfEncodeFront)
	buf = append(buf, salt[:]...)
	buf = append(buf, alpha...)
	buf = append(buf, 0, vrfBack)
	for ctr := range 256 {
		buf[len(buf)-2] = byte(ctr)
		sum := sha512.Sum512(buf)
		h, ok := decodePoint(sum[:32])
		if !ok || smallOrder(h) {
			continue
		}
		return h.MultByCofactor(h)
	}
	panic("kt: no point of the curve in 256 tries")
}

// vrfChallenge is ECVRF_challenge_generation, RFC 9381 section 5.4.3.
func vrfChallenge(y VRFPublicKey, h, gamma, u, v []byte) [vrfChallengeSize]byte {
	var buf [2 + 5*32 + 1]byte
	b := append(buf[:0], vrfSuite, vrfChallengeFront)
	b = append(b, y[:]...)
	b = append(b, h...)
	b = append(b, gamma...)
	b = append(b, u...)
	b = append(b, v...)
	sum := sha512.Sum512(append(b, vrfBack))
	return [vrfChallengeSize]byte(sum[:vrfChallengeSize])
}

// vrfChallengeScalar reads a challenge as the little-endian integer it is.
func vrfChallengeScalar(c [vrfChallengeSize]byte) *edwards25519.Scalar {
	var wide [32]byte
	copy(wide[:], c[:])
	s, err := edwards25519.NewScalar().SetCanonicalBytes(wide[:])
	if err != nil {
		panic("kt: 128 bits above the group order: " + err.Error())
	}
	return s
}

// vrfOutput is ECVRF_proof_to_hash, RFC 9381 section 5.2, after decoding.
func vrfOutput(gamma *edwards25519.Point) VRFOutput {
	var buf [2 + 32 + 1]byte
	b := append(buf[:0], vrfSuite, vrfOutputFront)
	b = append(b, new(edwards25519.Point).MultByCofactor(gamma).Bytes()...)
	return sha512.Sum512(append(b, vrfBack))
}

// decodePoint is the decoding of RFC 8032 section 5.1.3, which refuses encodings
// that are not canonical; the library accepts those.
func decodePoint(b []byte) (*edwards25519.Point, bool) {
	p, err := new(edwards25519.Point).SetBytes(b)
	if err != nil || string(p.Bytes()) != string(b) {
		return nil, false
	}
	return p, true
}

// smallOrder reports whether p has one of the orders 1, 2, 4, 8.
func smallOrder(p *edwards25519.Point) bool {
	return new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1
}
