package projections

import (
	"encoding/binary"

	pb "quicprochat/proto/qpcv1"
)

// ChannelMember is an account in a channel. Which channels an account is in has
// rows of its own; bans from a channel are no state of a member: whoever is
// banned is removed, and stands in the view of bans.
type ChannelMember struct {
	Account ID
	Role    pb.ChannelRole
	State   pb.MemberState
	// Welcomed tells that an invited member was sent a Welcome: from then on every
	// post reaches them, since a client that misses a commit can't follow any more.
	Welcomed bool
	// Presence tells that the member shares presence in this channel.
	Presence bool
	AddedMS  uint64
	JoinedMS uint64
	// CommitSeq is the channel_seq of the member's newest accepted commit.
	CommitSeq uint64
}

// Receives tells whether posts go to the member's devices.
func (m *ChannelMember) Receives() bool { return m.State == pb.MemberState_JOINED || m.Welcomed }

// Shows tells whether the member's presence is shown to others who show theirs.
func (m *ChannelMember) Shows() bool { return m.State == pb.MemberState_JOINED && m.Presence }

const (
	memberWelcomed = 1 << iota
	memberPresence
)

// applyChannelMembersChanged invites and removes; the last one to go takes the
// channel along.
func applyChannelMembersChanged(b *Batch, ev *pb.ChannelMembersChanged, nowMS uint64) error {
	c, _, err := b.channelOf(ev.GetChannelId(), ev.GetActorId())
	if err != nil {
		return err
	}
	if len(ev.GetAdded())+len(ev.GetRemoved()) == 0 {
		return invalid("a change of no members")
	}
	for _, account := range ev.GetAdded() {
		m := ChannelMember{Role: pb.ChannelRole_CHANNEL_MEMBER, State: pb.MemberState_INVITED, AddedMS: nowMS}
		if m.Account, err = fieldID(account, "account id"); err != nil {
			return err
		}
		if err := b.addMember(&c, &m); err != nil {
			return err
		}
	}
	for _, account := range ev.GetRemoved() {
		if err := b.removeMember(&c, account); err != nil {
			return err
		}
	}
	if len(ev.GetNewOwner()) > 0 {
		change := &pb.ChannelUpdated_Role{AccountId: ev.GetNewOwner(), Role: pb.ChannelRole_CHANNEL_OWNER}
		if err := b.changeMemberRole(&c, change); err != nil {
			return err
		}
	}
	switch {
	case c.Members == 0:
		return b.removeChannel(c.ID)
	case c.Owners == 0:
		return invalid("a channel without an owner")
	}
	return b.putChannel(&c)
}

// applyChannelMemberUpdated changes what is the member's own.
func applyChannelMemberUpdated(b *Batch, ev *pb.ChannelMemberUpdated, nowMS uint64) error {
	c, m, err := b.channelOf(ev.GetChannelId(), ev.GetAccountId())
	if err != nil {
		return err
	}
	if !ev.GetJoined() && ev.Presence == nil {
		return invalid("a member's flags without a change")
	}
	if ev.GetJoined() {
		if m.State == pb.MemberState_JOINED {
			return invalid("the member has joined")
		}
		m.join(nowMS)
	}
	if ev.Presence != nil {
		m.Presence = ev.GetPresence()
	}
	return b.putMember(c.ID, &m)
}

func (m *ChannelMember) join(nowMS uint64) {
	m.State, m.JoinedMS = pb.MemberState_JOINED, nowMS
}

// addMember takes an account into a channel. The channel's row is the caller's to
// write.
func (b *Batch) addMember(c *Channel, m *ChannelMember) error {
	if _, found, err := b.get(keyOfID(b.scratch(), prefixAccount, m.Account)); err != nil || !found {
		return orInvalid(err, "the account does not exist")
	}
	if _, found, err := MemberOf(b, c.ID, m.Account); err != nil || found {
		return orInvalid(err, "the account is a member of the channel")
	}
	c.Members++
	if m.Role == pb.ChannelRole_CHANNEL_OWNER {
		c.Owners++
	}
	if err := b.put(accountChannelKey(b.scratch(), m.Account, c.ID), nil); err != nil {
		return err
	}
	return b.putMember(c.ID, m)
}

