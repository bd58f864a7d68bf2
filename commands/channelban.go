package commands

import (
	"cmp"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// rules is the caller's seat in a channel, if it allows keeping others out, with the
// account that is meant. Refusals: those of seatOf; Forbidden CHANNEL_ROLE_TOO_LOW,
// NOT_JOINED; NotFound NO_SUCH_USER.
func rules(tx *Tx, channelID []byte, username string) (s seat, account projections.Account, err error) {
	if s, err = seatOf(tx.View(), channelID, tx.Caller()); err != nil {
		return s, account, err
	}
	if err := cmp.Or(s.require(pb.ChannelRole_CHANNEL_ADMIN), s.requireJoined()); err != nil {
		return s, account, err
	}
	account, found, err := projections.AccountByName(tx.View(), username)
	if err == nil && !found {
		err = errNoSuchUser
	}
	return s, account, err
}

// decideInChannel keeps somebody out of a channel; a member, whose role must be lower
// than the caller's, is put out. The same ban again changes nothing.
func (b *ban) decideInChannel(tx *Tx, channelID []byte) error {
	if b.untilMS != 0 && b.untilMS <= tx.Now() {
		return invalid("until_ms lies in the past")
	}
	s, account, err := rules(tx, channelID, b.username)
	if err != nil {
		return err
	}
	member, isMember, err := projections.MemberOf(tx.View(), s.channel.ID, account.ID)
	if err != nil {
		return err
	}
	if isMember && member.Role >= s.member.Role {
		return errChannelRole
	}
	standing, found, err := projections.ChannelBanOf(tx.View(), s.channel.ID, account.ID)
	if err != nil {
		return err
	}
	if found && !isMember && !standing.OverAt(tx.Now()) && standing.UntilMS == b.untilMS && standing.Reason == b.reason {
		return nil
	}
	err = tx.Emit(&pb.Event{Body: &pb.Event_ChannelUserBanned{ChannelUserBanned: &pb.ChannelUserBanned{
		ChannelId: s.channel.ID[:], AccountId: account.ID[:], ActorId: s.member.Account[:], UntilMs: b.untilMS, Reason: b.reason,
	}}})
	if err != nil || !isMember {
		return err
	}
	return emitMembers(tx, s.channel.ID, &pb.ChannelMembersChanged{Removed: [][]byte{account.ID[:]}})
}

// decideInChannel lets somebody into a channel again: an invitation is needed then.
func (l *lift) decideInChannel(tx *Tx, channelID []byte) error {
	s, account, err := rules(tx, channelID, l.username)
	if err != nil {
		return err
	}
	ban, found, err := projections.ChannelBanOf(tx.View(), s.channel.ID, account.ID)
	if err != nil {
		return err
	}
	if !found || ban.OverAt(tx.Now()) {
		return Refuse(pb.Status_NotFound, pb.Reason_NOT_BANNED, "%s is not banned from the channel", l.username)
	}
	return tx.Emit(&pb.Event{Body: &pb.Event_ChannelUserUnbanned{ChannelUserUnbanned: &pb.ChannelUserUnbanned{
		ChannelId: s.channel.ID[:], AccountId: account.ID[:], ActorId: s.member.Account[:], Reason: l.reason,
	}}})
}

// listChannelBans answers who is kept out of a channel, to those who may keep out.
func listChannelBans(v *View, req *pb.ListBannedRequest) (*pb.ListBannedResponse, error) {
	s, err := seatOf(v.Reader, req.GetChannelId(), &v.Caller)
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(s.require(pb.ChannelRole_CHANNEL_ADMIN), s.requireJoined()); err != nil {
		return nil, err
	}
	if req.GetUsername() != "" {
		return nil, invalid("username goes with scope WHOLE_SERVER")
	}
	bans, next, err := pageOfBans(v, req.GetAfter(), req.GetMaxEntries(), func(after projections.ID, limit int) ([]projections.Ban, error) {
		return projections.ChannelBans(v.Reader, s.channel.ID, after, limit)
	})
	return &pb.ListBannedResponse{Bans: bans, Next: next}, err
}

// expireChannelBans ends bans from channels whose time is over.
func expireChannelBans(tx *Tx) (more bool, err error) {
	over, err := projections.ChannelBansOver(tx.View(), tx.Now(), expiryLimit)
	if err != nil || len(over) == 0 {
		return false, err
	}
	ended := new(pb.ChannelBansExpired)
	for i := range over {
		ended.Bans = append(ended.Bans, &pb.ChannelBansExpired_Ban{ChannelId: over[i][0][:], AccountId: over[i][1][:]})
	}
	return len(over) >= expiryLimit, tx.Emit(&pb.Event{Body: &pb.Event_ChannelBansExpired{ChannelBansExpired: ended}})
}
