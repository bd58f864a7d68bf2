package kt

// Label is the label that the proof is for: ECVRF_proof_to_hash of RFC 9381
// section 5.2, which needs no key. It does not check that the proof holds:
// VRFPublicKey.VerifyLabel does. Errors wrap ErrVRFProof.
func (p VRFProof) Label() (Label, error) { return vrfProofLabel(p[:]) }
