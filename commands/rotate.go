package commands

import (
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// RotateKeys decides a request to all members of a channel to make new keys. The
// server has none of their keys: it tells every device of theirs durably, and
// counts whose commit comes (ListGroupMembers). Refusals: those of seatOf;
// Forbidden NOT_JOINED; RateLimited ROTATION_RECENT.
func RotateKeys(tx *Tx, req *pb.RotateKeysRequest) (*pb.RotateKeysResponse, error) {
	s, err := seatOf(tx.View(), req.GetChannelId(), tx.Caller())
	if err != nil {
		return nil, err
	}
	if err := s.requireJoined(); err != nil {
		return nil, err
	}
	next := s.channel.Rotation.AskedMS + uint64(RotationPause.Milliseconds())
	if s.channel.Rotation.AskedMS > 0 && tx.Now() < next && tx.Quotas() {
		return nil, &Refusal{
			Status: pb.Status_RateLimited, Reason: pb.Reason_ROTATION_RECENT,
			Message: "the members were asked less than 10 minutes ago", RetryAfterMS: next - tx.Now(),
		}
	}
	told, err := s.receivers(tx.View())
	if err != nil {
		return nil, err
	}
	asker, _, err := projections.AccountByID(tx.View(), s.member.Account)
	if err != nil {
		return nil, err
	}
	// Read before anything is emitted: a look at the views behind the last event
	// would give the receipt an event of its own.
	devices := make([][]projections.Key, len(told))
	for i, account := range told {
		if devices[i], _, err = projections.DevicesOf(tx.View(), nil, account); err != nil {
			return nil, err
		}
	}
	err = tx.Emit(&pb.Event{Body: &pb.Event_ChannelRotationRequested{ChannelRotationRequested: &pb.ChannelRotationRequested{
		ChannelId: s.channel.ID[:], ActorId: s.member.Account[:],
	}}})
	if err != nil {
		return nil, err
	}
	item := &pb.ControlItem{Kind: &pb.ControlItem_KeyRotationRequested{KeyRotationRequested: &pb.KeyRotationRequested{
		ChannelId: s.channel.ID[:], RequestedBy: asker.IdentityKey[:], Epoch: s.channel.Epoch,
	}}}
	for i, account := range told {
		if err := SendControl(tx, account, devices[i], item); err != nil {
			return nil, err
		}
	}
	return &pb.RotateKeysResponse{Told: uint32(len(told)), ServerTimeMs: tx.Now()}, nil
}

// receivers are the accounts that posts go to, the caller's included.
func (s *seat) receivers(view projections.Reader) (accounts []projections.ID, err error) {
	accounts = make([]projections.ID, 0, s.channel.Members)
	err = projections.ScanMembers(view, s.channel.ID, projections.ID{}, func(m *projections.ChannelMember) bool {
		if m.Receives() || m.Account == s.member.Account {
			accounts = append(accounts, m.Account)
		}
		return true
	})
	return accounts, err
}

// NewRotateKeys makes the command of a RotateKeys. A large channel is the estimate
// of its entries.
func NewRotateKeys(rule *pb.Rule, req *pb.RotateKeysRequest) (*Command, error) {
	c, err := NewCommand(rule, req, func(tx *Tx) (*pb.RotateKeysResponse, error) { return RotateKeys(tx, req) })
	if err != nil {
		return nil, err
	}
	c.Entries = MaxChannelMembers
	return c, nil
}
