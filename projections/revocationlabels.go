package projections

import (
	"slices"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// RevocationProof says where the revocation of a key stands, if there is one.
type RevocationProof struct {
	Label kt.Label
	// VRF is the proof that the label is the key's.
	VRF kt.VRFProof
}

// applyRevocationLabels keeps the labels that came with new keys. Each must be of
// one of the keys; a key without one costs a VRF evaluation at each lookup.
func applyRevocationLabels(b *Batch, labels []*pb.RevocationLabel, keys ...Key) error {
	for _, entry := range labels {
		key, err := field32(entry.GetKey(), "key")
		if err != nil {
			return err
		}
		if !slices.Contains(keys, key) {
			return invalid("a revocation label of another key")
		}
		if len(entry.GetVrfProof()) != vrfProofSize {
			return invalid("VRF proof of %d bytes", len(entry.GetVrfProof()))
		}
		proof := kt.VRFProof(entry.GetVrfProof())
		label, err := proof.Label()
		if err != nil {
			return invalid("VRF proof of a revocation: %v", err)
		}
		b.row = append(append(b.row[:0], label[:]...), proof[:]...)
		if err := b.put(keyOf32(b.scratch(), prefixRevocation, key), b.row); err != nil {
			return err
		}
	}
	return nil
}

// RevocationLabel finds where the revocation of a key of an account would stand,
// with the proof. KTLabel tells whether it does.
func RevocationLabel(r Reader, key Key) (RevocationProof, bool, error) {
	return readRow(r, "revocation labels", keyOf32(r.scratch(), prefixRevocation, key), func(in *rowReader) (p RevocationProof) {
		p.Label = in.array32()
		copy(p.VRF[:], in.take(len(p.VRF)))
		return p
	})
}
