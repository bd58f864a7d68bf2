package commands

import "fmt"

// The acker is two goroutines, so that the log syncs the next group while the
// anchor of the one before is written. Groups pass both in commit order.

// syncGroups waits for the sync of each group's log batch and raises the mark
// synced, on which flushes of the views wait.
func (e *Engine) syncGroups() {
	defer close(e.synced)
	for g := range e.committed {
		if g.pending != nil {
			e.stall.log.began()
			err := g.pending.Wait()
			e.stall.log.ended()
			if err != nil {
				e.fail(fmt.Errorf("sync the log: %w", err))
			} else {
				e.views.MarkSynced(g.pending.Size())
			}
		}
		e.synced <- g
	}
}

// publishGroups raises the marks anchored and published: one anchor write for
// all groups synced meanwhile, then snapshot, replies and hooks of each.
func (e *Engine) publishGroups() {
	defer close(e.finished)
	var round []*group
	for g := range e.synced {
		round = append(round[:0], g)
		for more := true; more; {
			select {
			case g, open := <-e.synced:
				if more = open; open {
					round = append(round, g)
				}
			default:
				more = false
			}
		}
		e.counters.rounds.Add(1)
		e.anchor(round)
		for _, g := range round {
			e.publishGroup(g)
		}
	}
}

// anchor writes the head anchor over the newest group of a round that wrote
// anything.
func (e *Engine) anchor(round []*group) {
	for i := len(round) - 1; i >= 0; i-- {
		p := round[i].pending
		if p == nil {
			continue
		}
		if e.Err() == nil {
			e.stall.anchor.began()
			err := e.log.WriteAnchor(p.Size(), p.Root())
			e.stall.anchor.ended()
			if err != nil {
				e.fail(fmt.Errorf("write the head anchor: %w", err))
			}
		}
		return
	}
}

// publishGroup shows a durable group: first the snapshot, so that whoever has
// seen a reply also sees its effect, then replies, then hooks. After a failure
// nothing is shown any more, whatever is durable: the restart tells.
func (e *Engine) publishGroup(g *group) {
	if g.pending != nil {
		<-g.viewed
	}
	if e.Err() != nil {
		e.rejectGroup(g)
		return
	}
	if g.snap != nil {
		state := e.publish(g.snap)
		if g.sealed {
			e.signer.offer(state, g.pending.Root(), g.head)
		}
	}
	for _, c := range g.calls {
		c.release()
	}
	if len(g.news.Messages)+len(g.news.Ended)+len(g.news.Members)+len(g.news.Low) > 0 {
		for _, hook := range *e.hooks.Load() {
			hook(g.news)
		}
	}
	e.retireGroup(g)
}

// rejectGroup answers a group whose outcome is unknown.
func (e *Engine) rejectGroup(g *group) {
	if g.snap != nil {
		g.snap.Close()
	}
	why := e.refusal()
	for _, c := range g.calls {
		c.fail(why)
	}
	e.retireGroup(g)
}

// retireGroup gives the group's place in the pipeline and the queue back.
func (e *Engine) retireGroup(g *group) {
	e.queue.done(len(g.calls), g.bytes)
	g.reset()
	select {
	case e.spare <- g:
	default:
	}
	<-e.slots
}
