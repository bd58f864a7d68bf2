package commands

import (
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// ListGroupMembers answers with a page of a channel's members from the published
// view, in the order of account ids, which means nothing. Refusals: those of
// seatOf; BadRequest KEY_INVALID; NotFound NO_SUCH_MEMBER for an after that is
// nobody's key.
func ListGroupMembers(v *View, req *pb.ListGroupMembersRequest) (*pb.ListGroupMembersResponse, error) {
	s, err := seatOf(v.Reader, req.GetChannelId(), &v.Caller)
	if err != nil {
		return nil, err
	}
	var after projections.ID
	if len(req.GetAfter()) > 0 {
		if _, err := keyOf("after", req.GetAfter()); err != nil {
			return nil, err
		}
		owner, found, err := projections.KeyOwner(v.Reader, projections.Key(req.GetAfter()))
		if err != nil {
			return nil, err
		}
		if !found { // a member who left since is still somebody
			return nil, Refuse(pb.Status_NotFound, pb.Reason_NO_SUCH_MEMBER, "after is nobody's identity key")
		}
		after = owner.AccountID
	}
	limit := pageItems(req.GetMaxItems())
	if limit == 0 {
		limit = MaxPageItems
	}
	response := &pb.ListGroupMembersResponse{}
	var page []projections.ChannelMember
	err = projections.ScanMembers(v.Reader, s.channel.ID, after, func(m *projections.ChannelMember) bool {
		if response.More = len(page) == limit; response.More {
			return false
		}
		page = append(page, *m)
		return true
	})
	if err != nil {
		return nil, err
	}
	for i := range page {
		m := &page[i]
		account, _, err := projections.AccountByID(v.Reader, m.Account)
		if err != nil {
			return nil, err
		}
		response.Members = append(response.Members, &pb.ChannelMember{
			IdentityKey: account.IdentityKey[:], Role: m.Role, State: m.State,
			JoinedMs: m.JoinedMS, AddedMs: m.AddedMS, Presence: m.Presence,
		})
	}
	response.Channel, err = channelInfo(v.Reader, &s.channel)
	return response, err
}

func channelInfo(view projections.Reader, c *projections.Channel) (*pb.ChannelInfo, error) {
	name, description, err := projections.ChannelText(view, c.ID)
	if err != nil {
		return nil, err
	}
	rotation, err := rotationInfo(view, c)
	if err != nil {
		return nil, err
	}
	return &pb.ChannelInfo{
		Rotation: rotation,
		Name:     name, Description: description, Version: c.Version, Epoch: c.Epoch, LastSeq: c.LastSeq,
		Members: c.Members, CreatedMs: c.CreatedMS,
		Settings: &pb.ChannelSettings{
			Posting: c.Settings.Posting, CommitOrder: c.Settings.CommitOrder,
			TypingOff: c.Settings.TypingOff, Presence: c.Settings.Presence,
		},
	}, nil
}

// rotationInfo tells how far the newest rotation got; nil: there was none.
func rotationInfo(view projections.Reader, c *projections.Channel) (*pb.KeyRotation, error) {
	if c.Rotation.AskedMS == 0 {
		return nil, nil
	}
	info := &pb.KeyRotation{RequestedMs: c.Rotation.AskedMS}
	asker := false
	err := projections.ScanMembers(view, c.ID, projections.ID{}, func(m *projections.ChannelMember) bool {
		asker = asker || m.Account == c.Rotation.By
		if m.State == pb.MemberState_JOINED {
			info.Joined++
			if m.CommitSeq > c.Rotation.Seq {
				info.Committed++
			}
		}
		return true
	})
	if err != nil || !asker {
		return info, err
	}
	account, _, err := projections.AccountByID(view, c.Rotation.By)
	info.RequestedBy = account.IdentityKey[:]
	return info, err
}