func (b *Batch) removeMember(c *Channel, accountID []byte) error {
	account, err := fieldID(accountID, "account id")
	if err != nil {
		return err
	}
	m, found, err := MemberOf(b, c.ID, account)
	if err != nil || !found {
		return orInvalid(err, "the removed account is no member of the channel")
	}
	c.Members--
	if m.Role == pb.ChannelRole_CHANNEL_OWNER {
		c.Owners--
	}
	if err := b.remove(accountChannelKey(b.scratch(), account, c.ID)); err != nil {
		return err
	}
	return b.remove(memberKey(b.scratch(), c.ID, account))
}

// changeMemberRole gives a member another role.
func (b *Batch) changeMemberRole(c *Channel, change *pb.ChannelUpdated_Role) error {
	account, err := fieldID(change.GetAccountId(), "account id")
	if err != nil {
		return err
	}
	m, found, err := MemberOf(b, c.ID, account)
	if err != nil || !found {
		return orInvalid(err, "a role for an account that is no member of the channel")
	}
	if _, known := pb.ChannelRole_name[int32(change.GetRole())]; !known || change.GetRole() == 0 || change.GetRole() == m.Role {
		return invalid("role %d for a member of role %d", change.GetRole(), m.Role)
	}
	if m.Role == pb.ChannelRole_CHANNEL_OWNER {
		c.Owners--
	}
	if m.Role = change.GetRole(); m.Role == pb.ChannelRole_CHANNEL_OWNER {
		c.Owners++
	}
	return b.putMember(c.ID, &m)
}

// MemberOf finds an account in a channel.
func MemberOf(r Reader, channel, account ID) (ChannelMember, bool, error) {
	m, found, err := readRow(r, "channel members", memberKey(r.scratch(), channel, account), decodeMember)
	m.Account = account
	return m, found, err
}

func decodeMember(in *rowReader) ChannelMember {
	m := ChannelMember{Role: pb.ChannelRole(in.u8()), State: pb.MemberState(in.u8())}
	flags := in.u8()
	m.Welcomed, m.Presence = flags&memberWelcomed != 0, flags&memberPresence != 0
	m.AddedMS, m.JoinedMS, m.CommitSeq = in.u64(), in.u64(), in.u64()
	return m
}

func (b *Batch) putMember(channel ID, m *ChannelMember) error {
	var flags byte
	if m.Welcomed {
		flags |= memberWelcomed
	}
	if m.Presence {
		flags |= memberPresence
	}
	row := append(b.row[:0], byte(m.Role), byte(m.State), flags)
	row = binary.BigEndian.AppendUint64(row, m.AddedMS)
	row = binary.BigEndian.AppendUint64(row, m.JoinedMS)
	b.row = binary.BigEndian.AppendUint64(row, m.CommitSeq)
	return b.put(memberKey(b.scratch(), channel, m.Account), b.row)
}

// ScanMembers calls each with the members of a channel whose account is above
// after (zero: all), in the order of account ids, until it returns false.
func ScanMembers(r Reader, channel, after ID, each func(*ChannelMember) bool) error {
	start := keyOfID(nil, prefixChannelMember, channel)
	end := keyRangeEnd(start)
	if after != (ID{}) {
		start = append(memberKey(nil, channel, after), 0) // the first key beyond after's
	}
	var m ChannelMember
	return scanRows(r, start, end, func(key, value []byte) (bool, error) {
		in := rowReader{rest: value}
		m = decodeMember(&in)
		m.Account = ID(key[1+len(channel):])
		if err := in.end("channel members"); err != nil {
			return false, err
		}
		return each(&m), nil
	})
}

// ChannelsOf lists up to limit channels that an account is in, in the order of
// ids, which means nothing.
func ChannelsOf(r Reader, account ID, limit int) (channels []ID, err error) {
	err = scanView(r, keyOfID(nil, prefixAccountChannel, account), func(key, _ []byte) (bool, error) {
		if len(channels) >= limit {
			return false, nil
		}
		channels = append(channels, ID(key[1+len(account):]))
		return true, nil
	})
	return channels, err
}
