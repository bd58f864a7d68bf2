package sim

// banMargin is by how much the server's clock and a ban's end may differ, in
// milliseconds.
const banMargin = 200

// surelyUntil is until when a ban that was acknowledged stands at least, whatever was
// asked for since.
func (h *History) surelyUntil(b *Banned) uint64 {
	until := b.Until
	for _, l := range h.lifted {
		if l.Who == b.Who && l.Channel == b.Channel && l.Outcome != Refused && (l.Outcome == Unknown || l.end >= b.start) {
			until = min(until, l.start)
		}
	}
	for _, o := range h.banned { // a later ban takes its place
		if o != b && o.Who == b.Who && o.Channel == b.Channel && o.Outcome != Refused && (o.Outcome == Unknown || o.end >= b.start) {
			until = min(until, o.Until)
		}
	}
	return until
}

// isSurelyBanned tells whether somebody was shut out all the time of a call.
func (h *History) isSurelyBanned(who *Person, channel ID, call span) bool {
	for _, b := range h.banned {
		if b.Who == who && b.Channel == channel && b.Outcome == Done && b.end < call.start {
			if until := h.surelyUntil(b); until == never || call.end+banMargin < until {
				return true
			}
		}
	}
	return false
}

// isMaybeBanned tells whether somebody may have been shut out of the server at some
// moment of a call.
func (h *History) isMaybeBanned(who *Person, call span) bool {
	for _, b := range h.banned {
		if b.Who != who || b.Channel != (ID{}) || b.Outcome == Refused || b.start > call.end || b.Until != never && b.Until+banMargin < call.start {
			continue
		}
		over := false
		for _, l := range h.lifted {
			over = over || b.Outcome == Done && b.end != never && l.Who == who && l.Channel == b.Channel && l.Outcome == Done &&
				l.start > b.end && l.end < call.start
		}
		if !over {
			return true
		}
	}
	return false
}

func (h *History) surelyBanned(who *Person, channel ID, call span) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.isSurelyBanned(who, channel, call)
}

func (h *History) maybeBanned(who *Person, call span) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.isMaybeBanned(who, call)
}

// senderOf finds who sent a payload.
func (h *History) senderOf(hash [32]byte) *Person {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sent {
		if s.Hash == hash {
			return s.By
		}
	}
	return nil
}

// checkBans: after a ban was acknowledged, and until it may be over, nothing by the
// banned account is accepted and nothing goes to it; and nobody is refused for a ban
// that nobody asked for.
func (h *History) checkBans(m *Model, add adder) {
	if len(h.banned) > 0 {
		h.checkShutOut(m, add)
	}
	for _, t := range h.toldBanned {
		if !h.isMaybeBanned(t.Who, t.span) {
			add("%s was refused as banned, and nobody had asked for it", t.Who.name)
		}
	}
	for _, r := range h.reported {
		switch state, proved := m.Reports[r.Report], m.Proved[r.Report]; {
		case r.Outcome != Done:
		case state == 0:
			add("a report of %s was acknowledged and is lost", r.By.name)
		case r.Genuine && !proved:
			add("a report of %s about a message as it came is not proved", r.By.name)
		case r.Forged && proved:
			add("a report of %s about a message that never came is proved", r.By.name)
		}
	}
}

func (h *History) checkShutOut(m *Model, add adder) {
	whole := ID{}
	for _, a := range h.accepted {
		if h.isSurelyBanned(a.By, whole, a.span) {
			add("%s was banned, and a %s of theirs was accepted", a.By.name, a.What)
		}
	}
	owner := map[Key]*Person{}
	for _, p := range h.people {
		if account := m.Accounts[p.name]; account != nil {
			for device, q := range m.Queues {
				if q.Owner == account.ID {
					owner[device] = p
				}
			}
		}
	}
	for _, s := range h.sent {
		if to := owner[s.To]; s.Outcome == Done && to != nil && h.isSurelyBanned(to, whole, s.span) {
			add("%s was banned, and a message to them was accepted", to.name)
		}
	}
	for _, t := range h.taken {
		for _, got := range t.Packages {
			if of := owner[got.Device]; of != nil && h.isSurelyBanned(of, whole, t.span) {
				add("%s was banned, and a KeyPackage of theirs was handed out", of.name)
			}
		}
	}
	for _, heard := range h.heard {
		passed, by := h.passed[heard.Hash], owner[heard.Device]
		if passed != nil && by != nil && h.isSurelyBanned(by, whole, span{passed.start, heard.at}) {
			add("%s was banned, and heard an EPHEMERAL message", by.name)
		}
	}
	for _, i := range h.invited {
		if i.Outcome == Done && h.isSurelyBanned(i.Who, i.Channel, i.span) {
			add("%s was banned from a channel, and invited there", i.Who.name)
		}
	}
}
