package kt

import "fmt"

// Label is the label that the proof is for: ECVRF_proof_to_hash of RFC 9381
// section 5.2, which needs no key. It does not check that the proof holds:
// VRFPublicKey.VerifyLabel does. Errors wrap ErrVRFProof.
func (p VRFProof) Label() (Label, error) {
	gamma, _, _, err := decodeVRFProof(p[:])
	if err != nil {
		return Label{}, fmt.Errorf("label of a proof: %w", err)
	}
	out := vrfOutput(gamma)
	return Label(out[:32]), nil
}
