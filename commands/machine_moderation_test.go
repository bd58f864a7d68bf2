package commands_test

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"quicprochat/commands"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// modelBan is a ban from the server or from a channel. It never changes.
type modelBan struct {
	since, until uint64
	reason       string
	actor        *pb.Actor
}

// at tells that a ban keeps out at a time; nil is none.
func (b *modelBan) at(now uint64) bool { return b != nil && (b.until == 0 || now < b.until) }

func (m *serverModel) banned(name string, now uint64) bool { return m.bans[name].at(now) }

// or is an answer, if there is no refusal.
func (p prediction) or(answer proto.Message) prediction {
	if p.status == pb.Status_Ok {
		p.answer = answer
	}
	return p
}

func (m *serverModel) changeRole(name string, role pb.Role, answer proto.Message) prediction {
	a := m.accounts[name]
	if a == nil {
		return refused(pb.Status_NotFound, pb.Reason_NO_SUCH_USER)
	}
	switch answer := answer.(type) {
	case *pb.GrantRoleResponse:
		answer.Previous = a.role
	case *pb.RevokeRoleResponse:
		answer.Previous = a.role
	}
	m.eventIf(a.role != role)
	a.role = role
	return prediction{answer: answer}
}

func (m *serverModel) actor(s *modelSession) *pb.Actor {
	id := m.accounts[s.account].id
	return &pb.Actor{Way: pb.Actor_SESSION, AccountId: id[:]}
}

// moderates is the right to act on a person.
func (m *serverModel) moderates(name string, role pb.Role) prediction {
	switch a := m.accounts[name]; {
	case role < pb.Role_MODERATOR:
		return forbidden(pb.Reason_ROLE)
	case a == nil:
		return refused(pb.Status_NotFound, pb.Reason_NO_SUCH_USER)
	case a.role >= role:
		return forbidden(pb.Reason_ROLE)
	}
	return prediction{}
}

// ban shuts a person out of the server: all sessions end.
func (m *serverModel) ban(name, reason string, until uint64, actor *pb.Actor, role pb.Role, now uint64) prediction {
	if until != 0 && until <= now {
		return badRequest(pb.Reason_INVALID_FIELD)
	}
	if p := m.moderates(name, role); p.status != pb.Status_Ok {
		return p
	}
	if b := m.bans[name]; b.at(now) && b.until == until && b.reason == reason {
		return prediction{}
	}
	m.bans[name] = &modelBan{now, until, reason, actor}
	m.sessions = slices.DeleteFunc(m.sessions, func(s *modelSession) bool { return s.account == name })
	m.events++
	return prediction{}
}

func (m *serverModel) unban(name string, role pb.Role, now uint64) prediction {
	if p := m.moderates(name, role); p.status != pb.Status_Ok {
		return p
	}
	if !m.banned(name, now) {
		return refused(pb.Status_NotFound, pb.Reason_NOT_BANNED)
	}
	delete(m.bans, name)
	m.events++
	return prediction{}
}

// keepsOut is the right to keep people out of a channel.
func (m *serverModel) keepsOut(channel []byte, s *modelSession, name string) (*modelChannel, *modelMember, prediction) {
	c, me, p := m.seat(channel, s)
	if p.status == pb.Status_Ok {
		p = mayAdd(me)
	}
	if p.status == pb.Status_Ok && name != "" && m.accounts[name] == nil {
		p = refused(pb.Status_NotFound, pb.Reason_NO_SUCH_USER)
	}
	return c, me, p
}

func (m *serverModel) banUser(req *pb.BanUserRequest, s *modelSession, now uint64) prediction {
	answer, name := &pb.BanUserResponse{ServerTimeMs: now}, req.GetUsername()
	if req.GetScope() == pb.BanScope_WHOLE_SERVER {
		return m.ban(name, req.GetReason(), req.GetUntilMs(), m.actor(s), m.accounts[s.account].role, now).or(answer)
	}
	if req.GetUntilMs() != 0 && req.GetUntilMs() <= now {
		return badRequest(pb.Reason_INVALID_FIELD)
	}
	c, me, p := m.keepsOut(req.GetChannelId(), s, name)
	if p.status != pb.Status_Ok {
		return p
	}
	other := c.members[name]
	if other != nil && other.role >= me.role {
		return forbidden(pb.Reason_CHANNEL_ROLE_TOO_LOW)
	}
	if b := c.bans[name]; other == nil && b.at(now) && b.until == req.GetUntilMs() && b.reason == req.GetReason() {
		return prediction{answer: answer}
	}
	c.bans[name] = &modelBan{now, req.GetUntilMs(), req.GetReason(), m.actor(s)}
	m.events++
	m.eventIf(other != nil)
	delete(c.members, name)
	return prediction{answer: answer}
}

