package commands

import (
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// Passing is an EPHEMERAL message with the devices that it is for, whoever of them
// is connected. It is no event: nobody can tell later that it was sent.
type Passing struct {
	Devices []projections.Key
	Push    *pb.PushTyping
}

// Pass judges an EPHEMERAL Enqueue on the published view. Without a recipient it is
// for all who have joined the channel but the sending device; in a channel with
// typing off for nobody, which the sender is not told. Refusals: BadRequest
// MISSING_FIELD, INVALID_FIELD, KEY_INVALID, PAYLOAD_TOO_LARGE; those of seatOf;
// Forbidden NOT_JOINED of sender or recipient.
func Pass(v *View, req *pb.EnqueueRequest) (*Passing, error) {
	switch n := len(req.GetPayload()); {
	case n == 0:
		return nil, missing("payload")
	case n > MaxPassing:
		return nil, tooLarge("an EPHEMERAL payload", n, MaxPassing)
	case req.GetTtlS() > 0:
		return nil, invalid("ttl_s: an EPHEMERAL message does not wait")
	}
	s, err := seatOf(v.Reader, req.GetChannelId(), &v.Caller)
	if err == nil {
		err = s.requireJoined()
	}
	if err != nil {
		return nil, err
	}
	accounts, device, err := s.listeners(v, req)
	if err != nil {
		return nil, err
	}
	sender, _, err := projections.AccountByID(v.Reader, s.member.Account)
	if err != nil {
		return nil, err
	}
	p := &Passing{Push: &pb.PushTyping{
		ChannelId: s.channel.ID[:], SenderKey: sender.IdentityKey[:], SenderDevice: v.Caller.DeviceKey[:],
		Payload: req.GetPayload(), ServerTimeMs: v.Now,
	}}
	switch {
	case s.channel.Settings.TypingOff:
		return p, nil
	case device != nil:
		p.Devices = []projections.Key{*device}
		return p, nil
	}
	for _, account := range accounts {
		if p.Devices, err = reachableDevices(v.Reader, v.Now, account, p.Devices); err != nil {
			return nil, err
		}
	}
	for i, device := range p.Devices {
		if device == v.Caller.DeviceKey {
			p.Devices = append(p.Devices[:i], p.Devices[i+1:]...)
			break
		}
	}
	return p, nil
}

// listeners are the accounts that a passing message is for, or the one device.
func (s *seat) listeners(v *View, req *pb.EnqueueRequest) (accounts []projections.ID, device *projections.Key, err error) {
	if req.GetRecipient() == nil {
		err = projections.ScanMembers(v.Reader, s.channel.ID, projections.ID{}, func(m *projections.ChannelMember) bool {
			if m.State == pb.MemberState_JOINED {
				accounts = append(accounts, m.Account)
			}
			return true
		})
		return accounts, nil, err
	}
	var to recipientName
	field, key := "recipient_key", req.GetRecipientKey()
	if to.isDevice = len(req.GetRecipientDevice()) > 0; to.isDevice {
		field, key = "recipient_device", req.GetRecipientDevice()
	}
	if to.key, err = keyOf(field, key); err != nil {
		return nil, nil, err
	}
	if err := bothJoined(v.Reader, req.GetChannelId(), &v.Caller, to); err != nil {
		return nil, nil, err
	}
	account, devices, err := activeDevices(v.Reader, v.Now, to, nil)
	if to.isDevice && len(devices) > 0 {
		device = &to.key
	}
	return []projections.ID{account}, device, err
}
