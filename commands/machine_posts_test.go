package commands_test

import (
	"bytes"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// post is a BatchEnqueue in its channel form.
func (m *serverModel) post(req *pb.BatchEnqueueRequest, s *modelSession, now uint64) prediction {
	c, me, p := m.seat(req.GetChannelId(), s)
	if p.status != pb.Status_Ok {
		return p
	}
	commit := req.ExpectedEpoch != nil
	switch {
	case !commit && c.settings.GetPosting() == pb.PostingRule_POST_ADMINS && me.role < pb.ChannelRole_CHANNEL_ADMIN:
		return forbidden(pb.Reason_CHANNEL_ROLE_TOO_LOW)
	case commit && c.settings.GetCommitOrder() == pb.CommitOrder_COMMITS_UNORDERED:
		return badRequest(pb.Reason_INVALID_FIELD)
	case commit && req.GetExpectedEpoch() != c.epoch:
		return badRequest(pb.Reason_STALE_EPOCH)
	}
	after := c.clone()
	for _, key := range req.GetRemoveMembers() {
		name := m.everBy(key)
		switch {
		case c.members[name] == nil:
			return refused(pb.Status_NotFound, pb.Reason_NO_SUCH_MEMBER)
		case name == s.account:
			return badRequest(pb.Reason_INVALID_FIELD)
		}
		if p := mayRemove(me, c.members[name]); p.status != pb.Status_Ok {
			return p
		}
		delete(after.members, name)
	}
	if len(req.GetAddMembers()) > 0 {
		if p := mayAdd(me); p.status != pb.Status_Ok {
			return p
		}
		// Who is removed by the same call can't be added by it.
		if _, p := m.invite(c, req.GetAddMembers(), now, false); p.status != pb.Status_Ok {
			return p
		}
		for _, key := range req.GetAddMembers() {
			if name := m.person(key); c.members[name] == nil {
				after.members[name] = &modelMember{role: pb.ChannelRole_CHANNEL_MEMBER, added: now}
			}
		}
	}
	changed := !slices.Equal(slices.Sorted(maps.Keys(c.members)), slices.Sorted(maps.Keys(after.members)))
	return m.postInto(c, after, changed, req, s, now)
}

// postInto delivers a post that may be made, if somebody can take it.
func (m *serverModel) postInto(c, after *modelChannel, changed bool, req *pb.BatchEnqueueRequest, s *modelSession, now uint64) prediction {
	barren := map[projections.Key]bool{}
	readers := func(channel *modelChannel, names []string) (devices []projections.Key) {
		for _, name := range names {
			for _, device := range m.reachable(name, now) {
				if member := channel.members[name]; device != s.device && (member.joined || member.welcomed || name == s.account) {
					devices = append(devices, device)
				}
			}
		}
		return devices
	}
	newMessage := func(payload []byte, welcome bool) *modelMessage {
		return &modelMessage{
			sender: s.account, payload: string(payload), enqueued: now, expires: expiry(now, req.GetTtlS()),
			channel: c, post: c.seq + 1, welcome: welcome,
		}
	}
	devices := readers(c, slices.Collect(maps.Keys(c.members)))
	message := newMessage(req.GetPayload(), false)
	if why, none := m.fits(devices, message, barren); none && req.ExpectedEpoch == nil && len(devices) > 0 {
		return refused(pb.Status_RateLimited, why)
	}
	for _, w := range req.GetWelcomes() {
		key := w.GetRecipientKeys()[0]
		if after.members[m.everBy(key)] == nil {
			return refused(pb.Status_NotFound, pb.Reason_NO_SUCH_MEMBER)
		}
		if name := m.person(key); name == "" || len(m.reachable(name, now)) == 0 { // its identity ended, or it has no device
			return refused(pb.Status_NotFound, pb.Reason_NO_DEVICE)
		}
	}
	m.place(devices, message, barren)
	m.events++
	m.eventIf(changed)
	answer := &pb.BatchEnqueueResponse{ServerTimeMs: now, ChannelSeq: message.post, Epoch: c.epoch}
	me := after.members[s.account]
	if !me.joined {
		me.joined, me.since = true, now
	}
	messages := []*modelMessage{message}
	for _, w := range req.GetWelcomes() {
		name := m.person(w.GetRecipientKeys()[0])
		welcome := newMessage(w.GetPayload(), true)
		if placed := m.place(m.accounts[name].devices, welcome, barren); placed > 0 && !after.members[name].joined {
			after.members[name].welcomed = true
		}
		m.events++
		messages = append(messages, welcome)
		answer.Results = append(answer.Results, &pb.BatchEnqueueResponse_Result{})
	}
	after.seq++
	if req.ExpectedEpoch != nil {
		after.epoch++
		me.commit = after.seq
		answer.Epoch = after.epoch
	}
	*c = *after
	return prediction{answer: answer, learn: func(got proto.Message) {
		response := got.(*pb.BatchEnqueueResponse)
		message.id = projections.ID(response.GetMessageId())
		answer.MessageId = message.id[:]
		for i, result := range response.GetResults() {
			if i < len(answer.Results) {
				messages[i+1].id = projections.ID(result.GetMessageId())
				answer.Results[i].MessageId = messages[i+1].id[:]
			}
		}
	}}
}

// fits tells whether no queue has room for a message, and why.
func (m *serverModel) fits(devices []projections.Key, message *modelMessage, barren map[projections.Key]bool) (why pb.Reason, none bool) {
	tried := m.clone()
	before := maps.Clone(barren)
	into, past, why := tried.split(devices, message, before)
	return why, len(into) == 0 && len(past) > 0
}

// place puts a message into the queues that have room, and a gap into the others.
func (m *serverModel) place(devices []projections.Key, message *modelMessage, barren map[projections.Key]bool) int {
	into, past, _ := m.split(devices, message, barren)
	for _, q := range into {
		q.add(message)
	}
	for _, q := range past {
		q.lost, q.lostUpTo, q.next = q.lost+1, q.next, q.next+1
	}
	return len(into)
}

// rarelyWithout draws whether a call about a channel is made although there is none.
func (m *machine) rarelyWithout(t *rapid.T) bool {
	return len(m.model.channels) > 0 || rapid.IntRange(0, 19).Draw(t, "without a channel") == 0
}

// drawChannel is the id of a channel: mostly one that the session's person is in,
// rarely none.
func (m *machine) drawChannel(t *rapid.T, session []byte) []byte {
	var own, all [][]byte
	for _, c := range m.model.channels {
		if all = append(all, c.id[:]); c.members[m.personOf(session)] != nil {
			own = append(own, c.id[:])
		}
	}
	switch n := rapid.IntRange(0, 19).Draw(t, "which channel"); {
	case n == 0:
		return bytes.Repeat([]byte{9}, 16)
	case n < 17 && len(own) > 0:
		return rapid.SampledFrom(own).Draw(t, "own channel")
	case len(all) > 0:
		return rapid.SampledFrom(all).Draw(t, "channel")
	}
	return nil
}

// drawKeys are the identity keys of some people, rarely of nobody.
func (m *machine) drawKeys(t *rapid.T, label string, least int) (keys [][]byte) {
	for range rapid.IntRange(least, 2).Draw(t, label) {
		name := m.drawName(t, label)
		if rapid.IntRange(0, 19).Draw(t, "nobody") == 0 {
			name = "nobody"
		}
		if rapid.IntRange(0, 9).Draw(t, "first identity") > 0 {
			name = m.identity(name)
		}
		keys = append(keys, m.public(name))
	}
	return keys
}

func (m *machine) drawSettings(t *rapid.T) *pb.ChannelSettings {
	return &pb.ChannelSettings{
		Posting:     rapid.SampledFrom([]pb.PostingRule{0, 0, 1}).Draw(t, "posting"),
		CommitOrder: rapid.SampledFrom([]pb.CommitOrder{0, 0, 0, 1}).Draw(t, "commit order"),
		Presence:    rapid.Bool().Draw(t, "presence"),
	}
}

func (m *machine) drawCreateChannel(t *rapid.T) *request {
	if len(m.model.channels) >= 3 {
		return nil
	}
	req := &pb.CreateChannelRequest{SessionToken: m.drawSession(t), Name: []byte("sealed"), Members: m.drawKeys(t, "members", 0)}
	if rapid.Bool().Draw(t, "settings") {
		req.Settings = m.drawSettings(t)
	}
	return m.withID(t, spoil(t, &request{Message: req}, []fault[*pb.CreateChannelRequest]{
		{pb.Reason_INVALID_FIELD, func(r *pb.CreateChannelRequest) { r.Name = make([]byte, 1025) }},
		{pb.Reason_NOT_SUPPORTED, func(r *pb.CreateChannelRequest) { r.RemoteMembers = []string{"bob@elsewhere"} }},
		{pb.Reason_KEY_INVALID, func(r *pb.CreateChannelRequest) { r.Members = [][]byte{{1}} }},
	}))
}

// drawMembers adds or removes somebody, or asks for a rotation or the list.
func (m *machine) drawMembers(t *rapid.T) *request {
	if !m.rarelyWithout(t) {
		return nil
	}
	session := m.drawSession(t)
	channel := m.drawChannel(t, session)
	switch rapid.IntRange(0, 3).Draw(t, "what") {
	case 0:
		return m.withID(t, &request{Message: &pb.AddMemberRequest{SessionToken: session, ChannelId: channel, Members: m.drawKeys(t, "members", 1)}})
	case 1:
		return m.withID(t, &request{Message: &pb.RemoveMemberRequest{SessionToken: session, ChannelId: channel, IdentityKey: m.drawKeys(t, "member", 1)[0]}})
	case 2:
		return m.withID(t, &request{Message: &pb.RotateKeysRequest{SessionToken: session, ChannelId: channel}})
	}
	return &request{Message: &pb.ListGroupMembersRequest{SessionToken: session, ChannelId: channel}}
}

func (m *machine) drawUpdate(t *rapid.T) *request {
	if !m.rarelyWithout(t) {
		return nil
	}
	session := m.drawSession(t)
	req := &pb.UpdateGroupMetadataRequest{SessionToken: session, ChannelId: m.drawChannel(t, session)}
	for _, c := range m.model.channels {
		if bytes.Equal(c.id[:], req.GetChannelId()) {
			req.ExpectedVersion = c.version - rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, "version behind")
		}
	}
	if rapid.Bool().Draw(t, "accept") {
		req.Fields = append(req.Fields, pb.ChannelField_ACCEPT)
	}
	field := rapid.SampledFrom([]pb.ChannelField{
		pb.ChannelField_ACCEPT, pb.ChannelField_SHARE_PRESENCE, pb.ChannelField_CHANNEL_NAME, pb.ChannelField_CHANNEL_SETTINGS,
		pb.ChannelField_CHANNEL_ROLES, pb.ChannelField_ADD_MEMBERS, pb.ChannelField_SET_EPOCH,
	}).Draw(t, "field")
	req.Fields = append(req.Fields, field)
	switch field {
	case pb.ChannelField_SHARE_PRESENCE:
		req.Presence = rapid.Bool().Draw(t, "share")
	case pb.ChannelField_CHANNEL_NAME:
		req.Name = []byte("renamed")
	case pb.ChannelField_CHANNEL_SETTINGS:
		req.Settings = m.drawSettings(t)
	case pb.ChannelField_CHANNEL_ROLES:
		req.Roles = []*pb.UpdateGroupMetadataRequest_RoleChange{{
			IdentityKey: m.drawKeys(t, "whom", 1)[0], Role: pb.ChannelRole(rapid.IntRange(1, 3).Draw(t, "role")),
		}}
	case pb.ChannelField_ADD_MEMBERS:
		req.AddMembers = m.drawKeys(t, "members", 0)
	case pb.ChannelField_SET_EPOCH:
		req.SetEpoch = rapid.Uint64Range(0, 3).Draw(t, "epoch")
	}
	return m.withID(t, &request{Message: req})
}