func (m *serverModel) unbanUser(req *pb.UnbanUserRequest, s *modelSession, now uint64) prediction {
	answer, name := &pb.UnbanUserResponse{ServerTimeMs: now}, req.GetUsername()
	if req.GetScope() == pb.BanScope_WHOLE_SERVER {
		return m.unban(name, m.accounts[s.account].role, now).or(answer)
	}
	c, _, p := m.keepsOut(req.GetChannelId(), s, name)
	switch {
	case p.status != pb.Status_Ok:
		return p
	case !c.bans[name].at(now):
		return refused(pb.Status_NotFound, pb.Reason_NOT_BANNED)
	}
	delete(c.bans, name)
	m.events++
	return prediction{answer: answer}
}

func (m *serverModel) listBanned(req *pb.ListBannedRequest, s *modelSession, now uint64) prediction {
	bans, one := m.bans, req.GetUsername()
	if req.GetScope() == pb.BanScope_ONE_CHANNEL {
		c, _, p := m.keepsOut(req.GetChannelId(), s, "")
		switch {
		case p.status != pb.Status_Ok:
			return p
		case one != "":
			return badRequest(pb.Reason_INVALID_FIELD)
		}
		bans = c.bans
	} else if m.accounts[s.account].role < pb.Role_MODERATOR {
		return forbidden(pb.Reason_ROLE)
	}
	names := slices.SortedFunc(maps.Keys(bans), func(a, b string) int {
		ids := [2]projections.ID{m.accounts[a].id, m.accounts[b].id}
		return bytes.Compare(ids[0][:], ids[1][:])
	})
	answer := new(pb.ListBannedResponse)
	seen := 0
	for _, name := range names {
		a := m.accounts[name]
		switch {
		case one != "" && name != one, one == "" && bytes.Compare(a.id[:], req.GetAfter()) <= 0:
			continue
		case one == "" && seen == int(req.GetMaxEntries()) && seen > 0:
			answer.Next = bytes.Clone(m.accounts[names[slices.Index(names, name)-1]].id[:])
			return prediction{answer: answer}
		}
		seen++
		if b := bans[name]; b.at(now) {
			answer.Bans = append(answer.Bans, &pb.Ban{
				Username: name, IdentityKey: bytes.Clone(a.identity[:]), SinceMs: b.since, UntilMs: b.until, Reason: b.reason, Actor: b.actor,
			})
		}
	}
	return prediction{answer: answer}
}

// keepBans is what housekeeping does to bans: those of the server and those of
// channels are an event each.
func (m *serverModel) keepBans(now uint64) {
	expire := func(bans map[string]*modelBan) (ended bool) {
		maps.DeleteFunc(bans, func(_ string, b *modelBan) bool {
			over := !b.at(now)
			ended = ended || over
			return over
		})
		return ended
	}
	m.eventIf(expire(m.bans))
	inChannels := false
	for _, c := range m.channels {
		inChannels = expire(c.bans) || inChannels
	}
	m.eventIf(inChannels)
}

// appoint mostly makes a person a moderator or an administrator.
func (m *machine) appoint(t *rapid.T, name string) {
	role := rapid.SampledFrom([]pb.Role{pb.Role_USER, pb.Role_MODERATOR, pb.Role_ADMIN, pb.Role_ADMIN}).Draw(t, "role")
	if role != pb.Role_USER {
		m.call(t, &request{Message: &pb.GrantRoleRequest{Username: name, Role: role}})
	}
}

func (m *machine) drawRole(t *rapid.T) *request {
	name := rapid.SampledFrom([]string{"alice", "alice", "bob", "carol"}).Draw(t, "name")
	if rapid.IntRange(0, 2).Draw(t, "take away") == 0 {
		return &request{Message: &pb.RevokeRoleRequest{Username: name}}
	}
	role := rapid.SampledFrom([]pb.Role{pb.Role_MODERATOR, pb.Role_ADMIN}).Draw(t, "role")
	return &request{Message: &pb.GrantRoleRequest{Username: name, Role: role}}
}

// drawScope is the whole server, or a channel that the session's person is in.
func (m *machine) drawScope(t *rapid.T, session []byte) (pb.BanScope, []byte) {
	if len(m.model.channels) > 0 && rapid.Bool().Draw(t, "of a channel") {
		return pb.BanScope_ONE_CHANNEL, m.drawChannel(t, session)
	}
	return pb.BanScope_WHOLE_SERVER, nil
}

// drawStaff is a session token: mostly of somebody who has a role.
func (m *machine) drawStaff(t *rapid.T) []byte {
	var staff [][]byte
	for _, s := range m.model.sessions {
		if s.isDevice() && m.model.accounts[s.account].role >= pb.Role_MODERATOR {
			staff = append(staff, s.token)
		}
	}
	if len(staff) > 0 && rapid.IntRange(0, 3).Draw(t, "anybody") > 0 {
		return rapid.SampledFrom(staff).Draw(t, "staff")
	}
	return m.drawSession(t)
}

// drawTarget names somebody for a ban: mostly bob, who has most to lose.
func (m *machine) drawTarget(t *rapid.T) string {
	return rapid.SampledFrom([]string{"bob", "bob", "carol", "alice", "nobody"}).Draw(t, "target")
}

