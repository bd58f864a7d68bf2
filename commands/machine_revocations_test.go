package commands_test

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// modelKey is a key that is or was an identity's or a device's.
type modelKey struct {
	account  string
	identity bool
	added    uint64 // of a device
	revoked  *pb.Revocation
}

// reasons are those of RFC 5280 that a revocation may give.
var reasons = []uint32{0, 1, 4, 5}

// removal is on whose word a key ends, if a signature says so.
func (m *serverModel) removal(r *request, key projections.Key) (pb.Authority, prediction) {
	k, known := m.keys[key]
	switch {
	case !known:
		return 0, refused(pb.Status_NotFound, pb.Reason_NO_SUCH_KEY)
	case r.signer == projections.Key{}:
		return pb.Authority_SESSION_LOGIN, prediction{}
	case r.signer == key && key == m.accounts[k.account].identity && !k.identity:
		panic("a device key became an identity key")
	case r.signer == m.accounts[k.account].identity && r.signer != key:
		return pb.Authority_IDENTITY, prediction{}
	case r.signer == key:
		return pb.Authority_KEY, prediction{}
	}
	return 0, badRequest(pb.Reason_SIGNATURE_INVALID)
}

func (m *serverModel) revokeKey(r *request, req *pb.RevokeKeyRequest, s *modelSession, now uint64) prediction {
	key := projections.Key(req.GetKey())
	authority, p := m.removal(r, key)
	switch {
	case p.status != pb.Status_Ok:
		return p
	case authority == pb.Authority_SESSION_LOGIN && s == nil:
		return refused(pb.Status_Unauthorized, pb.Reason_TOKEN_MISSING)
	case r.late != 0:
		return badRequest(r.late)
	case req.GetSuccessor() != nil:
		return m.handOver(r, req, s, now)
	}
	var actor bool
	if authority == pb.Authority_SESSION_LOGIN {
		switch {
		case !s.isDevice():
			return forbidden(pb.Reason_SCOPE)
		case m.keys[key].account == s.account:
		case m.accounts[s.account].role != pb.Role_ADMIN:
			return forbidden(pb.Reason_WRONG_ACCOUNT)
		default:
			authority, actor = pb.Authority_ADMINISTRATOR, true
		}
		if now-s.began >= 5*aMinute {
			return forbidden(pb.Reason_REAUTH)
		}
	}
	revocation := &pb.Revocation{Reason: req.GetReason(), Authority: authority, Signature: req.GetSignature()}
	return prediction{answer: &pb.RevokeKeyResponse{Revocation: m.revoke(key, revocation, actor, now), ServerTimeMs: now}}
}

func (m *serverModel) revokeAnyKey(req *pb.RevokeAnyKeyRequest, now uint64) prediction {
	key := projections.Key(req.GetKey())
	if _, known := m.keys[key]; !known {
		return refused(pb.Status_NotFound, pb.Reason_NO_SUCH_KEY)
	}
	revocation := &pb.Revocation{Reason: req.GetReason(), Authority: pb.Authority_ADMINISTRATOR}
	return prediction{answer: &pb.RevokeAnyKeyResponse{Revocation: m.revoke(key, revocation, true, now), ServerTimeMs: now}}
}

// revoke ends a key that has not ended, and returns how it did. With actor an
// administrator is named.
func (m *serverModel) revoke(key projections.Key, revocation *pb.Revocation, actor bool, now uint64) *pb.Revocation {
	if before := m.keys[key].revoked; before != nil {
		return before
	}
	m.eventIf(actor)
	m.tellRemoved(key, revocation, now)
	m.endKey(key, revocation, now)
	m.seal(now)
	return m.keys[key].revoked
}

// tellRemoved tells the other devices of a device's account of its end.
func (m *serverModel) tellRemoved(key projections.Key, revocation *pb.Revocation, now uint64) {
	a := m.accounts[m.keys[key].account]
	if slices.Contains(a.devices, key) {
		m.control(a.name, othersThan(a.devices, key), &pb.ControlItem{Kind: &pb.ControlItem_DeviceRemoved{DeviceRemoved: &pb.DeviceRemoved{
			DeviceKey: key[:], Reason: revocation.GetReason(), Authority: revocation.GetAuthority(),
		}}}, now)
	}
}

