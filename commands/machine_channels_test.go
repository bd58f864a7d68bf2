package commands_test

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// modelChannel is a channel, as its members may know it.
type modelChannel struct {
	id            projections.ID // learned
	name          string
	version       uint64
	epoch, seq    uint64
	settings      *pb.ChannelSettings
	created       uint64
	members       map[string]*modelMember // by username
	asked, askSeq uint64                  // when keys were asked to rotate, and after which post
	asker         string
	bans          map[string]*modelBan
}

type modelMember struct {
	role                       pb.ChannelRole
	joined, welcomed, presence bool
	added, since               uint64
	commit                     uint64 // seq of the newest one
}

func (c *modelChannel) clone() *modelChannel {
	copied := *c
	copied.members, copied.bans = map[string]*modelMember{}, maps.Clone(c.bans)
	for name, member := range c.members {
		m := *member
		copied.members[name] = &m
	}
	return &copied
}

func (c *modelChannel) owners() (n int) {
	for _, member := range c.members {
		if member.role == pb.ChannelRole_CHANNEL_OWNER {
			n++
		}
	}
	return n
}

func forbidden(reason pb.Reason) prediction { return refused(pb.Status_Forbidden, reason) }

// seat finds the channel of a request, and the caller in it.
func (m *serverModel) seat(id []byte, s *modelSession) (*modelChannel, *modelMember, prediction) {
	switch {
	case len(id) == 0:
		return nil, nil, badRequest(pb.Reason_MISSING_FIELD)
	case len(id) != 16:
		return nil, nil, badRequest(pb.Reason_INVALID_FIELD)
	}
	for _, c := range m.channels {
		if bytes.Equal(c.id[:], id) && c.members[s.account] != nil {
			return c, c.members[s.account], prediction{}
		}
	}
	return nil, nil, forbidden(pb.Reason_NOT_A_MEMBER)
}

// person finds whose identity key this is; "" for nobody's and for one that ended.
func (m *serverModel) person(key []byte) string {
	if m.keys[projections.Key(key)].revoked != nil {
		return ""
	}
	return m.everBy(key)
}

// everBy finds whose identity key this is or was.
func (m *serverModel) everBy(key []byte) string {
	if k := m.keys[projections.Key(key)]; k.identity {
		return k.account
	}
	return ""
}

// invite adds people to a channel who are not in it.
func (m *serverModel) invite(c *modelChannel, keys [][]byte, now uint64, really bool) (added int, p prediction) {
	seen := map[string]bool{}
	for _, key := range keys {
		name := m.person(key)
		if name == "" {
			return 0, refused(pb.Status_NotFound, pb.Reason_NO_SUCH_USER)
		}
		if c.members[name] != nil || seen[name] {
			continue
		}
		if c.bans[name].at(now) {
			return 0, forbidden(pb.Reason_CHANNEL_BANNED)
		}
		seen[name] = true
		added++
	}
	if really {
		for name := range seen {
			c.members[name] = &modelMember{role: pb.ChannelRole_CHANNEL_MEMBER, added: now}
		}
	}
	return added, prediction{}
}

func (m *serverModel) createChannel(req *pb.CreateChannelRequest, s *modelSession, now uint64) prediction {
	c := &modelChannel{
		bans: map[string]*modelBan{}, name: string(req.GetName()), version: 1, created: now, settings: orEmpty(req.GetSettings()),
		members: map[string]*modelMember{s.account: {role: pb.ChannelRole_CHANNEL_OWNER, joined: true, added: now, since: now}},
	}
	added, refusal := m.invite(c, req.GetMembers(), now, false)
	if refusal.status != pb.Status_Ok {
		return refusal
	}
	m.invite(c, req.GetMembers(), now, true)
	m.channels = append(m.channels, c)
	m.events++
	m.eventIf(added > 0)
	answer := &pb.CreateChannelResponse{ServerTimeMs: now}
	return prediction{answer: answer, learn: func(got proto.Message) {
		c.id = projections.ID(got.(*pb.CreateChannelResponse).GetChannelId())
		answer.ChannelId = c.id[:]
	}}
}

func orEmpty(s *pb.ChannelSettings) *pb.ChannelSettings {
	if s == nil {
		return &pb.ChannelSettings{}
	}
	return s
}

// eventIf counts an event.
func (m *serverModel) eventIf(happened bool) {
	if happened {
		m.events++
	}
}

