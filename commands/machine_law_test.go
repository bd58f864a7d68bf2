package commands_test

import (
	"errors"
	"fmt"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// lawOfTheLog reads the events one by one, knows nothing but them, and holds two laws
// in their order: nothing by or to a banned account stands between the ban and its
// end, and no KeyPackage for one use is taken twice.
type lawOfTheLog struct {
	owners map[projections.Key]projections.ID // of devices, whether they are active or not
	bans   map[projections.ID]uint64          // until when; 0: until the end is told
	taken  map[projections.ID]bool
	now    uint64
}

func newLaw() *lawOfTheLog {
	return &lawOfTheLog{map[projections.Key]projections.ID{}, map[projections.ID]uint64{}, map[projections.ID]bool{}, 0}
}

func (l *lawOfTheLog) banned(account []byte) bool {
	until, banned := l.bans[projections.ID(account)]
	return banned && (until == 0 || l.now < until)
}

func (l *lawOfTheLog) ofBanned(device []byte) bool {
	owner, known := l.owners[projections.Key(device)]
	return known && l.banned(owner[:])
}

func (l *lawOfTheLog) observe(ev *pb.Event) error {
	l.now = ev.GetTimeMs()
	if caller := ev.GetReceipt().GetCaller(); len(caller) > 0 && l.ofBanned(caller) {
		return fmt.Errorf("%T by a device of somebody who is banned", ev.GetBody())
	}
	switch b := ev.GetBody().(type) {
	case *pb.Event_AccountRegistered:
		l.owners[projections.Key(b.AccountRegistered.GetDeviceKey())] = projections.ID(b.AccountRegistered.GetAccountId())
	case *pb.Event_DeviceRegistered:
		l.owners[projections.Key(b.DeviceRegistered.GetDeviceKey())] = projections.ID(b.DeviceRegistered.GetAccountId())
		if l.banned(b.DeviceRegistered.GetAccountId()) {
			return errors.New("somebody who is banned has a new device")
		}
	case *pb.Event_UserBanned:
		l.bans[projections.ID(b.UserBanned.GetAccountId())] = b.UserBanned.GetUntilMs()
	case *pb.Event_UserUnbanned:
		delete(l.bans, projections.ID(b.UserUnbanned.GetAccountId()))
	case *pb.Event_BansExpired:
		for _, account := range b.BansExpired.GetAccountIds() {
			if l.banned(account) {
				return errors.New("a ban ended before its time")
			}
			delete(l.bans, projections.ID(account))
		}
	case *pb.Event_SessionStarted:
		if l.banned(b.SessionStarted.GetAccountId()) {
			return errors.New("somebody who is banned logged in")
		}
	case *pb.Event_PasswordChanged:
		if l.banned(b.PasswordChanged.GetAccountId()) {
			return errors.New("somebody who is banned changed the password")
		}
	case *pb.Event_IdentityReplaced:
		if l.banned(b.IdentityReplaced.GetAccountId()) {
			return errors.New("somebody who is banned has another identity")
		}
	}
	return l.observeDelivery(ev)
}

func (l *lawOfTheLog) observeDelivery(ev *pb.Event) error {
	switch b := ev.GetBody().(type) {
	case *pb.Event_MessageEnqueued:
		e := b.MessageEnqueued
		if !e.GetControl() && (l.banned(e.GetSenderId()) || l.banned(e.GetAccountId())) {
			return errors.New("a message from or to somebody who is banned")
		}
	case *pb.Event_ChannelPosted:
		for _, target := range b.ChannelPosted.GetTargets() {
			if l.ofBanned(target.GetDeviceKey()) {
				return errors.New("a post to somebody who is banned")
			}
		}
		if l.banned(b.ChannelPosted.GetSenderId()) {
			return errors.New("a post by somebody who is banned")
		}
	case *pb.Event_MessagesDrained:
		return l.refuseReader(b.MessagesDrained.GetDeviceKey())
	case *pb.Event_MessagesConfirmed:
		return l.refuseReader(b.MessagesConfirmed.GetDeviceKey())
	case *pb.Event_MessagesAcked:
		return l.refuseReader(b.MessagesAcked.GetDeviceKey())
	case *pb.Event_KeyPackagesTaken:
		for _, p := range b.KeyPackagesTaken.GetPackages() {
			id := projections.ID(p.GetPackageId())
			if l.ofBanned(p.GetDeviceKey()) {
				return errors.New("a KeyPackage of somebody who is banned was given")
			}
			if p.GetNumber() > 0 && l.taken[id] {
				return fmt.Errorf("KeyPackage %x was given twice", id)
			}
			l.taken[id] = true
		}
	}
	return nil
}

func (l *lawOfTheLog) refuseReader(device []byte) error {
	if l.ofBanned(device) {
		return errors.New("somebody who is banned read a queue")
	}
	return nil
}
