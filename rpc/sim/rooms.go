package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// Invited is one time that somebody was to get into a channel.
type Invited struct {
	span
	Who     *Person
	Channel ID
	Outcome Outcome
}

// Parted is one time that somebody was to leave a channel: by themselves, put out, or
// banned from it.
type Parted struct {
	span
	Who     *Person
	Channel ID
	Outcome Outcome
}

// Passed is an EPHEMERAL message, by the hash of its unique payload; Heard is one that
// a device was pushed.
type (
	Passed struct {
		span
		By      *Person
		Channel ID
		Outcome Outcome
	}
	Heard struct {
		at      uint64
		Device  Key
		Channel ID
		Hash    [32]byte
	}
)

// mostRooms is how many channels a world gets to know.
const mostRooms = 3

// progress is how far a channel came, as far as somebody was told.
type progress struct{ epoch, seq, version uint64 }

// converse does something in a channel that the world knows, or founds one.
func (p *Person) converse(ctx context.Context) {
	rooms := p.world.knownRooms()
	if len(rooms) == 0 || len(rooms) < mostRooms && p.rng.IntN(15) == 0 {
		p.found(ctx)
		return
	}
	room := rooms[p.rng.IntN(len(rooms))]
	switch n := p.rng.IntN(100); {
	case n < 12:
		p.accept(ctx, room)
	case n < 45:
		p.post(ctx, room, false)
	case n < 65:
		p.post(ctx, room, true)
	case n < 71:
		p.invite(ctx, room)
	case n < 75:
		p.putOut(ctx, room, p.other())
	case n < 77:
		p.putOut(ctx, room, p.who())
	case n < 78:
		p.ban(ctx, p.other(), room)
	case n < 79:
		p.lift(ctx, p.other(), room)
	case n < 80:
		p.rotate(ctx, room)
	case n < 82:
		p.promote(ctx, room)
	case n < 83:
		p.repair(ctx, room)
	case n < 85:
		p.show(ctx, room)
	case n < 87:
		p.list(ctx, room)
	case n < 93:
		p.passOn(ctx, room)
	default:
		p.listen(ctx)
	}
}

// found makes a channel and invites most of the others. Its id goes round by word of
// mouth.
func (p *Person) found(ctx context.Context) {
	req := &pb.CreateChannelRequest{Name: p.payload()[:8], Settings: &pb.ChannelSettings{TypingOff: p.rng.IntN(5) == 0, Presence: p.rng.IntN(3) > 0}}
	if p.rng.IntN(8) == 0 {
		req.Settings.Posting = pb.PostingRule_POST_ADMINS
	}
	var who []*Person
	for _, o := range p.world.People {
		if o != p.who() && o.arrived.Load() && p.rng.IntN(4) > 0 {
			req.Members = append(req.Members, slice(o.IdentityKey()))
			who = append(who, o)
		}
	}
	s := begin()
	resp := new(pb.CreateChannelResponse)
	outcome := p.insist(ctx, req, resp)
	s.finish()
	if outcome != Done {
		return // nobody knows its id
	}
	id := ID(resp.ChannelId)
	for _, o := range who {
		p.world.History.addInvited(&Invited{s, o, id, Done})
	}
	p.fact(s, "channel", func(m *Model) error {
		if !m.Founded[id] {
			return fmt.Errorf("channel %x never was", id)
		}
		return nil
	})
	p.world.knowRoom(id)
	p.repeat(ctx, req, resp)
}

// accept joins a channel.
func (p *Person) accept(ctx context.Context, room ID) {
	req := &pb.UpdateGroupMetadataRequest{ChannelId: room[:], Fields: []pb.ChannelField{pb.ChannelField_ACCEPT}}
	if p.rng.IntN(2) == 0 {
		req.Fields, req.Presence = append(req.Fields, pb.ChannelField_SHARE_PRESENCE), true
	}
	s := begin()
	outcome := p.insist(ctx, req, new(pb.UpdateGroupMetadataResponse))
	s.finish()
	if outcome == Done {
		p.fact(s, "acceptance", func(m *Model) error {
			for _, stay := range m.staysOf(room, p.name) {
				if stay.within(s) && stay.Joined <= s.end {
					return nil
				}
			}
			return fmt.Errorf("never in channel %x at that time", room)
		})
	}
}

func (m *Model) staysOf(channel ID, name string) []*Stay {
	if a := m.Accounts[name]; a != nil {
		return m.Stays[Seat{channel, a.ID}]
	}
	return nil
}

