package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/client"
)

// Banned is one time that somebody was to be shut out, of the server or of a channel.
type Banned struct {
	span
	Who     *Person
	Channel ID     // zero: the whole server
	Until   uint64 // Unix milliseconds; never: until it is lifted
	Outcome Outcome
}

// Lifted is one time that a ban was to be lifted.
type Lifted struct {
	span
	Who     *Person
	Channel ID
	Outcome Outcome
}

// Accepted is a call of somebody's session that the server answered with Ok;
// ToldBanned is a login that it refused for a ban.
type (
	Accepted struct {
		span
		By     *Person
		Device Key
		What   string
	}
	ToldBanned struct {
		span
		Who *Person
	}
)

// Reported is one ReportMessage.
type Reported struct {
	span
	By      *Person
	About   string
	Genuine bool // it is about a message as it was delivered
	Forged  bool // … or as it was not
	Outcome Outcome
	Report  ID // when Done
}

// drawModerator says whether the first person of a world is its moderator.
func drawModerator(seed uint64) bool { return rand.New(rand.NewPCG(seed, 700)).IntN(3) == 0 }

// becomeModerator asks whoever runs the server for the role, as often as it takes.
func (p *Person) becomeModerator(ctx context.Context) {
	probe := p.world.alive.Load()
	if p.isModerator || probe == nil {
		return
	}
	s := begin()
	req := &pb.GrantRoleRequest{Username: p.name, Role: pb.Role_MODERATOR}
	method, _ := rpc.LocalMethodOf(req)
	command, err := commands.NewGrantRole(method.Rule, req, pb.Actor_SOCKET)
	if err == nil {
		ctx, stop := context.WithTimeout(ctx, 10*time.Second)
		defer stop()
		_, err = probe.node.Engine().Do(ctx, command)
	}
	s.finish()
	if err != nil || probe.dead.Load() { // what a dead server says is nobody's
		return
	}
	p.isModerator = true
	p.world.History.addFact(Fact{s, p.name + "'s role", func(m *Model) error {
		if a := m.Accounts[p.name]; a == nil || a.Role != pb.Role_MODERATOR {
			return fmt.Errorf("the account is %+v", a)
		}
		return nil
	}})
}

// moderate does one thing of a moderator.
func (p *Person) moderate(ctx context.Context) {
	who := p.world.People[1+p.rng.IntN(len(p.world.People)-1)]
	switch n := p.rng.IntN(100); {
	case n < 35:
		p.ban(ctx, who, ID{})
	case n < 70:
		p.lift(ctx, who, ID{})
	case n < 80:
		p.listBanned(ctx)
	default:
		p.resolveReport(ctx)
	}
}

// ban shuts somebody out, mostly for some seconds.
func (p *Person) ban(ctx context.Context, who *Person, room ID) {
	req := &pb.BanUserRequest{Scope: pb.BanScope_WHOLE_SERVER, Username: who.name, Reason: "a reason"}
	if room != (ID{}) {
		req.Scope, req.ChannelId = pb.BanScope_ONE_CHANNEL, room[:]
	}
	b := &Banned{begin(), who, room, never, Unknown}
	if p.rng.IntN(3) > 0 {
		req.UntilMs = nowMS() + uint64(1000+p.rng.IntN(12_000))
		b.Until = req.UntilMs
	}
	p.world.History.addBanned(b)
	b.Outcome = p.insist(ctx, req, new(pb.BanUserResponse))
	b.finish()
	if room != (ID{}) {
		p.world.History.addParted(&Parted{b.span, who, room, b.Outcome})
	}
}

// lift ends somebody's ban, if there is one.
func (p *Person) lift(ctx context.Context, who *Person, room ID) {
	req := &pb.UnbanUserRequest{Scope: pb.BanScope_WHOLE_SERVER, Username: who.name}
	if room != (ID{}) {
		req.Scope, req.ChannelId = pb.BanScope_ONE_CHANNEL, room[:]
	}
	l := &Lifted{begin(), who, room, Unknown}
	p.world.History.addLifted(l)
	l.Outcome = p.insist(ctx, req, new(pb.UnbanUserResponse))
	l.finish()
}

// listBanned looks who is shut out: who surely is, is there.
func (p *Person) listBanned(ctx context.Context) {
	s := begin()
	resp, err := p.client.ListBanned(ctx, &pb.ListBannedRequest{Scope: pb.BanScope_WHOLE_SERVER})
	s.finish()
	if p.note(err); err != nil {
		return
	}
	listed := map[string]bool{}
	for _, b := range resp.Bans {
		listed[b.Username] = true
	}
	for _, o := range p.world.People {
		switch h := p.world.History; {
		case !listed[o.name] && h.surelyBanned(o, ID{}, s):
			h.Wrong(fmt.Sprintf("%s is banned and not listed", o.name))
		case listed[o.name] && !h.maybeBanned(o, s):
			h.Wrong(fmt.Sprintf("%s is listed as banned, and nobody asked for it", o.name))
		}
	}
}

// report tells of somebody, mostly of a message that came, at times spoiled.
func (p *Person) report(ctx context.Context) {
	req := &pb.ReportMessageRequest{Username: p.other().name, Category: pb.ReportCategory_SPAM, Note: fmt.Sprintf("report %d", p.sends)}
	r := &Reported{span: begin(), By: p.who()}
	if e := p.received; e != nil {
		by := p.world.History.senderOf(hashOf(e.Payload))
		if req.Message = client.Reported(e); by != nil && req.Message != nil {
			req.Username = by.name
			if p.rng.IntN(3) == 0 {
				req.Message.TimeMs++
				r.Forged = true
			} else {
				r.Genuine = p.endAfter == 0 // a tag is good for one identity key
			}
		}
	}
	r.About = req.Username
	p.world.History.addReported(r)
	resp := new(pb.ReportMessageResponse)
	r.Outcome = p.insist(ctx, req, resp)
	r.finish()
	if r.Outcome == Done {
		r.Report = ID(resp.ReportId)
		p.repeat(ctx, req, resp)
	}
}

// resolveReport looks at the newest reports and says what became of one.
func (p *Person) resolveReport(ctx context.Context) {
	resp, err := p.client.ListReports(ctx, &pb.ListReportsRequest{MaxEntries: 5})
	if p.note(err); err != nil || len(resp.Reports) == 0 {
		return
	}
	req := &pb.ResolveReportRequest{
		ReportId: resp.Reports[p.rng.IntN(len(resp.Reports))].ReportId, State: pb.ReportState_ACTED, Note: fmt.Sprint(p.doings),
	}
	p.insist(ctx, req, new(pb.ResolveReportResponse))
}
