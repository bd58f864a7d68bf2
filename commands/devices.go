package commands

import (
	"slices"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// DeviceRegistration is a RegisterDeviceRequest, verified outside the writer. Only
// PrepareDevice makes one.
type DeviceRegistration struct {
	step    *keySetStep
	device  [KeySize]byte
	nextEnd revocation     // where a revocation of the device key would stand
	removal *KeyRevocation // of the replaced device; nil without one
}

// PrepareDevice verifies a new device by itself: its key is acceptable and
// consented to belong to the KeySet's identity, the KeySet verifies, and a
// signature for the replaced device is its own or that of the identity. Refusals:
// BadRequest MISSING_FIELD, INVALID_FIELD, KEY_INVALID, SIGNATURE_INVALID,
// KEYSET_INVALID; NotFound NO_SUCH_KEY for a replaced device that never was.
func PrepareDevice(view projections.Reader, serverName string, vrf *kt.VRFPrivateKey, req *pb.RegisterDeviceRequest) (*DeviceRegistration, error) {
	device := req.GetDevice()
	if device == nil {
		return nil, missing("device")
	}
	if err := kt.ValidatePublicKey(device.GetDeviceKey()); err != nil {
		return nil, refuseStatement("device.device_key", err)
	}
	step, err := prepareKeySet(view, serverName, vrf, req.GetKeyset())
	if err != nil {
		return nil, err
	}
	consent := statement.Device{ServerName: serverName, IdentityKey: step.identity[:], DeviceKey: device.GetDeviceKey()}
	if err := consent.Verify(device.GetDeviceKey(), device.GetSignature()); err != nil {
		return nil, refuseStatement("device.signature", err)
	}
	d := &DeviceRegistration{step: step, device: [KeySize]byte(device.GetDeviceKey())}
	d.nextEnd = prepareRevocation(vrf, d.device)
	if len(req.GetReplaces()) == 0 {
		if req.GetReason() != 0 || len(req.GetSignature()) > 0 {
			return nil, invalid("reason and signature belong to a device that is replaced")
		}
		return d, nil
	}
	d.removal, err = prepareRemoval(view, serverName, vrf, "replaces", req.GetReplaces(), req.GetReason(), req.GetSignature())
	if err != nil {
		return nil, err
	}
	d.removal.untold = true // DeviceAdded tells both
	return d, nil
}

// prepareRemoval checks the revocation of a device key, signed or not.
func prepareRemoval(view projections.Reader, serverName string, vrf *kt.VRFPrivateKey, field string, key []byte, reason uint32, signature []byte) (*KeyRevocation, error) {
	if _, err := keyOf(field, key); err != nil {
		return nil, err
	}
	r, account, err := findRevoked(view, vrf, key, reason)
	if err != nil || len(signature) == 0 {
		return r, err
	}
	return r, r.verify(serverName, account.IdentityKey, signature)
}

// RegisterDevice decides a new device of the caller's account. The same again is Ok
// and changes nothing. A replaced device's queue goes over before it is revoked;
// the other devices are told. ErrStale: the account's keys changed since the
// preparation. Refusals: Forbidden REAUTH, WRONG_ACCOUNT; NotFound NO_SUCH_KEY;
// BadRequest KEY_IN_USE, KEY_REVOKED, IDENTITY_KEY, TOO_MANY_DEVICES,
// KEYSET_VERSION, KEYSET_INVALID; RateLimited RATE after MaxKeyChanges.
func RegisterDevice(tx *Tx, d *DeviceRegistration) (*pb.RegisterDeviceResponse, error) {
	account, err := ownAccount(tx)
	if err != nil {
		return nil, err
	}
	if caller := tx.Caller(); caller.IsDevice() { // an enroll session may do little else
		if err := caller.RequireFresh(tx.Now()); err != nil {
			return nil, err
		}
	}
	done, err := d.done(tx.View(), &account)
	if err != nil {
		return nil, err
	}
	if !done {
		if err := d.check(tx.View(), &account); err != nil {
			return nil, err
		}
		if err := refuseKeyChange(tx, account.ID); err != nil {
			return nil, err
		}
		if err := d.emit(tx, &account); err != nil {
			return nil, err
		}
	}
	version, _, err := keySetState(tx.View(), account.ID)
	if err != nil {
		return nil, err
	}
	return &pb.RegisterDeviceResponse{KeysetVersion: version, ServerTimeMs: tx.Now()}, nil
}

// done reports whether this very device was registered before with this KeySet.
func (d *DeviceRegistration) done(view projections.Reader, account *projections.Account) (bool, error) {
	if !slices.Contains(account.Devices, d.device) || account.IdentityKey != d.step.identity {
		return false, nil
	}
	return d.step.stands(view)
}

// check looks for what stands in the way.
func (d *DeviceRegistration) check(view projections.Reader, account *projections.Account) error {
	if err := refuseRevoked(view, d.device, pb.Status_BadRequest, "the device key"); err != nil {
		return err
	}
	switch revoked, err := inMap(view, d.nextEnd.label); {
	case err != nil:
		return err
	case revoked:
		return Refuse(pb.Status_BadRequest, pb.Reason_KEY_REVOKED, "the device key was revoked and can't come back")
	}
	switch _, used, err := projections.KeyOwner(view, d.device); {
	case err != nil:
		return err
	case used:
		return Refuse(pb.Status_BadRequest, pb.Reason_KEY_IN_USE, "the device key belongs to an account already")
	}
	staying, renew := account.Devices, keepHybridKey
	if d.removal != nil {
		if err := d.removal.checkDevice(view, account); err != nil {
			return err
		}
		if !slices.Contains(staying, d.removal.key) {
			return Refuse(pb.Status_BadRequest, pb.Reason_KEY_REVOKED, "the replaced device was revoked, and its queue is gone")
		}
		staying, renew = without(staying, d.removal.key), renewHybridKey
	}
	if len(staying) >= MaxDevices {
		return &Refusal{
			Status: pb.Status_BadRequest, Reason: pb.Reason_TOO_MANY_DEVICES, Limit: MaxDevices,
			Message: "the account has as many devices as it may have: revoke one, or replace one",
		}
	}
	return d.step.check(view, account, append(slices.Clone(staying), d.device), renew)
}

// emit writes the device, its KeySet, the end of the replaced one, and tells the
// others.
func (d *DeviceRegistration) emit(tx *Tx, account *projections.Account) error {
	registered := &pb.DeviceRegistered{AccountId: account.ID[:], DeviceKey: d.device[:], RevocationLabel: d.nextEnd.event()}
	added := &pb.DeviceAdded{DeviceKey: d.device[:], KeysetVersion: d.step.keySet.GetVersion()}
	others := account.Devices
	if d.removal != nil {
		registered.Replaces, added.Replaced = d.removal.key[:], d.removal.key[:]
		others = without(others, d.removal.key)
	}
	if err := tx.Emit(&pb.Event{Body: &pb.Event_DeviceRegistered{DeviceRegistered: registered}}); err != nil {
		return err
	}
	if err := d.step.emit(tx); err != nil {
		return err
	}
	if d.removal != nil {
		if _, err := d.removal.emit(tx, d.removal.deviceAuthority(account), nil); err != nil {
			return err
		}
	}
	return SendControl(tx, account.ID, others, &pb.ControlItem{Kind: &pb.ControlItem_DeviceAdded{DeviceAdded: added}})
}

// NewRegisterDevice makes the command of a RegisterDevice from what PrepareDevice
// made of the same request.
func NewRegisterDevice(rule *pb.Rule, req *pb.RegisterDeviceRequest, d *DeviceRegistration) (*Command, error) {
	c, err := NewCommand(rule, req, func(tx *Tx) (*pb.RegisterDeviceResponse, error) { return RegisterDevice(tx, d) })
	if err == nil {
		c.Entries = MaxDevices
	}
	return c, err
}

// checkDevice refuses what is no device of the account, and one whose end would be
// the identity's too. Refusals: NotFound NO_SUCH_KEY; BadRequest IDENTITY_KEY.
func (r *KeyRevocation) checkDevice(view projections.Reader, account *projections.Account) error {
	owner, found, err := projections.KeyOwner(view, r.key)
	switch {
	case err != nil:
		return err
	case !found || owner.AccountID != account.ID:
		return Refuse(pb.Status_NotFound, pb.Reason_NO_SUCH_KEY, "the account has no device with this key")
	case owner.IsIdentity:
		return Refuse(pb.Status_BadRequest, pb.Reason_IDENTITY_KEY, "this key is the account's identity key too: RevokeKey ends both")
	case r.signature != nil && r.signer != r.key && r.signer != account.IdentityKey:
		return ErrStale // the identity that signed was replaced meanwhile
	}
	return nil
}

// deviceAuthority tells on whose word a device of the account ends.
func (r *KeyRevocation) deviceAuthority(account *projections.Account) pb.Authority {
	switch {
	case r.signature == nil:
		return pb.Authority_SESSION_LOGIN
	case r.signer == account.IdentityKey:
		return pb.Authority_IDENTITY
	}
	return pb.Authority_KEY
}

// keySetState is the version of an account's newest KeySet, and whether its hybrid
// key should be replaced.
func keySetState(view projections.Reader, id projections.ID) (version uint32, rotation bool, err error) {
	account, _, err := projections.AccountByID(view, id)
	if err != nil {
		return 0, false, err
	}
	keySet, _, err := projections.KeySet(view, account.IdentityKey)
	if err != nil {
		return 0, false, err
	}
	return keySet.GetVersion(), rotationDue(account.Devices, keySet), nil
}

// without is a list of keys with one left out.
func without(keys []projections.Key, key projections.Key) []projections.Key {
	return slices.DeleteFunc(slices.Clone(keys), func(k projections.Key) bool { return k == key })
}
