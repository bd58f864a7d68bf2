package sim

// checkReads: a page is in order, names what the log names, shows nothing that
// was gone before it was asked for, and leaves nothing out that was there all the
// time.
func (h *History) checkReads(m *Model, add adder) {
	for _, r := range h.reads {
		if r.Outcome != Done {
			continue
		}
		q := m.queueOf(r.Device)
		last := r.After
		// What was decided before the read is seen by it once it is anchored: a sync may
		// hang in between.
		settled := h.anchoredBy(r.start - 1)
		shown := map[uint64]bool{}
		for _, s := range r.Seen {
			if s.Seq <= last {
				add("item %d follows item %d in a page", s.Seq, last)
			}
			last = max(last, s.Seq)
			shown[s.Seq] = true
			msg := m.Messages[s.Message]
			switch {
			case q.Assigned[s.Seq] != s.Message || msg == nil:
				add("item %d was shown as %x, the log has %x", s.Seq, s.Message, q.Assigned[s.Seq])
			case msg.Control != s.Control || msg.Post.Channel != s.Post.Channel || msg.Post.Seq != s.Post.Seq || msg.Post.Welcome != s.Post.Welcome:
				add("item %d was shown as %+v (control %v), the log has %+v (control %v)", s.Seq, s.Post, s.Control, msg.Post, msg.Control)
			case msg.SHA256 != s.Hash && !s.Control:
				add("item %d has another payload than was sent", s.Seq)
			case msg.Index >= h.anchoredBy(r.end):
				add("item %d was shown before it was anchored (%d ≥ %d)", s.Seq, msg.Index, h.anchoredBy(r.end))
			}
			if gone, ok := q.Removed[s.Seq]; ok && gone.Index < settled {
				add("item %d was %s and is shown later", s.Seq, gone.Cause)
			}
			if r.SkipsDrained && q.drained(s.Seq, func(move Move) bool { return move.Index < settled }) {
				add("item %d was handed out by a draining read before", s.Seq)
			}
		}
		if r.Confirm && r.After > 0 {
			h.checkConfirmed(q, r, add)
		}
		h.checkHoles(q, r, last, shown, m, add)
	}
}

func (h *History) checkConfirmed(q *Queue, r *Read, add adder) {
	for seq := range q.Assigned {
		if gone, ok := q.Removed[seq]; seq <= r.After && (!ok || gone.TimeMS > r.end) {
			add("item %d was confirmed and stayed", seq)
		}
	}
}

// checkHoles: between the start of a page and its last item, what is not shown
// must have gone by the end of the read.
func (h *History) checkHoles(q *Queue, r *Read, last uint64, shown map[uint64]bool, m *Model, add adder) {
	for seq := r.After + 1; seq < last; seq++ {
		id, assigned := q.Assigned[seq]
		if shown[seq] || !assigned {
			continue
		}
		gone, ok := q.Removed[seq]
		switch {
		case ok && gone.TimeMS <= r.end:
		case q.Expiry[seq] <= r.end:
		case r.SkipsDrained && q.drained(seq, func(move Move) bool { return move.TimeMS <= r.end }):
		default:
			add("item %d (%x) is missing in a page that ends at %d", seq, id, last)
		}
	}
}

// drained tells whether one of some draining reads moved the cursor over an item.
func (q *Queue) drained(seq uint64, which func(Move) bool) bool {
	for _, move := range q.Moves {
		if which(move) && move.From < seq && seq <= move.To {
			return true
		}
	}
	return false
}