// mayAdd is the right to invite.
func mayAdd(me *modelMember) prediction {
	switch {
	case me.role < pb.ChannelRole_CHANNEL_ADMIN:
		return forbidden(pb.Reason_CHANNEL_ROLE_TOO_LOW)
	case !me.joined:
		return forbidden(pb.Reason_NOT_JOINED)
	}
	return prediction{}
}

func (m *serverModel) addMember(req *pb.AddMemberRequest, s *modelSession, now uint64) prediction {
	c, me, p := m.seat(req.GetChannelId(), s)
	if p.status == pb.Status_Ok {
		p = mayAdd(me)
	}
	if p.status != pb.Status_Ok {
		return p
	}
	added, p := m.invite(c, req.GetMembers(), now, true)
	if p.status != pb.Status_Ok {
		return p
	}
	m.eventIf(added > 0)
	return prediction{answer: &pb.AddMemberResponse{Added: uint32(added), ServerTimeMs: now}}
}

func mayRemove(me, other *modelMember) prediction {
	if me == other || me.role == pb.ChannelRole_CHANNEL_OWNER {
		return prediction{}
	}
	if other.role >= me.role {
		return forbidden(pb.Reason_CHANNEL_ROLE_TOO_LOW)
	}
	return mayAdd(me)
}

func (m *serverModel) removeMember(req *pb.RemoveMemberRequest, s *modelSession, now uint64) prediction {
	c, me, p := m.seat(req.GetChannelId(), s)
	if p.status != pb.Status_Ok {
		return p
	}
	name := m.everBy(req.GetIdentityKey())
	other := c.members[name]
	if other == nil {
		return refused(pb.Status_NotFound, pb.Reason_NO_SUCH_MEMBER)
	}
	if p := mayRemove(me, other); p.status != pb.Status_Ok {
		return p
	}
	answer := &pb.RemoveMemberResponse{ServerTimeMs: now}
	delete(c.members, name)
	m.events++
	if len(c.members) == 0 {
		answer.ChannelGone = true
		m.channels = slices.DeleteFunc(m.channels, func(other *modelChannel) bool { return other == c })
		return prediction{answer: answer}
	}
	if c.owners() == 0 {
		heir := m.heir(c)
		c.members[heir].role = pb.ChannelRole_CHANNEL_OWNER
		identity := m.accounts[heir].identity
		answer.NewOwner = identity[:]
	}
	return prediction{answer: answer}
}