// endKey ends whatever a key was good for: a device's sessions, queue and KeyPackages;
// all sessions and KeyPackages of an identity that was not replaced.
func (m *serverModel) endKey(key projections.Key, revocation *pb.Revocation, now uint64) {
	k := m.keys[key]
	a := m.accounts[k.account]
	k.revoked = revocation
	k.revoked.TimeMs = now
	m.keys[key] = k
	m.sessions = slices.DeleteFunc(m.sessions, func(s *modelSession) bool {
		return s.account == a.name && (s.device == key || a.identity == key)
	})
	if a.identity == key {
		for _, device := range a.devices {
			m.shelves[device].purge()
		}
	}
	if slices.Contains(a.devices, key) {
		m.shelves[key].purge()
		delete(m.queues, key)
		a.devices = othersThan(a.devices, key)
	}
	m.events++
}

// handOver is a RevokeKey with a successor.
func (m *serverModel) handOver(r *request, req *pb.RevokeKeyRequest, s *modelSession, now uint64) prediction {
	key, next := projections.Key(req.GetKey()), req.GetSuccessor().GetKeyset()
	if s == nil {
		return refused(pb.Status_Unauthorized, pb.Reason_TOKEN_MISSING)
	}
	a := m.accounts[s.account]
	switch {
	case m.keys[key].account != a.name, req.GetSuccessor().GetUsername() != a.name:
		return forbidden(pb.Reason_WRONG_ACCOUNT)
	case !m.keys[key].identity:
		return badRequest(pb.Reason_INVALID_FIELD)
	}
	if !proto.Equal(a.handedOver, req.GetSuccessor()) {
		if now-s.began >= 5*aMinute {
			return forbidden(pb.Reason_REAUTH)
		}
		if p := m.maySucceed(r, a, key, next); p.status != pb.Status_Ok {
			return p
		}
		a.identity, a.keySets, a.handedOver = projections.Key(next.GetIdentityKey()), []*pb.KeySet{next}, req.GetSuccessor()
		a.binding++
		m.keys[a.identity] = modelKey{account: a.name, identity: true}
		m.events += 3
		if m.keys[key].revoked == nil {
			m.endKey(key, &pb.Revocation{Reason: req.GetReason(), Authority: pb.Authority_KEY, Signature: req.GetSignature()}, now)
		}
		m.seal(now)
	}
	return prediction{answer: &pb.RevokeKeyResponse{Revocation: m.keys[key].revoked, AccountVersion: a.binding, ServerTimeMs: now}}
}

func (m *serverModel) maySucceed(r *request, a *modelAccount, key projections.Key, next *pb.KeySet) prediction {
	if a.identity != key {
		return badRequest(pb.Reason_KEY_REVOKED)
	}
	if _, used := m.keys[projections.Key(next.GetIdentityKey())]; used {
		return badRequest(pb.Reason_KEY_IN_USE)
	}
	if p := m.lists(next, a.devices); p.status != pb.Status_Ok {
		return p
	}
	switch before := a.keySet(); {
	case before.GetKemId() != 0 && slices.Equal(before.GetHybridKey(), next.GetHybridKey()):
		return badRequest(pb.Reason_KEYSET_INVALID)
	case m.keys[key].revoked == nil && r.signer != key:
		return badRequest(pb.Reason_MISSING_FIELD)
	}
	return prediction{}
}

func (m *serverModel) checkRevocation(req *pb.CheckRevocationRequest, now uint64) prediction {
	k, known := m.keys[projections.Key(req.GetKey())]
	return prediction{answer: &pb.CheckRevocationResponse{Known: known, Revocation: k.revoked, ServerTimeMs: now}}
}

// sign signs a revocation of a key: by the key, by its identity, or by somebody who
// can't.
func (m *machine) sign(t *rapid.T, r *request, key string, reason uint32) []byte {
	owner := m.model.keys[projections.Key(m.public(key))].account
	by := key
	switch rapid.IntRange(0, 9).Draw(t, "signer") {
	case 0:
		by = m.identity(m.drawName(t, "stranger"))
	case 1, 2, 3, 4:
		by = m.identity(owner)
	case 5:
		return nil
	}
	r.signer = projections.Key(m.public(by))
	return statement.Revoke{
		ServerName: serverName, Key: m.public(key), Reason: statement.RevocationReason(reason),
	}.Sign(m.key(by))
}

