package commands

import (
	"bytes"

	"quicprochat/kt"
	"quicprochat/projections"
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

// revocationLabel is where the revocation of a key stands, if there is one.
func revocationLabel(vrf *kt.VRFPrivateKey, key []byte) kt.Label {
	label, _ := vrf.Label(kt.KindRevocation, key, 0)
	return label
}

// inMap reports whether a label was ever written.
func inMap(r projections.Reader, label kt.Label) (bool, error) {
	_, found, err := projections.KTLabel(r, label)
	return found, err
}
