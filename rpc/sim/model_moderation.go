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
	m.Reports[id] = pb.ReportState_OPEN
	m.Payloads[PayloadKey{by, id}] = [32]byte(ev.ContentSha256)
	return nil
}

func (m *Model) resolve(ev *pb.ReportResolved) error {
	if m.Reports[ID(ev.ReportId)] == 0 {
		return errors.New("a report was resolved that is none")
	}
	m.Reports[ID(ev.ReportId)] = ev.State
	return m.moderates(ev.Actor, nil)
}

// acts refuses what a banned account did.
func (m *Model) acts(ev *pb.Event) error {
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
