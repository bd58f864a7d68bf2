package commands

import (
	"bytes"

	"quicprochat/kt"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// PrepareKT makes what the key-transparency event of one version needs of the
// VRF: its label and proof, and the proof of the version after it, which will
// show that there is none. It costs two VRF evaluations and is called outside
// the writer; the version is what the published view shows, and the decide
// function returns ErrStale when it is not the one to write.
func PrepareKT(vrf *kt.VRFPrivateKey, kind kt.Kind, id []byte, version uint32) *PreparedKT {
	label, proof := vrf.Label(kind, id, version)
	next, _ := vrf.Prove(kt.VRFInput(kind, id, version+1))
	return &PreparedKT{
		Kind:      kind,
		ID:        bytes.Clone(id),
		Version:   version,
		Label:     label,
		Proof:     proof,
		NextProof: next,
	}
}

// revocation is where the revocation of a key stands, if there is one.
type revocation struct {
	key   [KeySize]byte
	label kt.Label
	proof kt.VRFProof
}

// prepareRevocation costs a VRF evaluation.
func prepareRevocation(vrf *kt.VRFPrivateKey, key [KeySize]byte) revocation {
	label, proof := vrf.Label(kt.KindRevocation, key[:], 0)
	return revocation{key: key, label: label, proof: proof}
}

// event is what a new key's event keeps of it, for lookups.
func (r *revocation) event() *pb.RevocationLabel {
	return &pb.RevocationLabel{Key: r.key[:], VrfProof: r.proof[:]}
}

// firstBinding is the value of an account's version 0: who registered first.
func firstBinding(identityKey []byte) ([]byte, error) {
	return marshalValue(&pb.AccountBinding{IdentityKey: identityKey, Authority: pb.Authority_FIRST})
}

// inMap reports whether a label was ever written.
func inMap(r projections.Reader, label kt.Label) (bool, error) {
	_, found, err := projections.KTLabel(r, label)
	return found, err
}
