package commands

import (
	"context"

	"quicprochat/kt"
	"quicprochat/projections"
)

// StopSigning ends signing for this run: somebody, a witness for one, knows more
// of this log than it has, or another history of it. Only the first cause counts.
func (e *Engine) StopSigning(cause error) { e.signer.stop(cause) }

// CosignedCheckpoint is the newest checkpoint with cosignatures, or nil. Release
// it.
func (e *Engine) CosignedCheckpoint() *Checkpoint { return e.signer.acquire(&e.signer.cosigned) }

// ShowCosigned shows a checkpoint, which the caller holds, with a note that
// witnesses cosigned: from now on it is what ProofRequest.cosigned gets. One that
// is older than what is shown changes nothing.
func (e *Engine) ShowCosigned(c *Checkpoint, note []byte) {
	if e.signer.Stopped() != nil {
		return
	}
	if shown := e.CosignedCheckpoint(); shown != nil {
		newer := shown.Size > c.Size
		shown.Release()
		if newer {
			return
		}
	}
	if !c.state.retain() {
		return
	}
	show(&e.signer.cosigned, &Checkpoint{
		Checkpoint: c.Checkpoint, Note: append([]byte(nil), note...), HeadLeaf: c.HeadLeaf, Head: c.Head,
		Views: c.Views, Map: c.Map, state: c.state, superseded: make(chan struct{}),
	})
}

// askFirst lets ask, which asks the witnesses, compare the log as it was recovered
// with what they have cosigned, before anything is appended or signed. What it
// shows them is the newest HEAD of the log, which is no new statement; it is
// guarded as if it were. An error of ask stops signing.
func (s *signer) askFirst(ctx context.Context, view projections.Reader, ask func(ctx context.Context, note []byte, size uint64) error) error {
	if ask == nil || s.Stopped() != nil {
		return nil
	}
	state, err := projections.TransparencyState(view)
	if err != nil || state.Heads == 0 {
		return err
	}
	chain, err := readChain(view)
	if err != nil {
		return err
	}
	config := chain.newest()
	if !config.LogKey.Equal(s.key.Public()) {
		return nil // the first signature is refused for it
	}
	c := kt.Checkpoint{Origin: config.Origin, Size: state.NewestHead + 1}
	if c.Root, err = s.e.log.RootAt(c.Size); err != nil {
		return err
	}
	if at := (guarded{chain.generation(), c.Size, c.Root}); s.guard.newest.below(at) {
		if err := s.guard.write(at); err != nil {
			return err
		}
	}
	note, err := kt.SignCheckpoint(c, s.key)
	if err != nil {
		return err
	}
	if err := ask(ctx, note, c.Size); err != nil {
		s.stop(err)
	}
	return nil
}