// drawBan bans somebody from the server or a channel, or takes a ban back.
func (m *machine) drawBan(t *rapid.T) *request {
	session, name := m.drawStaff(t), m.drawTarget(t)
	reason := rapid.SampledFrom([]string{"", "spam"}).Draw(t, "reason")
	until := uint64(0)
	if ahead := rapid.SampledFrom([]time.Duration{0, 0, -time.Second, 3 * time.Second, time.Minute, 2 * time.Hour, 40 * 24 * time.Hour}).Draw(t, "until"); ahead != 0 {
		until = uint64(time.Now().Add(ahead).UnixMilli())
	}
	lift := rapid.IntRange(0, 2).Draw(t, "lift") == 0
	switch onMachine := rapid.IntRange(0, 3).Draw(t, "on the machine") == 0; {
	case onMachine && lift:
		return &request{Message: &pb.UnbanAnyUserRequest{Username: name, Reason: reason}}
	case onMachine:
		return &request{Message: &pb.BanAnyUserRequest{Username: name, Reason: reason, UntilMs: until}}
	}
	scope, channel := m.drawScope(t, session)
	if lift {
		req := &pb.UnbanUserRequest{SessionToken: session, Scope: scope, ChannelId: channel, Username: name, Reason: reason}
		return m.withID(t, spoil(t, &request{Message: req}, []fault[*pb.UnbanUserRequest]{
			{pb.Reason_MISSING_FIELD, func(r *pb.UnbanUserRequest) { r.Scope = 0 }},
			{pb.Reason_MISSING_FIELD, func(r *pb.UnbanUserRequest) { r.Username = "" }},
			{pb.Reason_INVALID_FIELD, func(r *pb.UnbanUserRequest) { r.Reason = strings.Repeat("x", commands.MaxBanReason+1) }},
		}))
	}
	req := &pb.BanUserRequest{SessionToken: session, Scope: scope, ChannelId: channel, Username: name, Reason: reason, UntilMs: until}
	return m.withID(t, spoil(t, &request{Message: req}, []fault[*pb.BanUserRequest]{
		{pb.Reason_INVALID_FIELD, func(r *pb.BanUserRequest) { r.Scope = 7 }},
		{pb.Reason_INVALID_FIELD, func(r *pb.BanUserRequest) { r.Scope, r.ChannelId = pb.BanScope_WHOLE_SERVER, make([]byte, 16) }},
		{pb.Reason_MISSING_FIELD, func(r *pb.BanUserRequest) { r.Scope, r.ChannelId = pb.BanScope_ONE_CHANNEL, nil }},
		{pb.Reason_NOT_SUPPORTED, func(r *pb.BanUserRequest) { r.Username = "bob@elsewhere" }},
		{pb.Reason_INVALID_FIELD, func(r *pb.BanUserRequest) { r.UntilMs = 1 << 62 }},
	}))
}

// drawBanned lists who is kept out.
func (m *machine) drawBanned(t *rapid.T) *request {
	session := m.drawStaff(t)
	scope, channel := m.drawScope(t, session)
	req := &pb.ListBannedRequest{SessionToken: session, Scope: scope, ChannelId: channel, MaxEntries: rapid.Uint32Range(0, 2).Draw(t, "entries")}
	if rapid.IntRange(0, 3).Draw(t, "one") == 0 {
		req.Username = m.drawTarget(t)
	} else if rapid.Bool().Draw(t, "after") {
		after := projections.ID{0: byte(rapid.IntRange(0, 255).Draw(t, "from"))}
		req.After = after[:]
	}
	return &request{Message: req}
}

// compareBans: roles and bans of the server and of each channel are the model's.
func (m *machine) compareBans(t *rapid.T, view projections.Reader) {
	for name, a := range m.model.accounts {
		role, err := projections.RoleOf(view, a.id)
		m.check(err)
		if role != a.role {
			t.Fatalf("%s is %v, in the model %v", name, role, a.role)
		}
	}
	bans, err := projections.Bans(view, projections.ID{}, 100)
	m.check(err)
	m.compareBansOf(t, "the server", bans, m.model.bans)
	for _, c := range m.model.channels {
		bans, err := projections.ChannelBans(view, c.id, projections.ID{}, 100)
		m.check(err)
		m.compareBansOf(t, "a channel", bans, c.bans)
	}
}

func (m *machine) compareBansOf(t *rapid.T, what string, bans []projections.Ban, want map[string]*modelBan) {
	if len(bans) != len(want) {
		t.Fatalf("%s has %d bans, in the model %d", what, len(bans), len(want))
	}
	for name, b := range want {
		i := slices.IndexFunc(bans, func(got projections.Ban) bool { return got.Account == m.model.accounts[name].id })
		if i < 0 || bans[i].SinceMS != b.since || bans[i].UntilMS != b.until || bans[i].Reason != b.reason || !proto.Equal(bans[i].Actor(), b.actor) {
			t.Fatalf("%s: bans %+v; in the model %s has %+v", what, bans, name, b)
		}
	}
}
