package commands

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// headEvery is how often a HEAD is written whatever else happens: it bounds how
// old a checkpoint that a client gets can be. The clock is fixed, so that when a
// HEAD comes tells nothing about messages.
const headEvery = time.Minute

// sealGroup ends a group with a HEAD when it has key events, so that their callers get
// proofs at once, or when one was asked for.
func (w *writer) sealGroup(g *group) error {
	if g.keyEvents == 0 && !g.headDue {
		return nil
	}
	now := w.clock.nowMS()
	head, err := projections.NextHead(g.views(w), now)
	if err != nil {
		return fmt.Errorf("seal a group: %w", err)
	}
	g.head = kt.AppendHeadLeaf(g.head[:0], head)
	ev := &pb.Event{TimeMs: now, Body: &pb.Event_HeadSealed{HeadSealed: &pb.HeadSealed{Head: g.head[1:]}}}
	if err := w.append(ev, nil); err != nil {
		return fmt.Errorf("seal a group: %w", err)
	}
	g.sealed = true
	return nil
}

// sealHead asks for a HEAD at the end of a group and waits for it.
func (e *Engine) sealHead(ctx context.Context) error {
	_, err := e.Do(ctx, &Command{Auth: pb.Auth_NONE, Decide: func(tx *Tx) (proto.Message, error) {
		tx.w.group.headDue = true
		return nil, nil
	}})
	return err
}

// keepHeads writes HEADs on the clock.
func (e *Engine) keepHeads(ctx context.Context) {
	defer e.keepers.Done()
	tick := time.NewTicker(headEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.failed:
			return
		case <-tick.C:
		}
		if err := e.sealHead(ctx); err != nil && ctx.Err() == nil && e.Err() == nil {
			e.logger.WarnContext(ctx, "no HEAD was written: checkpoints grow old", "cause", err)
		}
	}
}
