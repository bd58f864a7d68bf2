package commands_test

import (
	"bytes"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"quicprochat/commands"
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// othersThan is a list of devices with one left out.
func othersThan(devices []projections.Key, device projections.Key) []projections.Key {
	return slices.DeleteFunc(slices.Clone(devices), func(key projections.Key) bool { return key == device })
}

// ownDevice is what is asked of a device that leaves its account.
func (m *serverModel) ownDevice(a *modelAccount, key projections.Key) prediction {
	switch k := m.keys[key]; {
	case k.account != a.name:
		return refused(pb.Status_NotFound, pb.Reason_NO_SUCH_KEY)
	case k.identity:
		return badRequest(pb.Reason_IDENTITY_KEY)
	}
	return prediction{}
}

func (m *serverModel) registerDevice(r *request, req *pb.RegisterDeviceRequest, s *modelSession, now uint64) prediction {
	a, next := m.accounts[s.account], req.GetKeyset()
	device := projections.Key(req.GetDevice().GetDeviceKey())
	var former projections.Key
	authority := pb.Authority_SESSION_LOGIN
	if len(req.GetReplaces()) > 0 {
		former = projections.Key(req.GetReplaces())
		var p prediction
		if authority, p = m.removal(r, former); p.status != pb.Status_Ok {
			return p
		}
	}
	if s.isDevice() && now-s.began >= 5*aMinute {
		return forbidden(pb.Reason_REAUTH)
	}
	answer := &pb.RegisterDeviceResponse{KeysetVersion: a.keySet().GetVersion(), ServerTimeMs: now}
	if slices.Contains(a.devices, device) && a.stands(next) {
		return prediction{answer: answer} // decided before
	}
	if k, used := m.keys[device]; used && k.revoked != nil {
		return badRequest(pb.Reason_KEY_REVOKED)
	} else if used {
		return badRequest(pb.Reason_KEY_IN_USE)
	}
	staying := a.devices
	if len(req.GetReplaces()) > 0 {
		if p := m.ownDevice(a, former); p.status != pb.Status_Ok {
			return p
		}
		if !slices.Contains(a.devices, former) {
			return badRequest(pb.Reason_KEY_REVOKED)
		}
		staying = othersThan(a.devices, former)
	}
	if len(staying) >= 10 {
		return badRequest(pb.Reason_TOO_MANY_DEVICES)
	}
	if p := m.follows(a, next, append(slices.Clone(staying), device), len(req.GetReplaces()) > 0); p.status != pb.Status_Ok {
		return p
	}
	m.link(a, device, former, next, now)
	if len(req.GetReplaces()) > 0 {
		m.endKey(former, &pb.Revocation{Reason: req.GetReason(), Authority: authority, Signature: req.GetSignature()}, now)
	}
	m.control(a.name, staying, &pb.ControlItem{Kind: &pb.ControlItem_DeviceAdded{DeviceAdded: &pb.DeviceAdded{
		DeviceKey: device[:], KeysetVersion: next.GetVersion(), Replaced: req.GetReplaces(),
	}}}, now)
	m.seal(now)
	answer.KeysetVersion = next.GetVersion()
	return prediction{answer: answer}
}

// link adds a device, with the queue of the one whose place it takes.
func (m *serverModel) link(a *modelAccount, device, former projections.Key, next *pb.KeySet, now uint64) {
	m.keys[device] = modelKey{account: a.name, added: now}
	m.queues[device] = &deviceQueue{queueModel: queueModel{next: 1}, owner: a.name}
	if former != (projections.Key{}) {
		m.queues[device], m.queues[former] = m.queues[former], m.queues[device]
	}
	a.devices = append(slices.Clone(a.devices), device)
	m.events++
	m.addKeySet(a, next)
}

func (m *serverModel) revokeDevice(r *request, req *pb.RevokeDeviceRequest, s *modelSession, now uint64) prediction {
	a, key, next := m.accounts[s.account], projections.Key(req.GetDeviceKey()), req.GetKeyset()
	authority, p := m.removal(r, key)
	if p.status != pb.Status_Ok {
		return p
	}
	if r.late != 0 {
		return badRequest(r.late)
	}
	if p := m.ownDevice(a, key); p.status != pb.Status_Ok {
		return p
	}
	if key != s.device && now-s.began >= 5*aMinute {
		return forbidden(pb.Reason_REAUTH)
	}
	gone := !slices.Contains(a.devices, key)
	if next != nil && (!gone || !a.stands(next)) {
		if p := m.follows(a, next, othersThan(a.devices, key), true); p.status != pb.Status_Ok {
			return p
		}
	} else {
		next = nil
	}
	if !gone {
		revocation := &pb.Revocation{Reason: req.GetReason(), Authority: authority, Signature: req.GetSignature()}
		m.tellRemoved(key, revocation, now)
		m.endKey(key, revocation, now)
	}
	if next != nil {
		m.addKeySet(a, next)
	}
	if !gone || next != nil {
		m.seal(now)
	}
	return prediction{answer: &pb.RevokeDeviceResponse{
		Revocation: m.keys[key].revoked, KeysetVersion: a.keySet().GetVersion(), HybridRotationDue: a.rotationDue(), ServerTimeMs: now,
	}}
}

func (m *serverModel) listDevices(s *modelSession, now uint64) prediction {
	a := m.accounts[s.account]
	answer := &pb.ListDevicesResponse{
		Username: a.name, Keyset: a.keySet(), IdentityRevocation: m.keys[a.identity].revoked, HybridRotationDue: a.rotationDue(),
		MaxDevices: 10, ServerTimeMs: now,
	}
	keys := slices.Clone(a.devices)
	for _, listed := range a.keySet().GetDeviceKeys() {
		if key := projections.Key(listed); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		d := &pb.ListDevicesResponse_Device{
			DeviceKey: key[:], Active: slices.Contains(a.devices, key), Revocation: m.keys[key].revoked, Current: s.isDevice() && key == s.device,
			Listed: slices.ContainsFunc(a.keySet().GetDeviceKeys(), func(listed []byte) bool { return bytes.Equal(listed, key[:]) }),
		}
		if d.GetActive() {
			d.AddedMs = m.keys[key].added
		}
		answer.Devices = append(answer.Devices, d)
	}
	return prediction{answer: answer}
}

var linkFaults = []fault[*pb.RegisterDeviceRequest]{
	{pb.Reason_MISSING_FIELD, func(r *pb.RegisterDeviceRequest) { r.Device = nil }},
	{pb.Reason_KEY_INVALID, func(r *pb.RegisterDeviceRequest) { r.Device.DeviceKey = make([]byte, 32) }},
	{pb.Reason_MISSING_FIELD, func(r *pb.RegisterDeviceRequest) { r.Keyset = nil }},
	{pb.Reason_SIGNATURE_INVALID, func(r *pb.RegisterDeviceRequest) { r.Keyset.TimeMs++ }},
	{pb.Reason_SIGNATURE_INVALID, func(r *pb.RegisterDeviceRequest) { r.Device.Signature[0] ^= 1 }},
	{pb.Reason_INVALID_FIELD, func(r *pb.RegisterDeviceRequest) { r.Replaces, r.Reason = nil, 1 }},
	{pb.Reason_KEY_INVALID, func(r *pb.RegisterDeviceRequest) { r.Replaces = make([]byte, 31) }},
}

// drawLink adds a device to a person, now and then in the place of another one.
func (m *machine) drawLink(t *rapid.T) *request {
	session := m.drawSession(t)
	name := m.mostly(t, m.personOf(session), "name")
	req := &pb.RegisterDeviceRequest{SessionToken: session}
	r := &request{Message: req}
	listed := m.active(name)
	if rapid.IntRange(0, 3).Draw(t, "replaces") == 0 {
		former := m.drawDevice(t, m.mostly(t, name, "replaced"))
		req.Replaces, req.Reason = m.public(former), rapid.SampledFrom(reasons).Draw(t, "reason")
		listed = withoutKey(listed, req.GetReplaces())
		req.Signature = m.sign(t, r, former, req.GetReason())
	}
	m.complete(t, req, name, m.fresh(t, m.mostly(t, name, "device")+"/"), listed)
	if containsKey(listed, req.GetDevice().GetDeviceKey()) { // it stands twice
		r.wrong = pb.Reason_KEYSET_INVALID
		return r
	}
	return spoil(t, r, linkFaults)
}

func containsKey(keys [][]byte, key []byte) bool {
	return slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
}

// complete adds the new device with its consent, and the KeySet that lists it.
func (m *machine) complete(t *rapid.T, req *pb.RegisterDeviceRequest, name, device string, listed [][]byte) {
	req.Keyset = m.nextKeySet(t, name, append(slices.Clone(listed), m.public(device)))
	if len(req.GetReplaces()) > 0 || rapid.IntRange(0, 3).Draw(t, "renewed") == 0 {
		m.renew(t, req.GetKeyset())
	}
	m.twist(t, req.GetKeyset())
	statement.SignKeySet(serverName, req.GetKeyset(), m.key(m.identity(name)))
	consent := statement.Device{ServerName: serverName, IdentityKey: req.GetKeyset().GetIdentityKey(), DeviceKey: m.public(device)}
	req.Device = &pb.DeviceConsent{DeviceKey: m.public(device), Signature: consent.Sign(m.key(device))}
}

// drawUnlink removes a device: the session's own or another one, with or without a
// KeySet.
func (m *machine) drawUnlink(t *rapid.T) *request {
	session := m.drawSession(t)
	name := m.mostly(t, m.personOf(session), "name")
	device := m.drawDevice(t, name)
	switch rapid.IntRange(0, 9).Draw(t, "whose") {
	case 0:
		device = m.identity(name)
	case 1:
		device = m.deviceOf(session)
	}
	req := &pb.RevokeDeviceRequest{SessionToken: session, DeviceKey: m.public(device), Reason: rapid.SampledFrom(reasons).Draw(t, "reason")}
	r := &request{Message: req}
	if rapid.Bool().Draw(t, "signed") {
		req.Signature = m.sign(t, r, device, req.GetReason())
	}
	if rapid.Bool().Draw(t, "with KeySet") {
		req.Keyset = m.nextKeySet(t, name, withoutKey(m.active(name), req.GetDeviceKey()))
		m.renew(t, req.GetKeyset())
		m.twist(t, req.GetKeyset())
		statement.SignKeySet(serverName, req.GetKeyset(), m.key(m.identity(name)))
		if rapid.IntRange(0, 9).Draw(t, "spoilt KeySet") == 0 {
			req.Keyset.TimeMs++
			r.late = pb.Reason_SIGNATURE_INVALID
		}
	}
	return spoil(t, r, []fault[*pb.RevokeDeviceRequest]{
		{pb.Reason_MISSING_FIELD, func(r *pb.RevokeDeviceRequest) { r.DeviceKey = nil }},
		{pb.Reason_KEY_INVALID, func(r *pb.RevokeDeviceRequest) { r.DeviceKey = r.DeviceKey[1:] }},
		{pb.Reason_INVALID_FIELD, func(r *pb.RevokeDeviceRequest) { r.Reason = 2 }},
	})
}

// drawDevices lists a person's devices, or asks whether a key is revoked.
func (m *machine) drawDevices(t *rapid.T) *request {
	if rapid.Bool().Draw(t, "list") {
		return &request{Message: &pb.ListDevicesRequest{SessionToken: m.drawSession(t)}}
	}
	return &request{Message: &pb.CheckRevocationRequest{Key: m.public(m.drawKey(t))}}
}

// equip gives one person more devices: often a second one, rarely as many as can be.
func (m *machine) equip(t *rapid.T) {
	devices := rapid.SampledFrom([]int{1, 1, 2, 2, 2, 3, commands.MaxDevices}).Draw(t, "devices")
	for len(m.model.accounts["bob"].devices) < devices {
		m.login(t, "bob", "bob/1")
		req := &pb.RegisterDeviceRequest{SessionToken: m.tokens[len(m.tokens)-1]}
		device := fmt.Sprint("bob/", len(m.active("bob"))+1)
		next := m.nextKeySet(t, "bob", append(m.active("bob"), m.public(device)))
		statement.SignKeySet(serverName, next, m.key("bob"))
		consent := statement.Device{ServerName: serverName, IdentityKey: m.public("bob"), DeviceKey: m.public(device)}
		req.Keyset, req.Device = next, &pb.DeviceConsent{DeviceKey: m.public(device), Signature: consent.Sign(m.key(device))}
		m.call(t, &request{Message: req})
		m.compare(t) // learns the ids of what was told
		if len(m.model.accounts["bob"].devices) == 2 {
			m.login(t, "bob", device)
		}
	}
}

// compareKeys: each key that is or was somebody's counts as what the model says.
func (m *machine) compareKeys(t *rapid.T, view projections.Reader) {
	for key, k := range m.model.keys {
		owner, found, err := projections.KeyOwner(view, key)
		m.check(err)
		if a := m.model.accounts[k.account]; !found || owner.AccountID != a.id || owner.IsIdentity != k.identity || owner.Revoked != (k.revoked != nil) {
			t.Fatalf("key %s counts as %+v, in the model %+v", m.names[string(key[:])], owner, k)
		}
		revocation, _, err := projections.Revocation(view, key)
		m.check(err)
		if !proto.Equal(revocation, k.revoked) {
			t.Fatalf("key %s: %v, in the model %v", m.names[string(key[:])], revocation, k.revoked)
		}
		active := slices.Contains(m.model.accounts[k.account].devices, key)
		if got, err := projections.DeviceActive(view, key); err != nil || got != active {
			t.Fatalf("device %s is active: %v (%v), in the model %v", m.names[string(key[:])], got, err, active)
		}
		if _, found, err := projections.Queue(view, key); err != nil || found != active {
			t.Fatalf("device %s has a queue: %v (%v), in the model %v", m.names[string(key[:])], found, err, active)
		}
	}
}
