package sim

// checkReads: a page is in order, names what the log names, shows nothing that
// was gone before it was asked for, and leaves nothing out that was there all the
// time.
func (h *History) checkReads(m *Model, add adder) {
	for _, r := range h.reads {
		if r.Outcome != Done {
			continue
		}
		q := m.Queues[r.Device]
		last := r.After
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
			case msg.SHA256 != s.Hash:
				add("item %d has another payload than was sent", s.Seq)
			case msg.Index >= h.anchoredBy(r.end):
				add("item %d was shown before it was anchored (%d ≥ %d)", s.Seq, msg.Index, h.anchoredBy(r.end))
			}
			if gone, ok := q.Removed[s.Seq]; ok && gone.TimeMS < r.start {
				add("item %d was %s and is shown later", s.Seq, gone.Cause)
			}
			if r.SkipsDrained && q.drainedBefore(s.Seq, r.start) {
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
		case r.SkipsDrained && q.drainedBefore(seq, r.end+1):
		default:
			add("item %d (%x) is missing in a page that ends at %d", seq, id, last)
		}
	}
}

// drainedBefore tells whether a draining read moved the cursor over an item
// before a time.
func (q *Queue) drainedBefore(seq, at uint64) bool {
	for _, move := range q.Moves {
		if move.TimeMS < at && move.From < seq && seq <= move.To {
			return true
		}
	}
	return false
}
