package sim

import (
	"errors"
	"fmt"
	"slices"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// What the model knows of devices that join, and of who is shut out. Its rule: in the
// order of the log, nothing by a banned account stands between the ban and its end,
// and no message to it.

// mostDevices is how many an account may have.
const mostDevices = 10

func (m *Model) addDevice(ev *pb.DeviceRegistered) error {
	a, device := m.ids[ID(ev.AccountId)], Key(ev.DeviceKey)
	switch {
	case a == nil || m.isBanned(a.ID):
		return errors.New("a device for nobody, or for somebody who is banned")
	case m.Queues[device] != nil || m.Revoked[device] != nil || m.KeySets[device] != nil:
		return errors.New("a device whose key is known")
	case len(a.Devices) >= mostDevices && len(ev.Replaces) == 0:
		return fmt.Errorf("a device beside %d others", len(a.Devices))
	}
	a.Devices = append(slices.Clone(a.Devices), device)
	m.Queues[device] = newQueue(a.ID)
	if len(ev.Replaces) == 0 {
		return nil
	}
	former := Key(ev.Replaces)
	if q := m.Queues[former]; q == nil || q.Closed || q.Owner != a.ID || former == device {
		return errors.New("a queue went over that is none of the account's")
	}
	m.Queues[device], m.Queues[former] = m.Queues[former], newQueue(a.ID)
	m.Successors[former] = device
	return nil
}

// isBanned tells whether an account is shut out at the time of the newest event.
func (m *Model) isBanned(account ID) bool {
	ban := m.Bans[account]
	return ban != nil && (ban.UntilMs == 0 || m.TimeMS < ban.UntilMs)
}

// moderates checks who acts on whom: only a higher role does.
func (m *Model) moderates(actor *pb.Actor, on *Account) error {
	switch actor.GetWay() {
	case pb.Actor_SOCKET, pb.Actor_DIRECTORY:
		return nil
	case pb.Actor_SESSION:
		by := m.ids[ID(actor.AccountId)]
		if by == nil || by.Role < pb.Role_MODERATOR || m.isBanned(by.ID) {
			return errors.New("somebody moderates who is no moderator, or is banned")
		}
		if on != nil && on.Role >= by.Role {
			return errors.New("somebody moderates an equal or higher role")
		}
		return nil
	}
	return errors.New("somebody moderates without a name")
}

func (m *Model) ban(ev *pb.UserBanned) error {
	a := m.ids[ID(ev.AccountId)]
	if a == nil || ev.UntilMs != 0 && ev.UntilMs <= m.TimeMS {
		return errors.New("nobody was banned, or until a time in the past")
	}
	if err := m.moderates(ev.Actor, a); err != nil {
		return err
	}
	for token, s := range m.Sessions {
		if s.Account == a.ID {
			delete(m.Sessions, token)
		}
	}
	m.Bans[a.ID] = ev
	return nil
}

func (m *Model) unban(ev *pb.UserUnbanned) error {
	id := ID(ev.AccountId)
	if !m.isBanned(id) {
		return errors.New("a ban was lifted that is none")
	}
	delete(m.Bans, id)
	return m.moderates(ev.Actor, m.ids[id])
}

func (m *Model) expireBans(ev *pb.BansExpired) error {
	for _, account := range ev.AccountIds {
		id := ID(account)
		if m.Bans[id] == nil || m.isBanned(id) {
			return errors.New("a ban ended before its time")
		}
		delete(m.Bans, id)
	}
	return nil
}

func (m *Model) report(ev *pb.MessageReported) error {
	id, by := ID(ev.ReportId), ID(ev.ReporterId)
	if m.Reports[id] != 0 || m.ids[by] == nil || m.ids[ID(ev.AccountId)] == nil || m.isBanned(by) {
		return errors.New("a report twice, by or about nobody, or by somebody who is banned")
	}
	m.Reports[id], m.Proved[id], m.touched[id] = pb.ReportState_OPEN, ev.Proved, m.TimeMS
	m.Payloads[PayloadKey{by, id}] = [32]byte(ev.ContentSha256)
	return nil
}

func (m *Model) resolve(ev *pb.ReportResolved) error {
	if m.Reports[ID(ev.ReportId)] == 0 {
		return errors.New("a report was resolved that is none")
	}
	m.Reports[ID(ev.ReportId)], m.touched[ID(ev.ReportId)] = ev.State, m.TimeMS
	return m.moderates(ev.Actor, nil)
}

// No world lasts as long as a report is kept: an end in one is too early.
const (
	openReportDays     = 365
	resolvedReportDays = 90
)

func (m *Model) expireReports(ev *pb.ReportsExpired) error {
	for _, report := range ev.ReportIds {
		id, days := ID(report), uint64(openReportDays)
		if m.Reports[id] != pb.ReportState_OPEN {
			days = resolvedReportDays
		}
		if m.Reports[id] == 0 || m.TimeMS <= m.touched[id]+days*24*3600*1000 {
			return errors.New("a report that is none expired, or one too early")
		}
		delete(m.Reports, id)
	}
	return nil
}

func (m *Model) banFromChannel(ev *pb.ChannelUserBanned) error {
	c, actor, err := m.seat(ev.ChannelId, ev.ActorId)
	if err != nil {
		return err
	}
	member := c.Members[ID(ev.AccountId)]
	if m.ids[ID(ev.AccountId)] == nil || actor.Role < pb.ChannelRole_CHANNEL_ADMIN || member != nil && member.Role >= actor.Role {
		return errors.New("nobody was banned from a channel, or by who may not")
	}
	c.Bans[ID(ev.AccountId)] = ev
	return nil
}

func (m *Model) unbanFromChannel(ev *pb.ChannelUserUnbanned) error {
	c, actor, err := m.seat(ev.ChannelId, ev.ActorId)
	if err != nil {
		return err
	}
	if c.Bans[ID(ev.AccountId)] == nil || actor.Role < pb.ChannelRole_CHANNEL_ADMIN {
		return errors.New("a ban from a channel was lifted that is none, or by who may not")
	}
	delete(c.Bans, ID(ev.AccountId))
	return nil
}

func (m *Model) expireChannelBans(ev *pb.ChannelBansExpired) error {
	for _, over := range ev.Bans {
		c := m.Channels[ID(over.ChannelId)]
		if c == nil || c.Bans[ID(over.AccountId)] == nil || m.TimeMS < c.Bans[ID(over.AccountId)].UntilMs {
			return errors.New("a ban from a channel ended before its time")
		}
		delete(c.Bans, ID(over.AccountId))
	}
	return nil
}

// acts refuses what a banned account did.
func (m *Model) acts(ev *pb.Event) error {
	if actor := inChannel(ev); len(actor) > 0 && m.isBanned(ID(actor)) {
		return fmt.Errorf("%T by somebody who is banned was accepted", ev.Body)
	}
	var device []byte
	switch b := ev.Body.(type) {
	case *pb.Event_MessagesDrained:
		device = b.MessagesDrained.DeviceKey
	case *pb.Event_MessagesConfirmed:
		device = b.MessagesConfirmed.DeviceKey
	case *pb.Event_MessagesAcked:
		device = b.MessagesAcked.DeviceKey
	case *pb.Event_MessageEnqueued:
		to := ID(b.MessageEnqueued.AccountId)
		if m.isBanned(ID(b.MessageEnqueued.SenderId)) || m.isBanned(to) && !b.MessageEnqueued.Control {
			return errors.New("a message from or to somebody who is banned was accepted")
		}
	case *pb.Event_ChannelPosted:
		for _, t := range b.ChannelPosted.Targets {
			if q := m.Queues[Key(t.DeviceKey)]; q != nil && m.isBanned(q.Owner) {
				return errors.New("a post to somebody who is banned was accepted")
			}
		}
	case *pb.Event_KeyPackagesUploaded:
		device = b.KeyPackagesUploaded.DeviceKey
	case *pb.Event_SessionStarted:
		if m.isBanned(ID(b.SessionStarted.AccountId)) {
			return errors.New("somebody who is banned logged in")
		}
	case *pb.Event_PasswordChanged:
		if m.isBanned(ID(b.PasswordChanged.AccountId)) {
			return errors.New("somebody who is banned changed the password")
		}
	}
	if device == nil && ev.Receipt != nil {
		device = ev.Receipt.Caller
	}
	if len(device) != len(Key{}) {
		return nil
	}
	if q := m.Queues[Key(device)]; q != nil && m.isBanned(q.Owner) {
		return fmt.Errorf("%T by a device of somebody who is banned was accepted", ev.Body)
	}
	return nil
}

// inChannel is the account that does something in a channel by an event, if it is one
// of those.
func inChannel(ev *pb.Event) []byte {
	switch b := ev.Body.(type) {
	case *pb.Event_ChannelCreated:
		return b.ChannelCreated.CreatorId
	case *pb.Event_ChannelMembersChanged:
		return b.ChannelMembersChanged.ActorId
	case *pb.Event_ChannelMemberUpdated:
		return b.ChannelMemberUpdated.AccountId
	case *pb.Event_ChannelUpdated:
		return b.ChannelUpdated.ActorId
	case *pb.Event_ChannelEpochSet:
		return b.ChannelEpochSet.ActorId
	case *pb.Event_ChannelPosted:
		return b.ChannelPosted.SenderId
	case *pb.Event_ChannelRotationRequested:
		return b.ChannelRotationRequested.ActorId
	case *pb.Event_ChannelUserBanned:
		return b.ChannelUserBanned.ActorId
	case *pb.Event_ChannelUserUnbanned:
		return b.ChannelUserUnbanned.ActorId
	}
	return nil
}

// compareBans holds the bans of the views against the model.
func compareBans(r projections.Reader, m *Model) error {
	all, err := projections.Bans(r, projections.ID{}, len(m.Bans)+1)
	if err != nil || len(all) != len(m.Bans) {
		return fmt.Errorf("the views have %d bans, not %d (%v)", len(all), len(m.Bans), err)
	}
	for _, ban := range all {
		if want := m.Bans[ID(ban.Account)]; want == nil || want.UntilMs != ban.UntilMS || want.Reason != ban.Reason {
			return fmt.Errorf("ban %+v, not %v", ban, want)
		}
	}
	for id, state := range m.Reports {
		if report, found, err := projections.ReportByID(r, projections.ID(id)); err != nil || !found || report.State != state {
			return fmt.Errorf("report %+v, not %v (%v)", report, state, err)
		}
	}
	return nil
}
