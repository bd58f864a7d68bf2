package projections

import (
	"bytes"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// Apply folds one event into the batch: state and event in, state out. The index
// must be the batch's cursor, the time not below the last event's, the leaf of
// the event's class; an event whose subject is missing or that contradicts the
// views is refused. Every error is an *ApplyError; after one the batch holds
// part of the event and can only be closed.
//
// That the leaf commits to the event is Entry.Verify's business.
func Apply(b *Batch, e *Entry) error {
	if b.store == nil {
		return &ApplyError{e.Index, errBatchClosed}
	}
	if b.failed != nil {
		return &ApplyError{e.Index, b.failed}
	}
	if err := apply(b, e); err != nil {
		b.failed = err
		return &ApplyError{e.Index, err}
	}
	return nil
}

func apply(b *Batch, e *Entry) error {
	if err := checkOrder(b, e); err != nil {
		return err
	}
	if err := checkClass(e); err != nil {
		return err
	}
	if err := applyBody(b, e); err != nil {
		return err
	}
	if receipt := e.Event.GetReceipt(); receipt != nil {
		if err := applyReceipt(b, receipt, e.Index, e.Event.GetTimeMs()); err != nil {
			return err
		}
	}
	return b.advance(e.Event.GetTimeMs())
}

// applyBody is the one place that says what can change the views.
func applyBody(b *Batch, e *Entry) error {
	now := e.Event.GetTimeMs()
	switch body := e.Event.GetBody().(type) {
	case *pb.Event_ServerConfigured:
		return applyServerConfigured(b, e, body.ServerConfigured)
	case *pb.Event_HeadSealed:
		return applyHeadSealed(b, e, body.HeadSealed)
	case *pb.Event_KeyTransparencyEntry:
		return applyKeyTransparencyEntry(b, e, body.KeyTransparencyEntry)
	case *pb.Event_AccountRegistered:
		return applyAccountRegistered(b, body.AccountRegistered, now)
	case *pb.Event_PasswordChanged:
		return applyPasswordChanged(b, body.PasswordChanged)
	case *pb.Event_SessionStarted:
		return applySessionStarted(b, body.SessionStarted, now)
	case *pb.Event_SessionTouched:
		return applySessionTouched(b, body.SessionTouched)
	case *pb.Event_SessionsEnded:
		return applySessionsEnded(b, body.SessionsEnded)
	case *pb.Event_KeyRevoked:
		return applyKeyRevoked(b, body.KeyRevoked)
	case *pb.Event_IdentityReplaced:
		return applyIdentityReplaced(b, body.IdentityReplaced)
	case *pb.Event_MessageEnqueued:
		return applyMessageEnqueued(b, body.MessageEnqueued, now)
	case *pb.Event_MessagesDrained:
		return applyMessagesDrained(b, body.MessagesDrained, now)
	case *pb.Event_MessagesConfirmed:
		return applyMessagesConfirmed(b, body.MessagesConfirmed)
	case *pb.Event_MessagesAcked:
		return applyMessagesAcked(b, body.MessagesAcked)
	case *pb.Event_MessagesExpired:
		return applyMessagesExpired(b, body.MessagesExpired, now)
	case *pb.Event_DrainedReleased:
		return applyDrainedReleased(b, body.DrainedReleased)
	case *pb.Event_ReceiptsExpired:
		return applyReceiptsExpired(b, body.ReceiptsExpired)
	case *pb.Event_SnapshotTaken:
		return applySnapshotTaken(b, body.SnapshotTaken)
	case *pb.Event_RequestAnswered:
		return applyRequestAnswered(e)
	case *pb.Event_RoleChanged:
		return applyRoleChanged(b, body.RoleChanged)
	case *pb.Event_GenerationBegun:
		return applyGenerationBegun(b, body.GenerationBegun)
	case *pb.Event_ResetIssued:
		return applyResetIssued(b, body.ResetIssued, now)
	case *pb.Event_AccountReset:
		return applyAccountReset(b, body.AccountReset, now)
	case *pb.Event_KeyPackagesUploaded:
		return applyKeyPackagesUploaded(b, body.KeyPackagesUploaded, now)
	case *pb.Event_KeyPackagesTaken:
		return applyKeyPackagesTaken(b, body.KeyPackagesTaken, now)
	case *pb.Event_KeyPackagesExpired:
		return applyKeyPackagesExpired(b, body.KeyPackagesExpired, now)
	case *pb.Event_KeyPackagesReleased:
		return applyKeyPackagesReleased(b, body.KeyPackagesReleased, now)
	case *pb.Event_DeviceRegistered:
		return applyDeviceRegistered(b, body.DeviceRegistered, now)
	case *pb.Event_ChannelCreated:
		return applyChannelCreated(b, body.ChannelCreated, now)
	case *pb.Event_ChannelMembersChanged:
		return applyChannelMembersChanged(b, body.ChannelMembersChanged, now)
	case *pb.Event_ChannelMemberUpdated:
		return applyChannelMemberUpdated(b, body.ChannelMemberUpdated, now)
	case *pb.Event_ChannelUpdated:
		return applyChannelUpdated(b, body.ChannelUpdated)
	case *pb.Event_ChannelEpochSet:
		return applyChannelEpochSet(b, body.ChannelEpochSet)
	case *pb.Event_ChannelPosted:
		return applyChannelPosted(b, body.ChannelPosted, now)
	case *pb.Event_ChannelRotationRequested:
		return applyChannelRotationRequested(b, body.ChannelRotationRequested, now)
	case *pb.Event_UserBanned:
		return applyUserBanned(b, body.UserBanned, now)
	case *pb.Event_UserUnbanned:
		return applyUserUnbanned(b, body.UserUnbanned)
	case *pb.Event_BansExpired:
		return applyBansExpired(b, body.BansExpired, now)
	case *pb.Event_MessageReported:
		return applyMessageReported(b, body.MessageReported, now)
	case *pb.Event_ReportResolved:
		return applyReportResolved(b, body.ReportResolved, now)
	case *pb.Event_ChannelUserBanned:
		return applyChannelUserBanned(b, body.ChannelUserBanned, now)
	case *pb.Event_ChannelUserUnbanned:
		return applyChannelUserUnbanned(b, body.ChannelUserUnbanned)
	case *pb.Event_ChannelBansExpired:
		return applyChannelBansExpired(b, body.ChannelBansExpired, now)
	case *pb.Event_ReportsExpired:
		return applyReportsExpired(b, body.ReportsExpired, now)
	default:
		return invalid("no body of a known type")
	}
}

// checkOrder holds the total order: no index is left out or repeated, time does
// not go back, and the log begins with its configuration.
func checkOrder(b *Batch, e *Entry) error {
	if e.Index != b.cursor {
		return invalid("the views expect index %d", b.cursor)
	}
	last, err := lastEventTime(b)
	if err != nil {
		return err
	}
	if now := e.Event.GetTimeMs(); now < last {
		return invalid("time %d is before the last event's %d", now, last)
	}
	if e.Index == 0 && e.Event.GetServerConfigured() == nil {
		return invalid("a log begins with ServerConfigured")
	}
	return nil
}

// checkClass holds which leaf an event has. Public classes are compared whole.
func checkClass(e *Entry) error {
	if len(e.Leaf) == 0 {
		return invalid("no leaf")
	}
	class, size, want := kt.Class(e.Leaf[0]), len(e.Leaf), kt.ClassOpaque
	switch {
	case e.Event.GetServerConfigured() != nil:
		if class != kt.ClassConfig || !bytes.Equal(e.Leaf[1:], e.Event.GetServerConfigured().GetConfig()) {
			return invalid("the leaf is not the configuration's")
		}
		return nil
	case e.Event.GetHeadSealed() != nil:
		if class != kt.ClassHead || !bytes.Equal(e.Leaf[1:], e.Event.GetHeadSealed().GetHead()) {
			return invalid("the leaf is not the head's")
		}
		return nil
	case e.Event.GetKeyTransparencyEntry() != nil:
		want = kt.ClassKT
	}
	if class != want || (want == kt.ClassOpaque && size != kt.OpaqueLeafSize) || (want == kt.ClassKT && size != kt.KTLeafSize) {
		return invalid("leaf of class %v and %d bytes, want class %v", class, size, want)
	}
	return nil
}

// applyRequestAnswered changes nothing: its receipt is the event.
func applyRequestAnswered(e *Entry) error {
	if e.Event.GetReceipt() == nil {
		return invalid("RequestAnswered without a receipt")
	}
	return nil
}
