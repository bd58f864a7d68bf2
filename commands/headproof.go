package commands

import (
	"fmt"

	"quicprochat/kt"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// HeadProof shows a checkpoint's HEAD and connects it to what the request says
// that its caller knows. The result is shared: do not change it. Refusals:
// BadRequest INVALID_FIELD, Unavailable SIGNING_STOPPED (see SigningStopped): the
// caller's note is one of this log's, and this log is not the one it was signed
// for.
func (e *Engine) HeadProof(c *Checkpoint, req *pb.ProofRequest) (*pb.HeadProof, error) {
	var known *knownNote
	key := headProofKey{}
	if note := req.GetKnownNote(); len(note) > 0 {
		found, err := e.signer.known(note)
		if err != nil {
			return nil, err
		}
		known, key = &found, headProofKey{found.Size, req.GetKnownConfig()}
	} else if req.GetKnownConfig() != 0 {
		return nil, invalid("known_config: only with known_note")
	}
	if p := c.heads.get(key); p != nil {
		return p, nil
	}
	p, err := e.makeHeadProof(c, known, req.GetKnownConfig())
	if err != nil {
		return nil, err
	}
	c.heads.put(key, p)
	return p, nil
}

func (e *Engine) makeHeadProof(c *Checkpoint, known *knownNote, knownConfig uint64) (*pb.HeadProof, error) {
	p := &pb.HeadProof{Note: c.Note, HeadLeaf: c.HeadLeaf}
	var err error
	if p.HeadPath, err = e.log.InclusionProof(c.Size-1, c.Size); err != nil {
		return nil, err
	}
	after := uint64(0)
	if known != nil {
		after = knownConfig + 1
		if err := e.connect(p, c, known); err != nil {
			return nil, err
		}
	}
	configs, err := projections.ConfigsFrom(c.Views, after)
	if err != nil {
		return nil, err
	}
	for _, config := range configs {
		path, err := e.log.InclusionProof(config.Index, c.Size)
		if err != nil {
			return nil, err
		}
		leaf := append([]byte{byte(kt.ClassConfig)}, config.Body...)
		p.Configs = append(p.Configs, &pb.ConfigProof{Index: config.Index, Leaf: leaf, Path: path})
	}
	return p, nil
}

// connect proves the older of a checkpoint and a known note under the newer one.
func (e *Engine) connect(p *pb.HeadProof, c *Checkpoint, known *knownNote) (err error) {
	older, newer := known.Size, c.Size
	from, to := known.head.Epoch, c.Head.Epoch
	views := c.Views
	switch {
	case older == newer:
		return nil
	case older > newer: // the newest cosigned note is older than what was signed since
		older, newer, from, to = newer, older, to, from
		newest := e.Checkpoint()
		if newest == nil {
			return errNoSigning
		}
		defer newest.Release()
		views = newest.Views
	}
	if p.LogConsistency, err = e.log.ConsistencyProof(older, newer); err != nil {
		return err
	}
	if p.KnownHeadPath, err = projections.HeadInclusion(views, from, to); err != nil {
		return fmt.Errorf("commands: heads of two notes: %w", err)
	}
	p.HeadsConsistency, err = projections.HeadsConsistency(views, from, to)
	return err
}