// post sends to everybody in a channel; a commit may come with changes of members and
// with Welcomes, as MLS has it.
func (p *Person) post(ctx context.Context, room ID, commit bool) {
	req := &pb.BatchEnqueueRequest{ChannelId: room[:], Payload: p.payload(), TtlS: p.ttl()}
	sent := []*Sent{p.newPost(room, req.Payload)}
	var invited []*Invited
	var parted []*Parted
	if commit {
		epoch := p.rooms[room].epoch
		if p.rng.IntN(10) == 0 && epoch > 0 {
			epoch-- // as if the last commit was not seen
		}
		req.ExpectedEpoch = &epoch
		sent[0].Epoch = &epoch
		if p.rng.IntN(4) == 0 {
			o := p.other()
			req.AddMembers = append(req.AddMembers, slice(o.IdentityKey()))
			invited = append(invited, &Invited{begin(), o, room, Unknown})
		} else if p.rng.IntN(8) == 0 {
			o := p.other()
			req.RemoveMembers = append(req.RemoveMembers, slice(o.IdentityKey()))
			parted = append(parted, &Parted{begin(), o, room, Unknown})
		}
		if p.rng.IntN(4) == 0 {
			o := p.other()
			if len(invited) > 0 {
				o = invited[0].Who
			}
			w := &pb.Welcome{RecipientDevices: [][]byte{slice(o.DeviceKey())}, Payload: p.payload()}
			req.Welcomes = append(req.Welcomes, w)
			welcome := p.newPost(room, w.Payload)
			welcome.Welcome = true
			sent = append(sent, welcome)
		}
	}
	for _, i := range invited {
		p.world.History.addInvited(i)
	}
	for _, o := range parted {
		p.world.History.addParted(o)
	}
	atLeast := p.world.progressOf(room)
	resp := new(pb.BatchEnqueueResponse)
	outcome := p.insist(ctx, req, resp)
	for _, i := range invited {
		i.finish()
		i.Outcome = outcome
	}
	for _, o := range parted {
		o.finish()
		o.Outcome = outcome
	}
	for i, s := range sent {
		s.finish()
		if s.Outcome = outcome; outcome != Done {
			continue
		}
		if s.Seq, s.Message = resp.ChannelSeq, ID(resp.MessageId); s.Welcome {
			s.Message = ID(resp.Results[i-1].MessageId)
		}
	}
	if outcome == Done {
		if commit && resp.Epoch != *req.ExpectedEpoch+1 {
			p.world.History.Wrong(fmt.Sprintf("%s: a commit of epoch %d led to epoch %d", p.name, *req.ExpectedEpoch, resp.Epoch))
		}
		p.learn(room, progress{epoch: resp.Epoch, seq: resp.ChannelSeq}, atLeast)
		p.repeat(ctx, req, resp)
	} else if client.ReasonOf(p.told) == pb.Reason_STALE_EPOCH {
		p.learn(room, progress{epoch: staleEpoch(p.told), seq: never}, atLeast)
	}
}

// staleEpoch is where a refusal STALE_EPOCH says that the channel is.
func staleEpoch(err error) uint64 {
	if status, ok := statusOf(err); ok {
		return status.Detail.GetCurrentEpoch()
	}
	return never
}

func (p *Person) newPost(room ID, payload []byte) *Sent {
	s := &Sent{span: begin(), By: p.who(), Channel: room, Hash: hashOf(payload)}
	p.world.History.addSent(s)
	return s
}

// learn remembers how far a channel is, which no answer may put behind what was known
// before the question.
func (p *Person) learn(room ID, now, atLeast progress) {
	if now.epoch < atLeast.epoch && !p.world.History.mayBeRepaired(room) || now.seq < atLeast.seq || now.version < atLeast.version && now.version > 0 {
		p.world.History.Wrong(fmt.Sprintf("%s is told %+v of a channel, after somebody was told %+v", p.name, now, atLeast))
	}
	if now.seq == never {
		now.seq = 0
	}
	p.rooms[room] = progress{epoch: now.epoch}
	p.world.advance(room, now)
}

// invite gets somebody into a channel.
func (p *Person) invite(ctx context.Context, room ID) {
	o := p.other()
	req := &pb.AddMemberRequest{ChannelId: room[:], Members: [][]byte{slice(o.IdentityKey())}}
	i := &Invited{begin(), o, room, Unknown}
	p.world.History.addInvited(i)
	resp := new(pb.AddMemberResponse)
	outcome := p.insist(ctx, req, resp)
	i.finish()
	if i.Outcome = outcome; outcome != Done {
		return
	}
	p.fact(i.span, "invitation", func(m *Model) error {
		for _, stay := range m.staysOf(room, o.name) {
			if stay.within(i.span) {
				return nil
			}
		}
		return fmt.Errorf("%s was not in channel %x", o.name, room)
	})
	p.repeat(ctx, req, resp)
}

