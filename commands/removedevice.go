package commands

import (
	"slices"

	"quicprochat/kt"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// DeviceRemoval is a RevokeDeviceRequest, verified outside the writer. Only
// PrepareDeviceRemoval makes one.
type DeviceRemoval struct {
	revocation *KeyRevocation
	step       *keySetStep // nil without a KeySet
}

// PrepareDeviceRemoval verifies a removal by itself: a signature is the device
// key's or the identity's, and a KeySet verifies. Refusals: NotFound NO_SUCH_KEY
// for a key that never was; BadRequest MISSING_FIELD, INVALID_FIELD, KEY_INVALID,
// SIGNATURE_INVALID, KEYSET_INVALID.
func PrepareDeviceRemoval(view projections.Reader, serverName string, vrf *kt.VRFPrivateKey, req *pb.RevokeDeviceRequest) (*DeviceRemoval, error) {
	revocation, err := prepareRemoval(view, serverName, vrf, "device_key", req.GetDeviceKey(), req.GetReason(), req.GetSignature())
	if err != nil {
		return nil, err
	}
	d := &DeviceRemoval{revocation: revocation}
	if req.GetKeyset() != nil {
		d.step, err = prepareKeySet(view, serverName, vrf, req.GetKeyset())
	}
	return d, err
}

// RevokeDevice decides the end of a device of the caller's account: its own, which
// logs it out, or another one after a login less than FreshMS ago. With a KeySet
// the others go on with another hybrid key at once. The same again is Ok. ErrStale:
// the account's keys changed since the preparation. Refusals: Forbidden REAUTH,
// WRONG_ACCOUNT; NotFound NO_SUCH_KEY; BadRequest IDENTITY_KEY, KEYSET_VERSION,
// KEYSET_INVALID, KEY_REVOKED.
func RevokeDevice(tx *Tx, d *DeviceRemoval) (*pb.RevokeDeviceResponse, error) {
	account, err := ownAccount(tx)
	if err != nil {
		return nil, err
	}
	r, caller := d.revocation, tx.Caller()
	if err := r.checkDevice(tx.View(), &account); err != nil {
		return nil, err
	}
	if r.key != caller.DeviceKey {
		if err := caller.RequireFresh(tx.Now()); err != nil {
			return nil, err
		}
	}
	step, err := d.nextStep(tx.View(), &account)
	if err != nil {
		return nil, err
	}
	revocation, err := r.emit(tx, r.deviceAuthority(&account), nil)
	if err != nil {
		return nil, err
	}
	if step != nil {
		if err := step.emit(tx); err != nil {
			return nil, err
		}
	}
	version, due, err := keySetState(tx.View(), account.ID)
	if err != nil {
		return nil, err
	}
	return &pb.RevokeDeviceResponse{Revocation: revocation, KeysetVersion: version, HybridRotationDue: due, ServerTimeMs: tx.Now()}, nil
}

// nextStep is the KeySet to write: nil without one, and for one that stands.
func (d *DeviceRemoval) nextStep(view projections.Reader, account *projections.Account) (*keySetStep, error) {
	if d.step == nil {
		return nil, nil
	}
	if account.IdentityKey == d.step.identity && !slices.Contains(account.Devices, d.revocation.key) {
		if done, err := d.step.stands(view); err != nil || done {
			return nil, err
		}
	}
	return d.step, d.step.check(view, account, without(account.Devices, d.revocation.key), renewHybridKey)
}

// tellRemoved tells the other devices of an account that one was revoked. It is
// called before the revocation, while the device's account is known by it.
func tellRemoved(tx *Tx, key projections.Key, revocation *pb.Revocation) error {
	device, active, err := projections.DeviceByKey(tx.View(), key)
	if err != nil || !active {
		return err
	}
	devices, _, err := projections.DevicesOf(tx.View(), nil, device.AccountID)
	if err != nil {
		return err
	}
	return SendControl(tx, device.AccountID, without(devices, key), &pb.ControlItem{
		Kind: &pb.ControlItem_DeviceRemoved{DeviceRemoved: &pb.DeviceRemoved{
			DeviceKey: key[:], Reason: revocation.GetReason(), Authority: revocation.GetAuthority(),
		}},
	})
}

// NewRevokeDevice makes the command of a RevokeDevice from what
// PrepareDeviceRemoval made of the same request.
func NewRevokeDevice(rule *pb.Rule, req *pb.RevokeDeviceRequest, d *DeviceRemoval) (*Command, error) {
	c, err := NewCommand(rule, req, func(tx *Tx) (*pb.RevokeDeviceResponse, error) { return RevokeDevice(tx, d) })
	if err == nil {
		c.Entries = MaxDevices
	}
	return c, err
}

// ListDevices answers with the devices of the caller's account, its newest KeySet
// and what is revoked, from the published view. Refusals: NotFound NO_SUCH_USER
// when the proof's checkpoint does not know the account yet; those of Proofs.
func ListDevices(v *View, _ *pb.ListDevicesRequest) (*pb.ListDevicesResponse, error) {
	account, found, err := projections.AccountByID(v.Reader, v.Caller.Account)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, Refuse(pb.Status_NotFound, pb.Reason_NO_SUCH_USER, "the account is newer than this proof: ask again")
	}
	keySet, _, err := projections.KeySet(v.Reader, account.IdentityKey)
	if err != nil {
		return nil, err
	}
	resp := &pb.ListDevicesResponse{
		Username: account.Username, Keyset: keySet, HybridRotationDue: rotationDue(account.Devices, keySet),
		MaxDevices: MaxDevices, ServerTimeMs: v.Now,
	}
	if resp.IdentityRevocation, _, err = projections.Revocation(v.Reader, account.IdentityKey); err != nil {
		return nil, err
	}
	keys := slices.Clone(account.Devices)
	for _, listed := range keySet.GetDeviceKeys() {
		if key := projections.Key(listed); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		device, err := describeDevice(v, key, keySet)
		if err != nil {
			return nil, err
		}
		resp.Devices = append(resp.Devices, device)
	}
	if v.Proofs == nil {
		return resp, nil
	}
	if err := v.Proofs.Person(account.Username); err != nil {
		return nil, err
	}
	resp.Proof, err = v.Proofs.Proof()
	return resp, err
}

func describeDevice(v *View, key projections.Key, keySet *pb.KeySet) (*pb.ListDevicesResponse_Device, error) {
	device, active, err := projections.DeviceByKey(v.Reader, key)
	if err != nil {
		return nil, err
	}
	revocation, _, err := projections.Revocation(v.Reader, key)
	if err != nil {
		return nil, err
	}
	return &pb.ListDevicesResponse_Device{
		DeviceKey: key[:], AddedMs: device.AddedMS, Active: active, Revocation: revocation,
		Current: v.Caller.IsDevice() && key == v.Caller.DeviceKey,
		Listed:  slices.ContainsFunc(keySet.GetDeviceKeys(), func(listed []byte) bool { return projections.Key(listed) == key }),
	}, nil
}
