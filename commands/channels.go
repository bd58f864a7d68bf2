package commands

import (
	"fmt"
	"time"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// Limits of channels.
const (
	// MaxChannelMembers is the most members of one channel, invited ones too.
	MaxChannelMembers = 1_000
	// MaxRoleChanges is the most roles changed by one UpdateGroupMetadata.
	MaxRoleChanges = 100
	// MaxPassing is the longest payload of an EPHEMERAL message in bytes.
	MaxPassing = 1 << 10
	// RotationPause is how long after a RotateKeys the next one may come.
	RotationPause = 10 * time.Minute
	// ChannelIDSize is the random id of a channel in bytes.
	ChannelIDSize = 16
)

// seat is a caller in a channel, as the view has both.
type seat struct {
	channel projections.Channel
	member  projections.ChannelMember
}

// seatOf finds the caller in a channel. Whoever is not in it does not learn
// whether it exists. Refusals: BadRequest MISSING_FIELD, INVALID_FIELD for an id of
// another length; Forbidden NOT_A_MEMBER.
func seatOf(view projections.Reader, channelID []byte, caller *Caller) (s seat, err error) {
	id, err := channelIDOf(channelID)
	if err != nil {
		return s, err
	}
	var found bool
	if s.member, found, err = projections.MemberOf(view, id, caller.Account); err != nil {
		return s, err
	}
	if !found {
		return s, errNotAMember
	}
	if s.channel, found, err = projections.ChannelByID(view, id); err == nil && !found {
		err = fmt.Errorf("commands: a member of a channel that does not exist")
	}
	return s, err
}

// channelIDOf reads the id of a channel from a request.
func channelIDOf(id []byte) (projections.ID, error) {
	switch len(id) {
	case ChannelIDSize:
		return projections.ID(id), nil
	case 0:
		return projections.ID{}, missing("channel_id")
	}
	return projections.ID{}, invalid("channel_id has %d bytes, not %d", len(id), ChannelIDSize)
}

// require refuses a caller whose role in the channel is below least.
func (s *seat) require(least pb.ChannelRole) error {
	if s.member.Role < least {
		return errChannelRole
	}
	return nil
}

// requireJoined refuses a caller who has not accepted the invitation.
func (s *seat) requireJoined() error {
	if s.member.State != pb.MemberState_JOINED {
		return errNotJoined
	}
	return nil
}

var (
	errNotAMember  = Refuse(pb.Status_Forbidden, pb.Reason_NOT_A_MEMBER, "you are not a member of such a channel")
	errChannelRole = Refuse(pb.Status_Forbidden, pb.Reason_CHANNEL_ROLE_TOO_LOW, "your role in the channel does not allow this")
	errNotJoined   = Refuse(pb.Status_Forbidden, pb.Reason_NOT_JOINED, "accept the invitation to the channel first")
)

// bothJoined refuses a message within a channel unless sender and recipient have
// joined it. Refusals: those of seatOf; Forbidden NOT_JOINED.
func bothJoined(view projections.Reader, channelID []byte, caller *Caller, to recipientName) error {
	s, err := seatOf(view, channelID, caller)
	if err == nil {
		err = s.requireJoined()
	}
	if err != nil {
		return err
	}
	account, _, err := recipientAccount(view, to)
	if err != nil {
		return err
	}
	m, found, err := projections.MemberOf(view, s.channel.ID, account)
	if err != nil {
		return err
	}
	if !found || m.State != pb.MemberState_JOINED {
		return Refuse(pb.Status_Forbidden, pb.Reason_NOT_JOINED, "the recipient has not joined the channel")
	}
	return nil
}

// checkChannelText refuses a name or description that is too long.
func checkChannelText(name, description []byte) error {
	switch {
	case len(name) > projections.MaxChannelName:
		return invalid("name has %d bytes, at most %d are allowed", len(name), projections.MaxChannelName)
	case len(description) > projections.MaxChannelDescription:
		return invalid("description has %d bytes, at most %d are allowed", len(description), projections.MaxChannelDescription)
	}
	return nil
}

// checkChannelSettings refuses rules that this server does not know.
func checkChannelSettings(s *pb.ChannelSettings) error {
	if _, known := pb.PostingRule_name[int32(s.GetPosting())]; !known {
		return invalid("settings.posting %d is unknown", s.GetPosting())
	}
	if _, known := pb.CommitOrder_name[int32(s.GetCommitOrder())]; !known {
		return invalid("settings.commit_order %d is unknown", s.GetCommitOrder())
	}
	return nil
}

// checkMemberKeys refuses a list of people that can't be one of members.
func checkMemberKeys(field string, keys [][]byte, remote []string) error {
	if len(remote) > 0 {
		return notSupported("members of other servers are")
	}
	if len(keys) >= MaxChannelMembers {
		return tooMany(field, len(keys), MaxChannelMembers-1)
	}
	for i, key := range keys {
		if _, err := keyOf(fmt.Sprintf("%s[%d]", field, i), key); err != nil {
			return err
		}
	}
	return nil
}

// CreateChannel decides a new channel: the caller is its owner and joined, the
// people named are invited. Refusals: BadRequest INVALID_FIELD, KEY_INVALID,
// TOO_MANY_ITEMS, NOT_SUPPORTED for members of other servers; NotFound
// NO_SUCH_USER.
func CreateChannel(tx *Tx, req *pb.CreateChannelRequest) (*pb.CreateChannelResponse, error) {
	channel := projections.Channel{ID: tx.NewID(), Members: 1}
	creator := tx.Caller().Account
	added, err := newcomers(tx.View(), &channel, creator, req.GetMembers())
	if err != nil {
		return nil, err
	}
	err = tx.Emit(&pb.Event{Body: &pb.Event_ChannelCreated{ChannelCreated: &pb.ChannelCreated{
		ChannelId: channel.ID[:], CreatorId: creator[:],
		Name: req.GetName(), Description: req.GetDescription(), Settings: req.GetSettings(),
	}}})
	if err == nil && len(added) > 0 {
		err = emitMembers(tx, channel.ID, &pb.ChannelMembersChanged{Added: added})
	}
	if err != nil {
		return nil, err
	}
	return &pb.CreateChannelResponse{ChannelId: channel.ID[:], ServerTimeMs: tx.Now()}, nil
}

// NewCreateChannel makes the command of a CreateChannel. Refusals are those that
// need no view.
func NewCreateChannel(rule *pb.Rule, req *pb.CreateChannelRequest) (*Command, error) {
	if err := checkChannelText(req.GetName(), req.GetDescription()); err != nil {
		return nil, err
	}
	if err := checkChannelSettings(req.GetSettings()); err != nil {
		return nil, err
	}
	if err := checkMemberKeys("members", req.GetMembers(), req.GetRemoteMembers()); err != nil {
		return nil, err
	}
	return NewCommand(rule, req, func(tx *Tx) (*pb.CreateChannelResponse, error) { return CreateChannel(tx, req) })
}