// putOut puts somebody out of a channel; oneself is leaving.
func (p *Person) putOut(ctx context.Context, room ID, who *Person) {
	req := &pb.RemoveMemberRequest{ChannelId: room[:], IdentityKey: slice(who.IdentityKey())}
	o := &Parted{begin(), who, room, Unknown}
	p.world.History.addParted(o)
	resp := new(pb.RemoveMemberResponse)
	outcome := p.insist(ctx, req, resp)
	o.finish()
	if o.Outcome = outcome; outcome != Done {
		return
	}
	p.partedFact(o)
	p.repeat(ctx, req, resp)
}

func (p *Person) partedFact(o *Parted) {
	p.fact(o.span, "removal of a member", func(m *Model) error {
		for _, stay := range m.staysOf(o.Channel, o.Who.name) {
			if o.start <= stay.Left && stay.Left <= o.end {
				return nil
			}
		}
		return fmt.Errorf("%s did not leave channel %x then", o.Who.name, o.Channel)
	})
}

// rotate asks everybody in a channel for new keys: a control item for each device.
func (p *Person) rotate(ctx context.Context, room ID) {
	req, resp := &pb.RotateKeysRequest{ChannelId: room[:]}, new(pb.RotateKeysResponse)
	if p.insist(ctx, req, resp) == Done {
		p.repeat(ctx, req, resp)
	}
}

// promote gives somebody the role of an admin, on the version of the channel that the
// person looked at just before.
func (p *Person) promote(ctx context.Context, room ID) {
	info := p.list(ctx, room)
	if info == nil {
		return
	}
	req := &pb.UpdateGroupMetadataRequest{
		ChannelId: room[:], ExpectedVersion: info.Version, Fields: []pb.ChannelField{pb.ChannelField_CHANNEL_ROLES},
		Roles: []*pb.UpdateGroupMetadataRequest_RoleChange{{IdentityKey: slice(p.other().IdentityKey()), Role: pb.ChannelRole_CHANNEL_ADMIN}},
	}
	if p.rng.IntN(2) == 0 {
		req.Fields, req.Roles, req.Name = []pb.ChannelField{pb.ChannelField_CHANNEL_NAME}, nil, p.payload()[:8]
	}
	c := &Changed{begin(), room, info.Version, Unknown}
	p.world.History.addChanged(c)
	resp := new(pb.UpdateGroupMetadataResponse)
	c.Outcome = p.insist(ctx, req, resp)
	c.finish()
	if c.Outcome == Done {
		p.repeat(ctx, req, resp)
	}
}

// Changed is a change of a channel that was made on a version of it.
type Changed struct {
	span
	Channel ID
	Version uint64
	Outcome Outcome
}

// list looks who is in a channel, nil when that is refused.
func (p *Person) list(ctx context.Context, room ID) *pb.ChannelInfo {
	atLeast := p.world.progressOf(room)
	info, _, err := p.client.Members(ctx, room[:])
	if p.note(err); err != nil {
		return nil
	}
	p.learn(room, progress{epoch: info.Epoch, seq: info.LastSeq, version: info.Version}, atLeast)
	return info
}

// passOn sends what nobody keeps.
func (p *Person) passOn(ctx context.Context, room ID) {
	req := &pb.EnqueueRequest{ChannelId: room[:], Class: pb.MessageClass_EPHEMERAL, Payload: p.payload()}
	req.Payload = req.Payload[:min(len(req.Payload), 1<<10)]
	passed := &Passed{span: begin(), By: p.who(), Channel: room}
	p.world.History.addPassed(hashOf(req.Payload), passed)
	_, err := p.client.Enqueue(ctx, req)
	p.note(err)
	passed.finish()
	if passed.Outcome = outcomeOf(err); err == nil {
		p.accepted(passed.span, "EPHEMERAL message")
	}
}

// listen takes pushes for some seconds, while other things are done.
func (p *Person) listen(ctx context.Context) {
	ctx, stop := context.WithTimeout(ctx, time.Duration(2+p.rng.IntN(15))*time.Second)
	pushes, device := p.client.Subscribe(ctx), p.DeviceKey()
	p.ears.Go(func() {
		defer stop()
		for push := range pushes {
			if t := push.Typing; t != nil {
				p.world.History.addHeard(Heard{nowMS(), device, ID(t.ChannelId), hashOf(t.Payload)})
			}
			if t := push.Presence; t != nil {
				p.world.History.addNoticed(Noticed{nowMS(), device, Key(t.IdentityKey)})
			}
		}
	})
}

// knownRooms, knowRoom, progressOf and advance keep what the people of a world know of
// its channels.
func (w *World) knownRooms() []ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.rooms)
}

func (w *World) knowRoom(id ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rooms = append(w.rooms, id)
}

func (w *World) progressOf(room ID) progress {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.progress[room]
}

func (w *World) advance(room ID, to progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.progress[room]
	w.progress[room] = progress{max(now.epoch, to.epoch), max(now.seq, to.seq), max(now.version, to.version)}
}
