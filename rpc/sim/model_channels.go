package sim

import (
	"bytes"
	"fmt"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// Channel is a channel as its members see it.
type Channel struct {
	Name, Description []byte
	Settings          *pb.ChannelSettings
	Version, Epoch    uint64
	LastSeq           uint64
	Members           map[ID]*Member
	// Committers are the senders of the commits, by the epoch that each ended: never
	// two for one.
	Committers map[uint64]ID
	// Bans are those that nothing has ended yet, by account.
	Bans map[ID]*pb.ChannelUserBanned
}

// Member is somebody in a channel.
type Member struct {
	Role     pb.ChannelRole
	Joined   bool
	Welcomed bool
	Presence bool
}

// Seat is somebody's place in a channel.
type Seat struct{ Channel, Account ID }

// Stay is how long somebody was in a channel, from the invitation on, in Unix
// milliseconds.
type Stay struct {
	Invited, Joined, Left uint64 // never: it did not come to that
}

// within tells whether a stay and a call have a moment in common.
func (s *Stay) within(call span) bool { return s.Invited <= call.end && call.start <= s.Left }

// enters notes that somebody is in a channel from now on.
func (m *Model) enters(channel, account ID, joined bool) {
	s := &Stay{m.TimeMS, never, never}
	if joined {
		s.Joined = m.TimeMS
	}
	k := Seat{channel, account}
	m.Stays[k] = append(m.Stays[k], s)
}

// stay is the present one.
func (m *Model) stay(channel, account ID) *Stay {
	all := m.Stays[Seat{channel, account}]
	return all[len(all)-1]
}

// joins notes that somebody has accepted to be in a channel.
func (m *Model) joins(channel, account ID, member *Member) {
	if !member.Joined {
		m.stay(channel, account).Joined = m.TimeMS
	}
	member.Joined = true
}

// seat finds the channel and the member that an event is about.
func (m *Model) seat(channel, account []byte) (*Channel, *Member, error) {
	c := m.Channels[ID(channel)]
	if c == nil || c.Members[ID(account)] == nil {
		return nil, nil, fmt.Errorf("somebody acts in a channel that they are not in")
	}
	return c, c.Members[ID(account)], nil
}

func (m *Model) createChannel(ev *pb.ChannelCreated) error {
	id := ID(ev.ChannelId)
	if m.Channels[id] != nil || m.ids[ID(ev.CreatorId)] == nil {
		return fmt.Errorf("a channel made twice, or by nobody")
	}
	m.Founded[id] = true
	m.Epochs[id] = []EpochFrom{{m.TimeMS, 0}}
	m.enters(id, ID(ev.CreatorId), true)
	m.Channels[id] = &Channel{
		Name: ev.Name, Description: ev.Description, Settings: ev.Settings, Version: 1, Committers: map[uint64]ID{},
		Bans:    map[ID]*pb.ChannelUserBanned{},
		Members: map[ID]*Member{ID(ev.CreatorId): {Role: pb.ChannelRole_CHANNEL_OWNER, Joined: true}},
	}
	return nil
}

func (m *Model) changeMembers(ev *pb.ChannelMembersChanged) error {
	c, actor, err := m.seat(ev.ChannelId, ev.ActorId)
	if err != nil {
		return err
	}
	for _, account := range ev.Added {
		if m.ids[ID(account)] == nil || c.Members[ID(account)] != nil || !actor.Joined || actor.Role < pb.ChannelRole_CHANNEL_ADMIN {
			return fmt.Errorf("somebody was invited twice, or by who may not")
		}
		if ban := c.Bans[ID(account)]; ban != nil && (ban.UntilMs == 0 || m.TimeMS < ban.UntilMs) {
			return fmt.Errorf("somebody was invited who is banned from the channel")
		}
		c.Members[ID(account)] = &Member{Role: pb.ChannelRole_CHANNEL_MEMBER}
		m.enters(ID(ev.ChannelId), ID(account), false)
	}
	for _, account := range ev.Removed {
		gone := c.Members[ID(account)]
		if gone == nil {
			return fmt.Errorf("a stranger was put out of a channel")
		}
		if ID(account) != ID(ev.ActorId) && actor.Role != pb.ChannelRole_CHANNEL_OWNER && actor.Role <= gone.Role {
			return fmt.Errorf("somebody was put out by who may not")
		}
		delete(c.Members, ID(account))
		m.stay(ID(ev.ChannelId), ID(account)).Left = m.TimeMS
	}
	if len(ev.NewOwner) > 0 {
		c.Members[ID(ev.NewOwner)].Role = pb.ChannelRole_CHANNEL_OWNER
	}
	if len(c.Members) > maxChannelMembers {
		return fmt.Errorf("a channel of %d members", len(c.Members))
	}
	if len(c.Members) == 0 {
		delete(m.Channels, ID(ev.ChannelId))
		return nil
	}
	return c.owned()
}

// maxChannelMembers is the limit of the protocol.
const maxChannelMembers = 1_000

// owned holds that a channel has an owner.
func (c *Channel) owned() error {
	for _, member := range c.Members {
		if member.Role == pb.ChannelRole_CHANNEL_OWNER {
			return nil
		}
	}
	return fmt.Errorf("a channel without an owner")
}

func (m *Model) updateMember(ev *pb.ChannelMemberUpdated) error {
	_, member, err := m.seat(ev.ChannelId, ev.AccountId)
	if err != nil {
		return err
	}
	if ev.Joined {
		m.joins(ID(ev.ChannelId), ID(ev.AccountId), member)
	}
	if ev.Presence != nil {
		member.Presence = *ev.Presence
	}
	return nil
}

func (m *Model) updateChannel(ev *pb.ChannelUpdated) error {
	c, actor, err := m.seat(ev.ChannelId, ev.ActorId)
	if err != nil {
		return err
	}
	if actor.Role < pb.ChannelRole_CHANNEL_ADMIN || ev.Version != c.Version+1 {
		return fmt.Errorf("version %d of a channel by role %v, after %d", ev.Version, actor.Role, c.Version)
	}
	c.Version++
	if ev.Name != nil {
		c.Name = ev.Name
	}
	if ev.Description != nil {
		c.Description = ev.Description
	}
	if ev.Settings != nil {
		c.Settings = ev.Settings
	}
	for _, change := range ev.Roles {
		if actor.Role != pb.ChannelRole_CHANNEL_OWNER || c.Members[ID(change.AccountId)] == nil {
			return fmt.Errorf("a role for a stranger, or by who may not give it")
		}
		c.Members[ID(change.AccountId)].Role = change.Role
	}
	return c.owned()
}

func (m *Model) setEpoch(ev *pb.ChannelEpochSet) error {
	c, actor, err := m.seat(ev.ChannelId, ev.ActorId)
	if err != nil {
		return err
	}
	if actor.Role != pb.ChannelRole_CHANNEL_OWNER {
		return fmt.Errorf("an epoch set by a %v", actor.Role)
	}
	c.Epoch = ev.Epoch
	clear(c.Committers) // the repair may go back
	m.Epochs[ID(ev.ChannelId)] = append(m.Epochs[ID(ev.ChannelId)], EpochFrom{m.TimeMS, c.Epoch})
	return nil
}

// post puts a post or a Welcome into queues. One number is given once, an epoch is
// ended by one commit, and nobody gets what is not for them.
func (m *Model) post(ev *pb.ChannelPosted, now uint64) error {
	c, sender, err := m.seat(ev.ChannelId, ev.SenderId)
	if err != nil {
		return err
	}
	if ev.Welcome {
		if ev.ChannelSeq != c.LastSeq {
			return fmt.Errorf("a Welcome of post %d after %d", ev.ChannelSeq, c.LastSeq)
		}
	} else {
		if c.LastSeq++; ev.ChannelSeq != c.LastSeq {
			return fmt.Errorf("post %d, the next is %d", ev.ChannelSeq, c.LastSeq)
		}
		if err := m.owed(c, ev); err != nil {
			return err
		}
		m.joins(ID(ev.ChannelId), ID(ev.SenderId), sender)
	}
	post := Post{ID(ev.ChannelId), ev.ChannelSeq, ev.Welcome, ev.Commit, c.Epoch}
	if ev.Commit {
		if by, ended := c.Committers[c.Epoch]; ended {
			return fmt.Errorf("epoch %d was ended twice, by %x", c.Epoch, by)
		}
		c.Committers[c.Epoch] = ID(ev.SenderId)
		c.Epoch++
		m.Epochs[ID(ev.ChannelId)] = append(m.Epochs[ID(ev.ChannelId)], EpochFrom{m.TimeMS, c.Epoch})
	}
	return m.store(&storedMessage{
		id: ID(ev.MessageId), owner: ID(ev.ChannelId), sender: ID(ev.SenderId), hash: [32]byte(ev.PayloadSha256),
		size: ev.PayloadSize, expires: ev.ExpiresMs, targets: ev.Targets, skipped: ev.Skipped, post: post,
		mayHave: func(account ID) bool {
			member := c.Members[account]
			if member == nil {
				return false
			}
			if ev.Welcome {
				member.Welcomed = true
			}
			return member.Joined || member.Welcomed
		},
	}, now)
}

// owed refuses a post that leaves somebody out: each device of each member who gets
// posts has a place in its queue, or is told of a gap, but one of the sender's.
func (m *Model) owed(c *Channel, ev *pb.ChannelPosted) error {
	given := map[Key]bool{}
	for _, t := range ev.Targets {
		given[Key(t.DeviceKey)] = true
	}
	for _, device := range ev.Skipped {
		given[Key(device)] = true
	}
	for account, member := range c.Members {
		if !member.Joined && !member.Welcomed || m.isBanned(account) {
			continue
		}
		left := 0
		for _, device := range m.ids[account].Devices {
			if !given[device] {
				left++
			}
		}
		if left > 1 || left == 1 && account != ID(ev.SenderId) {
			return fmt.Errorf("post %d leaves out %d devices of a member", ev.ChannelSeq, left)
		}
	}
	return nil
}

func (m *Model) requestRotation(ev *pb.ChannelRotationRequested) error {
	_, _, err := m.seat(ev.ChannelId, ev.ActorId)
	return err
}

// compareChannel says where the views have another channel than the model.
func compareChannel(r projections.Reader, id ID, want *Channel) error {
	got, found, err := projections.ChannelByID(r, id)
	if err != nil || !found || got.Version != want.Version || got.Epoch != want.Epoch || got.LastSeq != want.LastSeq || int(got.Members) != len(want.Members) {
		return fmt.Errorf("found %v, %w: %+v, not %+v", found, err, got, want)
	}
	name, description, err := projections.ChannelText(r, id)
	if err != nil || !bytes.Equal(name, want.Name) || !bytes.Equal(description, want.Description) {
		return fmt.Errorf("name %x with description %x, not %x with %x: %w", name, description, want.Name, want.Description, err)
	}
	members := 0
	var differs error
	err = projections.ScanMembers(r, id, ID{}, func(m *projections.ChannelMember) bool {
		members++
		w := want.Members[m.Account]
		if w == nil || m.Role != w.Role || (m.State == pb.MemberState_JOINED) != w.Joined || m.Presence != w.Presence || m.Receives() != (w.Joined || w.Welcomed) {
			differs = fmt.Errorf("member %+v, not %+v", m, w)
		}
		return differs == nil
	})
	if err == nil && differs == nil && members != len(want.Members) {
		differs = fmt.Errorf("%d members, not %d", members, len(want.Members))
	}
	if err != nil {
		return err
	}
	return differs
}
