package sim

import "slices"

// checkPackages: what was uploaded is what the log has, and a KeyPackage for one use
// was handed to one call, at the time of that call.
func (h *History) checkPackages(m *Model, add adder) {
	shelved := map[[32]byte]*Shelved{}
	for _, s := range h.shelved {
		shelved[s.Hash] = s
		stored := m.packagesOf(s.Device, s.Hash)
		switch {
		case s.Outcome == Done && len(stored) == 0:
			add("a KeyPackage of %s was acknowledged and is lost", s.By.name)
		case s.Outcome == Refused && len(stored) > 0:
			add("a KeyPackage of %s was refused and is stored", s.By.name)
		case !s.Last && len(slices.DeleteFunc(stored, func(p *Package) bool { return p.former })) > 1:
			add("a KeyPackage of %s is stored %d times", s.By.name, len(stored))
		}
	}
	for _, p := range m.Packages {
		if s := shelved[p.Hash]; s == nil || s.Device != p.Device || s.Last != (p.Number == 0) {
			add("a KeyPackage is stored that its device did not upload")
		}
	}
	told := map[[32]byte]*Taken{}
	for _, t := range h.taken {
		if t.Outcome != Done {
			continue
		}
		for _, got := range t.Packages {
			if first := told[got.Hash]; first != nil && !got.Last {
				add("a KeyPackage was handed out twice")
			}
			told[got.Hash] = t
			if s := shelved[got.Hash]; s == nil || s.Device != got.Device || s.Last != got.Last {
				add("a KeyPackage was handed out that its device did not upload")
				continue
			}
			if !m.tookPackage(t, got.ID, got.Hash) {
				add("a KeyPackage was handed out, and the log does not have it")
			}
		}
	}
}

// tookPackage looks for the event behind a package that was handed out.
func (m *Model) tookPackage(t *Taken, id ID, hash [32]byte) bool {
	p := m.Packages[id]
	if p == nil || p.Hash != hash {
		return false
	}
	for _, taking := range p.Taken {
		if taking.By == t.By && t.start <= taking.TimeMS && taking.TimeMS <= t.end {
			return true
		}
	}
	return false
}
