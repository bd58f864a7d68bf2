package commands

import (
	"sync"

	"quicprochat/kt"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// Checkpoint is a signed state of the log with the views of its own group: what
// proofs are made of. It is shared; Release it when done.
type Checkpoint struct {
	kt.Checkpoint
	// Note is the signed note (C2SP signed-note), with the cosignatures that came.
	Note []byte
	// HeadLeaf is the HEAD at index Size-1, Head what it says.
	HeadLeaf []byte
	Head     kt.Head
	// Views are the views at Size; Map is their prefix map.
	Views projections.Reader
	Map   *projections.MapView

	state *published
	// superseded is closed when a newer one of its kind is published.
	superseded chan struct{}
	heads      headProofs
	finished   finishedProofs
}

// Release gives the checkpoint back; its views must not be read afterwards.
func (c *Checkpoint) Release() { c.state.release() }

// headProofs keeps the head proofs of one checkpoint by what their callers knew:
// many callers know the same note.
type headProofs struct {
	mu     sync.Mutex
	proofs map[headProofKey]*pb.HeadProof
}

type headProofKey struct {
	size   uint64 // of the known note; 0 without one
	config uint64
}

// maxHeadProofs bounds the head proofs kept per checkpoint.
const maxHeadProofs = 1024

func (h *headProofs) get(k headProofKey) *pb.HeadProof {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.proofs[k]
}

func (h *headProofs) put(k headProofKey, p *pb.HeadProof) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.proofs == nil || len(h.proofs) >= maxHeadProofs {
		h.proofs = make(map[headProofKey]*pb.HeadProof)
	}
	h.proofs[k] = p
}
