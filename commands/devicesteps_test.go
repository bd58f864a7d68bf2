package commands_test

import (
	"bytes"
	"slices"

	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// successorOf is the next KeySet of a person, with the active devices as change
// leaves them; where there is a hybrid key it gets that of the name given.
func (w *world) successorOf(name, hybrid string, change func([][]byte) [][]byte) *pb.KeySet {
	current := w.newestKeySet(name)
	view := w.view()
	account, _, err := projections.AccountByName(view.Reader, name)
	w.check(err)
	view.Release()
	var active [][]byte
	for _, device := range account.Devices {
		active = append(active, device[:])
	}
	hash := statement.KeySetHash(serverName, current)
	next := &pb.KeySet{
		IdentityKey: current.GetIdentityKey(), Version: current.GetVersion() + 1, PreviousHash: hash[:],
		DeviceKeys: change(active), KemId: current.GetKemId(), TimeMs: w.now(),
	}
	if next.KemId != 0 {
		next.HybridKey = current.GetHybridKey()
		if hybrid != "" {
			next.HybridKey = hybridKeyFrom(hybrid)
		}
	}
	return next
}

func withoutKey(keys [][]byte, key []byte) [][]byte {
	return slices.DeleteFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
}

// newDevice completes a RegisterDeviceRequest: device=NAME with its consent, in the
// KeySet that follows the person's newest, without what is replaced. by=NAME signs
// the revocation of that one, hybrid=NAME is another hybrid key, consent=NAME signs
// in the device's place.
func (w *world) newDevice(req *pb.RegisterDeviceRequest, session string, a *arguments) {
	name := person(session)
	device, by, hybrid := a.take("device", name+"/2"), a.take("by", ""), a.take("hybrid", "")
	consent := a.take("consent", device)
	if replaces := a.take("replaces", ""); replaces != "" {
		req.Replaces = w.literal(replaces)
	}
	req.Device = &pb.DeviceConsent{DeviceKey: w.literal(device)}
	req.Keyset = w.successorOf(name, hybrid, func(keys [][]byte) [][]byte {
		return append(withoutKey(keys, req.GetReplaces()), req.GetDevice().GetDeviceKey())
	})
	a.apply(req, false)
	if by != "" {
		req.Signature = statement.Revoke{
			ServerName: serverName, Key: req.GetReplaces(), Reason: statement.RevocationReason(req.GetReason()),
		}.Sign(w.key(by))
	}
	if req.GetDevice() != nil {
		s := statement.Device{ServerName: serverName, IdentityKey: req.GetKeyset().GetIdentityKey(), DeviceKey: req.GetDevice().GetDeviceKey()}
		req.Device.Signature = s.Sign(w.key(consent))
	}
	if req.GetKeyset() != nil {
		statement.SignKeySet(serverName, req.GetKeyset(), w.signer(req.GetKeyset().GetIdentityKey(), name))
	}
	a.apply(req, true)
}

// lostDevice completes a RevokeDeviceRequest: by=NAME signs the revocation, and
// hybrid=NAME brings the KeySet without the device and with that hybrid key.
func (w *world) lostDevice(req *pb.RevokeDeviceRequest, session string, a *arguments) {
	name := person(session)
	by, hybrid := a.take("by", ""), a.take("hybrid", "")
	if device := a.take("device", ""); device != "" {
		req.DeviceKey = w.literal(device)
	}
	if hybrid != "" {
		req.Keyset = w.successorOf(name, hybrid, func(keys [][]byte) [][]byte { return withoutKey(keys, req.GetDeviceKey()) })
	}
	a.apply(req, false)
	if by != "" {
		req.Signature = statement.Revoke{
			ServerName: serverName, Key: req.GetDeviceKey(), Reason: statement.RevocationReason(req.GetReason()),
		}.Sign(w.key(by))
	}
	if req.GetKeyset() != nil {
		statement.SignKeySet(serverName, req.GetKeyset(), w.signer(req.GetKeyset().GetIdentityKey(), name))
	}
	a.apply(req, true)
}