// drawPost is an application post, or a commit of the epoch or of one beside it,
// with or without changes of members and Welcomes.
func (m *machine) drawPost(t *rapid.T) *request {
	if !m.rarelyWithout(t) {
		return nil
	}
	session := m.drawSession(t)
	req := &pb.BatchEnqueueRequest{
		SessionToken: session, ChannelId: m.drawChannel(t, session), Payload: m.drawPayload(t), TtlS: lifetimes.Draw(t, "ttl"),
	}
	if rapid.Bool().Draw(t, "commit") {
		epoch := rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, "epoch ahead")
		for _, c := range m.model.channels {
			if bytes.Equal(c.id[:], req.GetChannelId()) {
				epoch += c.epoch
			}
		}
		req.ExpectedEpoch = &epoch
	}
	if rapid.IntRange(0, 2).Draw(t, "adds") == 0 {
		req.AddMembers = m.drawKeys(t, "added", 1)
		for _, key := range req.GetAddMembers() {
			req.Welcomes = append(req.Welcomes, &pb.Welcome{RecipientKeys: [][]byte{key}, Payload: []byte("welcome")})
		}
	}
	if rapid.IntRange(0, 5).Draw(t, "removes") == 0 {
		req.RemoveMembers = m.drawKeys(t, "removed", 1)
	}
	r := &request{Message: req}
	if len(req.GetChannelId()) == 0 {
		r.wrong = pb.Reason_MISSING_FIELD
	}
	return m.withID(t, spoil(t, r, []fault[*pb.BatchEnqueueRequest]{
		{pb.Reason_MISSING_FIELD, func(r *pb.BatchEnqueueRequest) { r.Payload, r.TtlS = nil, 5 }},
		{pb.Reason_INVALID_FIELD, func(r *pb.BatchEnqueueRequest) { r.ChannelId = make([]byte, 15) }},
		{pb.Reason_MISSING_FIELD, func(r *pb.BatchEnqueueRequest) { r.Welcomes = []*pb.Welcome{{Payload: []byte("w")}} }},
	}))
}
