package main

import (
	"encoding/hex"

	pb "quicprochat/proto/qpcv1"
)

// notice shows what the server itself put into the queue. It is the server's word
// only; what it means for keys is checked at the next look-up.
func (r *reader) notice(item *pb.ControlItem) error {
	switch kind := item.GetKind().(type) {
	case *pb.ControlItem_DeviceAdded:
		device := kind.DeviceAdded
		return r.app.print(map[string]any{
			"control": "device_added", "device": device.GetDeviceKey(), "keyset_version": device.GetKeysetVersion(), "replaced": device.GetReplaced(),
		}, "Your account has a new device, key %s. If it is not yours, revoke it ('qpc device revoke') and change your password ('qpc passwd').", fingerprint(device.GetDeviceKey()))
	case *pb.ControlItem_DeviceRemoved:
		device := kind.DeviceRemoved
		return r.app.print(map[string]any{
			"control": "device_removed", "device": device.GetDeviceKey(), "reason": device.GetReason(), "authority": device.GetAuthority().String(),
		}, "The device with key %s was removed from your account.", fingerprint(device.GetDeviceKey()))
	case *pb.ControlItem_KeyRotationRequested:
		rotation := kind.KeyRotationRequested
		return r.app.print(map[string]any{
			"control": "key_rotation_requested", "channel": hex.EncodeToString(rotation.GetChannelId()), "requested_by": rotation.GetRequestedBy(), "epoch": rotation.GetEpoch(),
		}, "Members of the channel %s are asked to make new keys (for MLS programs; qpc has none of a channel).", r.channelName(rotation.GetChannelId()))
	}
	r.warn("the server sent a notice that this qpc does not know: a newer one shows it")
	return nil
}
