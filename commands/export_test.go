package commands

// PretendRevoked makes the registration meet p where it looks for the revocation
// of its first key. Revocations themselves are not written yet.
func (r *Registration) PretendRevoked(p *PreparedKT) { r.revocations[0] = p.Label }