// drawKey names a key of somebody: a device's, rarely an identity or nobody's.
func (m *machine) drawKey(t *rapid.T) string {
	name := m.drawName(t, "name")
	switch rapid.IntRange(0, 9).Draw(t, "what key") {
	case 0:
		return m.identity(name)
	case 1:
		return name // the first identity
	case 2:
		return "nobody"
	}
	return m.drawDevice(t, name)
}

// drawRevoke ends a key by a signature alone, in a session, or on the machine.
func (m *machine) drawRevoke(t *rapid.T) *request {
	key, reason := m.drawKey(t), rapid.SampledFrom(reasons).Draw(t, "reason")
	if rapid.IntRange(0, 9).Draw(t, "on the machine") == 0 {
		return &request{Message: &pb.RevokeAnyKeyRequest{Key: m.public(key), Reason: reason}}
	}
	req := &pb.RevokeKeyRequest{Key: m.public(key), Reason: reason}
	r := &request{Message: req}
	form := rapid.IntRange(0, 3).Draw(t, "form")
	if form < 2 {
		req.Signature = m.sign(t, r, key, reason)
	}
	if form > 0 {
		req.SessionToken = m.drawSession(t)
	}
	return spoil(t, r, []fault[*pb.RevokeKeyRequest]{
		{pb.Reason_MISSING_FIELD, func(r *pb.RevokeKeyRequest) { r.Key = nil }},
		{pb.Reason_KEY_INVALID, func(r *pb.RevokeKeyRequest) { r.Key = r.Key[1:] }},
		{pb.Reason_INVALID_FIELD, func(r *pb.RevokeKeyRequest) { r.Reason = 3 }},
	})
}

// drawHandOver gives a person another identity key.
func (m *machine) drawHandOver(t *rapid.T) *request {
	session := m.drawSession(t)
	name := m.mostly(t, m.personOf(session), "name")
	if m.model.accounts[name] == nil {
		return nil
	}
	former := m.identity(name)
	switch rapid.IntRange(0, 9).Draw(t, "which key") {
	case 0:
		former = name
	case 1:
		former = name + "/1"
	}
	next := m.fresh(t, name+"*")
	keySet := &pb.KeySet{IdentityKey: m.public(next), DeviceKeys: m.active(name), TimeMs: m.now()}
	if before := m.model.accounts[name].keySet(); before.GetKemId() != 0 {
		keySet.KemId, keySet.HybridKey = before.GetKemId(), before.GetHybridKey()
	}
	m.renew(t, keySet)
	if len(keySet.GetDeviceKeys()) == 0 || rapid.IntRange(0, 9).Draw(t, "twist") == 0 {
		keySet.DeviceKeys = append(keySet.DeviceKeys, m.public("stranger/1"))
	}
	statement.SignKeySet(serverName, keySet, m.key(next))
	req := &pb.RevokeKeyRequest{SessionToken: session, Key: m.public(former), Reason: rapid.SampledFrom(reasons).Draw(t, "reason")}
	r := &request{Message: req}
	req.Signature = m.sign(t, r, former, req.GetReason())
	both := statement.Successor{
		ServerName: serverName, Username: name, OldKey: req.GetKey(), NewKey: keySet.GetIdentityKey(), KeySetHash: statement.KeySetHash(serverName, keySet),
	}
	req.Successor = &pb.Successor{Username: name, Keyset: keySet, OldSignature: both.Sign(m.key(former)), NewSignature: both.Sign(m.key(next))}
	if next == former {
		r.late = pb.Reason_KEY_INVALID
	} else if rapid.IntRange(0, 7).Draw(t, "spoil") == 0 {
		f := rapid.SampledFrom([]fault[*pb.Successor]{
			{pb.Reason_MISSING_FIELD, func(s *pb.Successor) { s.Username = "" }},
			{pb.Reason_MISSING_FIELD, func(s *pb.Successor) { s.Keyset = nil }},
			{pb.Reason_SIGNATURE_INVALID, func(s *pb.Successor) { s.Keyset.TimeMs++ }},
			{pb.Reason_SIGNATURE_INVALID, func(s *pb.Successor) { s.OldSignature[0] ^= 1 }},
			{pb.Reason_SIGNATURE_INVALID, func(s *pb.Successor) { s.NewSignature[0] ^= 1 }},
		}).Draw(t, "fault")
		f.spoil(req.GetSuccessor())
		r.late = f.reason
	}
	return r
}