// heir is first in line: joined, admin, longest in the channel.
func (m *serverModel) heir(c *modelChannel) string {
	names := slices.Collect(maps.Keys(c.members))
	return slices.MinFunc(names, func(a, b string) int {
		x, y := c.members[a], c.members[b]
		ids := [2]projections.ID{m.accounts[a].id, m.accounts[b].id}
		return cmp.Or(cmp.Compare(number(y.joined), number(x.joined)), cmp.Compare(y.role, x.role),
			cmp.Compare(x.added, y.added), bytes.Compare(ids[0][:], ids[1][:]))
	})
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// updateChannel draws on at most one field at a time beside accept, so that the
// order of refusals is no question.
func (m *serverModel) updateChannel(req *pb.UpdateGroupMetadataRequest, s *modelSession, now uint64) prediction {
	c, me, p := m.seat(req.GetChannelId(), s)
	if p.status != pb.Status_Ok {
		return p
	}
	has := func(field pb.ChannelField) bool { return slices.Contains(req.GetFields(), field) }
	after := *me
	if has(pb.ChannelField_ACCEPT) && !me.joined {
		after.joined, after.since = true, now
	}
	if has(pb.ChannelField_SHARE_PRESENCE) {
		after.presence = req.GetPresence()
	}
	named := has(pb.ChannelField_CHANNEL_NAME) || has(pb.ChannelField_CHANNEL_SETTINGS)
	if has(pb.ChannelField_CHANNEL_ROLES) || has(pb.ChannelField_SET_EPOCH) {
		switch {
		case me.role != pb.ChannelRole_CHANNEL_OWNER:
			return forbidden(pb.Reason_CHANNEL_ROLE_TOO_LOW)
		case !after.joined:
			return forbidden(pb.Reason_NOT_JOINED)
		}
	}
	if named || has(pb.ChannelField_ADD_MEMBERS) {
		if p := mayAdd(&after); p.status != pb.Status_Ok {
			return p
		}
	}
	if (named || has(pb.ChannelField_CHANNEL_ROLES)) && req.GetExpectedVersion() != c.version {
		return badRequest(pb.Reason_VERSION_CONFLICT)
	}
	if has(pb.ChannelField_CHANNEL_ROLES) {
		change := req.GetRoles()[0]
		other := c.members[m.everBy(change.GetIdentityKey())]
		switch {
		case other == nil:
			return refused(pb.Status_NotFound, pb.Reason_NO_SUCH_MEMBER)
		case other.role == pb.ChannelRole_CHANNEL_OWNER && change.GetRole() != other.role && c.owners() == 1:
			return badRequest(pb.Reason_LAST_OWNER)
		case other == me:
			after.role = change.GetRole()
		default:
			other.role = change.GetRole()
		}
	}
	added := 0
	if has(pb.ChannelField_ADD_MEMBERS) {
		if added, p = m.invite(c, req.GetAddMembers(), now, true); p.status != pb.Status_Ok {
			return p
		}
	}
	m.eventIf(after.joined != me.joined || after.presence != me.presence)
	m.eventIf(named || has(pb.ChannelField_CHANNEL_ROLES))
	m.eventIf(added > 0)
	*me = after
	if named || has(pb.ChannelField_CHANNEL_ROLES) {
		c.version++
	}
	if has(pb.ChannelField_CHANNEL_NAME) {
		c.name = string(req.GetName())
	}
	if has(pb.ChannelField_CHANNEL_SETTINGS) {
		c.settings = req.GetSettings()
	}
	if has(pb.ChannelField_SET_EPOCH) {
		m.eventIf(c.epoch != req.GetSetEpoch())
		c.epoch = req.GetSetEpoch()
	}
	return prediction{answer: &pb.UpdateGroupMetadataResponse{Version: c.version, Epoch: c.epoch, Added: uint32(added), ServerTimeMs: now}}
}

func (m *serverModel) listMembers(req *pb.ListGroupMembersRequest, s *modelSession) prediction {
	c, _, p := m.seat(req.GetChannelId(), s)
	if p.status != pb.Status_Ok {
		return p
	}
	names := slices.Collect(maps.Keys(c.members))
	slices.SortFunc(names, func(a, b string) int {
		ids := [2]projections.ID{m.accounts[a].id, m.accounts[b].id}
		return bytes.Compare(ids[0][:], ids[1][:])
	})
	answer := &pb.ListGroupMembersResponse{Channel: &pb.ChannelInfo{
		Name: []byte(c.name), Settings: c.settings, Version: c.version, Epoch: c.epoch, LastSeq: c.seq,
		Members: uint32(len(c.members)), CreatedMs: c.created,
	}}
	rotation := &pb.KeyRotation{RequestedMs: c.asked}
	for _, name := range names {
		member, identity := c.members[name], m.accounts[name].identity
		state := pb.MemberState_INVITED
		if member.joined {
			state = pb.MemberState_JOINED
			rotation.Joined++
			rotation.Committed += uint32(number(member.commit > c.askSeq))
		}
		if name == c.asker {
			rotation.RequestedBy = identity[:]
		}
		answer.Members = append(answer.Members, &pb.ChannelMember{
			IdentityKey: identity[:], Role: member.role, State: state, JoinedMs: member.since, AddedMs: member.added, Presence: member.presence,
		})
	}
	if c.asked > 0 {
		answer.Channel.Rotation = rotation
	}
	return prediction{answer: answer}
}

func (m *serverModel) rotateKeys(req *pb.RotateKeysRequest, s *modelSession, now uint64) prediction {
	c, me, p := m.seat(req.GetChannelId(), s)
	switch {
	case p.status != pb.Status_Ok:
		return p
	case !me.joined:
		return forbidden(pb.Reason_NOT_JOINED)
	case m.quotas && c.asked > 0 && now < c.asked+10*aMinute:
		return refused(pb.Status_RateLimited, pb.Reason_ROTATION_RECENT)
	}
	c.asked, c.askSeq, c.asker = now, c.seq, s.account
	m.events++
	identity := m.accounts[s.account].identity
	item := &pb.ControlItem{Kind: &pb.ControlItem_KeyRotationRequested{KeyRotationRequested: &pb.KeyRotationRequested{
		ChannelId: c.id[:], RequestedBy: identity[:], Epoch: c.epoch,
	}}}
	told := uint32(0)
	for _, name := range slices.Sorted(maps.Keys(c.members)) {
		if member := c.members[name]; member.joined || member.welcomed {
			told++
			m.control(name, m.accounts[name].devices, item, now)
		}
	}
	return prediction{answer: &pb.RotateKeysResponse{Told: told, ServerTimeMs: now}}
}
