package commands

import (
	"bytes"
	"cmp"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// newcomers turns identity keys into the accounts that are not in the channel
// yet, each once. Refusals: NotFound NO_SUCH_USER; BadRequest CHANNEL_FULL;
// Forbidden CHANNEL_BANNED.
func newcomers(tx *Tx, channel *projections.Channel, caller projections.ID, keys [][]byte) ([][]byte, error) {
	view := tx.View()
	var added [][]byte
	seen := map[projections.ID]bool{caller: true}
	for _, key := range keys {
		account, err := accountOfKey(view, key)
		if err != nil {
			return nil, err
		}
		if seen[account] {
			continue
		}
		seen[account] = true
		if _, found, err := projections.MemberOf(view, channel.ID, account); err != nil {
			return nil, err
		} else if found {
			continue
		}
		if err := mayJoin(view, tx.Now(), channel.ID, account); err != nil {
			return nil, err
		}
		added = append(added, account[:])
	}
	if int(channel.Members)+len(added) > MaxChannelMembers {
		return nil, &Refusal{
			Status: pb.Status_BadRequest, Reason: pb.Reason_CHANNEL_FULL, Limit: MaxChannelMembers,
			Message: "the channel would have too many members",
		}
	}
	return added, nil
}

// accountOfKey finds whose identity key this is. Refusal: NotFound NO_SUCH_USER.
func accountOfKey(view projections.Reader, key []byte) (projections.ID, error) {
	owner, found, err := projections.KeyOwner(view, projections.Key(key))
	if err != nil {
		return projections.ID{}, err
	}
	if !found || !owner.IsIdentity || owner.Revoked {
		return projections.ID{}, Refuse(pb.Status_NotFound, pb.Reason_NO_SUCH_USER, "nobody here has one of these identity keys")
	}
	return owner.AccountID, nil
}

// mayJoin is asked before an account is taken into a channel, by whatever way.
// Refusal: Forbidden CHANNEL_BANNED.
func mayJoin(view projections.Reader, now uint64, channel, account projections.ID) error {
	ban, found, err := projections.ChannelBanOf(view, channel, account)
	if err == nil && found && !ban.OverAt(now) {
		err = Refuse(pb.Status_Forbidden, pb.Reason_CHANNEL_BANNED, "somebody of these is banned from the channel: lift the ban first")
	}
	return err
}

// emitMembers emits a change of members in the caller's name.
func emitMembers(tx *Tx, channel projections.ID, change *pb.ChannelMembersChanged) error {
	actor := tx.Caller().Account
	change.ChannelId, change.ActorId = channel[:], actor[:]
	return tx.Emit(&pb.Event{Body: &pb.Event_ChannelMembersChanged{ChannelMembersChanged: change}})
}

// AddMember decides invitations. Who is in the channel already stays as they are.
// Refusals: those of seatOf; Forbidden CHANNEL_ROLE_TOO_LOW, NOT_JOINED; those of
// newcomers.
func AddMember(tx *Tx, req *pb.AddMemberRequest) (*pb.AddMemberResponse, error) {
	s, err := seatOf(tx.View(), req.GetChannelId(), tx.Caller())
	if err != nil {
		return nil, err
	}
	added, err := s.invite(tx, req.GetMembers())
	if err != nil {
		return nil, err
	}
	if len(added) > 0 {
		err = emitMembers(tx, s.channel.ID, &pb.ChannelMembersChanged{Added: added})
	}
	if err != nil {
		return nil, err
	}
	return &pb.AddMemberResponse{Added: uint32(len(added)), ServerTimeMs: tx.Now()}, nil
}

// invite finds the accounts that the caller may add.
func (s *seat) invite(tx *Tx, keys [][]byte) ([][]byte, error) {
	if err := cmp.Or(s.require(pb.ChannelRole_CHANNEL_ADMIN), s.requireJoined()); err != nil {
		return nil, err
	}
	return newcomers(tx, &s.channel, tx.Caller().Account, keys)
}

// NewAddMember makes the command of an AddMember.
func NewAddMember(rule *pb.Rule, req *pb.AddMemberRequest) (*Command, error) {
	if len(req.GetMembers())+len(req.GetRemoteMembers()) == 0 {
		return nil, missing("members")
	}
	if err := checkMemberKeys("members", req.GetMembers(), req.GetRemoteMembers()); err != nil {
		return nil, err
	}
	return NewCommand(rule, req, func(tx *Tx) (*pb.AddMemberResponse, error) { return AddMember(tx, req) })
}

// RemoveMember decides that somebody leaves or is put out. When the last owner
// leaves, the one who is first in line takes over; when nobody is left, the
// channel is gone. Refusals: those of seatOf; NotFound NO_SUCH_MEMBER; Forbidden
// CHANNEL_ROLE_TOO_LOW.
func RemoveMember(tx *Tx, req *pb.RemoveMemberRequest) (*pb.RemoveMemberResponse, error) {
	s, err := seatOf(tx.View(), req.GetChannelId(), tx.Caller())
	if err != nil {
		return nil, err
	}
	leaver, err := s.memberByKey(tx.View(), req.GetIdentityKey())
	if err != nil {
		return nil, err
	}
	if err := s.mayRemove(leaver); err != nil {
		return nil, err
	}
	response := &pb.RemoveMemberResponse{ServerTimeMs: tx.Now()}
	change := &pb.ChannelMembersChanged{Removed: [][]byte{leaver.Account[:]}}
	switch {
	case s.channel.Members == 1:
		response.ChannelGone = true
	case leaver.Role == pb.ChannelRole_CHANNEL_OWNER && s.channel.Owners == 1:
		heir, err := s.heir(tx.View(), leaver.Account)
		if err != nil {
			return nil, err
		}
		account, _, err := projections.AccountByID(tx.View(), heir)
		if err != nil {
			return nil, err
		}
		change.NewOwner, response.NewOwner = heir[:], account.IdentityKey[:]
	}
	return response, emitMembers(tx, s.channel.ID, change)
}

// memberByKey finds a member by identity key, also one that was replaced. Refusal:
// NotFound NO_SUCH_MEMBER.
func (s *seat) memberByKey(view projections.Reader, key []byte) (*projections.ChannelMember, error) {
	owner, found, err := projections.KeyOwner(view, projections.Key(key))
	if err != nil {
		return nil, err
	}
	var m projections.ChannelMember
	if found && owner.IsIdentity {
		m, found, err = projections.MemberOf(view, s.channel.ID, owner.AccountID)
	}
	if err != nil {
		return nil, err
	}
	if !found || !owner.IsIdentity {
		return nil, Refuse(pb.Status_NotFound, pb.Reason_NO_SUCH_MEMBER, "nobody in the channel has this identity key")
	}
	return &m, nil
}

// mayRemove says who may put out whom: everybody themselves, owners everybody,
// admins those without a role.
func (s *seat) mayRemove(m *projections.ChannelMember) error {
	if m.Account == s.member.Account || s.member.Role == pb.ChannelRole_CHANNEL_OWNER {
		return nil
	}
	if m.Role >= s.member.Role {
		return errChannelRole
	}
	return cmp.Or(s.require(pb.ChannelRole_CHANNEL_ADMIN), s.requireJoined())
}

// heir is who becomes owner when the last one leaves: an admin before others, who
// joined before who was only invited, then who was added first.
func (s *seat) heir(view projections.Reader, leaver projections.ID) (projections.ID, error) {
	var best *projections.ChannelMember
	err := projections.ScanMembers(view, s.channel.ID, projections.ID{}, func(m *projections.ChannelMember) bool {
		if m.Account != leaver && (best == nil || before(m, best)) {
			next := *m
			best = &next
		}
		return true
	})
	if err != nil || best == nil {
		return projections.ID{}, err
	}
	return best.Account, nil
}

func before(a, b *projections.ChannelMember) bool {
	return cmp.Or(
		-cmp.Compare(a.State, b.State),
		-cmp.Compare(a.Role, b.Role),
		cmp.Compare(a.AddedMS, b.AddedMS),
		bytes.Compare(a.Account[:], b.Account[:]),
	) < 0
}

// NewRemoveMember makes the command of a RemoveMember.
func NewRemoveMember(rule *pb.Rule, req *pb.RemoveMemberRequest) (*Command, error) {
	if _, err := keyOf("identity_key", req.GetIdentityKey()); err != nil {
		return nil, err
	}
	return NewCommand(rule, req, func(tx *Tx) (*pb.RemoveMemberResponse, error) { return RemoveMember(tx, req) })
}
