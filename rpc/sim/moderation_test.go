package sim_test

import (
	"bytes"
	"testing"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/sim"
)

// TestModelRefusesTheBanned: in the order of the log nothing by a banned account may
// follow the ban, and the model finds each kind of event that would.
func TestModelRefusesTheBanned(t *testing.T) {
	key := func(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }
	id := func(n byte) []byte { return bytes.Repeat([]byte{n}, 16) }
	hash := key(0xee)
	registered := func(n byte, name string) *pb.Event {
		return &pb.Event{TimeMs: 1, Body: &pb.Event_AccountRegistered{AccountRegistered: &pb.AccountRegistered{
			AccountId: id(n), Username: name, IdentityKey: key(n), DeviceKey: key(n + 100), Opaque: &pb.OpaqueRecord{},
		}}}
	}
	message := func(at uint64, from, to byte, seq uint64) *pb.Event {
		return &pb.Event{TimeMs: at, Body: &pb.Event_MessageEnqueued{MessageEnqueued: &pb.MessageEnqueued{
			MessageId: id(byte(10 + at)), AccountId: id(to), SenderId: id(from), PayloadSize: 1, PayloadSha256: hash, ExpiresMs: 1000,
			Targets: []*pb.MessageEnqueued_Target{{DeviceKey: key(to + 100), Seq: seq}},
		}}}
	}
	machine := &pb.Actor{Way: pb.Actor_SOCKET}
	ban := func(at, until uint64, by *pb.Actor) *pb.Event {
		return &pb.Event{TimeMs: at, Body: &pb.Event_UserBanned{UserBanned: &pb.UserBanned{AccountId: id(2), UntilMs: until, Actor: by}}}
	}
	banned := func(t *testing.T) *sim.Model {
		t.Helper()
		m := sim.NewModel()
		for i, ev := range []*pb.Event{
			{TimeMs: 1, Body: &pb.Event_ServerConfigured{ServerConfigured: new(pb.ServerConfigured)}},
			registered(1, "alice"), registered(2, "bob"), message(2, 2, 1, 1), message(3, 1, 2, 1),
			ban(4, 100, machine),
		} {
			if err := m.Apply(ev); err != nil {
				t.Fatalf("event %d: %v", i, err)
			}
		}
		return m
	}
	for name, ev := range map[string]*pb.Event{
		"a message from": message(5, 2, 1, 2),
		"a message to":   message(5, 1, 2, 2),
		"a login": {TimeMs: 5, Body: &pb.Event_SessionStarted{SessionStarted: &pb.SessionStarted{
			TokenHash: hash, AccountId: id(2), DeviceKey: key(102), Scope: pb.SessionScope_DEVICE, ExpiresMs: 1000,
		}}},
		"a drain":        {TimeMs: 5, Body: &pb.Event_MessagesDrained{MessagesDrained: &pb.MessagesDrained{DeviceKey: key(102), UpTo: 1}}},
		"a confirmation": {TimeMs: 5, Body: &pb.Event_MessagesConfirmed{MessagesConfirmed: &pb.MessagesConfirmed{DeviceKey: key(102), UpTo: 1}}},
		"a report": {TimeMs: 5, Body: &pb.Event_MessageReported{MessageReported: &pb.MessageReported{
			ReportId: id(9), ReporterId: id(2), AccountId: id(1), ContentSha256: hash,
		}}},
		"a device": {TimeMs: 5, Body: &pb.Event_DeviceRegistered{DeviceRegistered: &pb.DeviceRegistered{AccountId: id(2), DeviceKey: key(77)}}},
		"anything with a receipt": {
			TimeMs: 5, Body: &pb.Event_RequestAnswered{RequestAnswered: new(pb.RequestAnswered)},
			Receipt: &pb.Receipt{Caller: key(102), Method: 302, RequestId: id(8)},
		},
		"a ban by a user":      ban(5, 0, &pb.Actor{Way: pb.Actor_SESSION, AccountId: id(1)}),
		"an early end":         {TimeMs: 5, Body: &pb.Event_BansExpired{BansExpired: &pb.BansExpired{AccountIds: [][]byte{id(2)}}}},
		"the end of no ban":    {TimeMs: 5, Body: &pb.Event_UserUnbanned{UserUnbanned: &pb.UserUnbanned{AccountId: id(1), Actor: machine}}},
		"a ban in the past":    ban(5, 5, machine),
		"the end of no report": {TimeMs: 5, Body: &pb.Event_ReportsExpired{ReportsExpired: &pb.ReportsExpired{ReportIds: [][]byte{id(9)}}}},
		"a verdict for none":   {TimeMs: 5, Body: &pb.Event_ReportResolved{ReportResolved: &pb.ReportResolved{ReportId: id(9), State: pb.ReportState_ACTED, Actor: machine}}},
	} {
		if err := banned(t).Apply(ev); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	// A report ends when it was kept for long, and no earlier.
	const day = 24 * 3600 * 1000
	for resolved, days := range map[bool]uint64{false: 365, true: 90} {
		for _, late := range []uint64{0, 1} {
			m := banned(t)
			events := []*pb.Event{{TimeMs: 100, Body: &pb.Event_MessageReported{MessageReported: &pb.MessageReported{
				ReportId: id(9), ReporterId: id(1), AccountId: id(2), ContentSha256: hash,
			}}}}
			if resolved {
				events = append(events, &pb.Event{TimeMs: 100, Body: &pb.Event_ReportResolved{ReportResolved: &pb.ReportResolved{
					ReportId: id(9), State: pb.ReportState_ACTED, Actor: machine,
				}}})
			}
			for _, ev := range events {
				if err := m.Apply(ev); err != nil {
					t.Fatal(err)
				}
			}
			end := &pb.Event{TimeMs: 100 + days*day + late, Body: &pb.Event_ReportsExpired{ReportsExpired: &pb.ReportsExpired{ReportIds: [][]byte{id(9)}}}}
			if err := m.Apply(end); (err == nil) != (late == 1) {
				t.Errorf("resolved %v, %d ms after %d days: %v", resolved, late, days, err)
			}
		}
	}
	// Over at its time, and after it is lifted, all is as before.
	m := banned(t)
	if err := m.Apply(message(100, 2, 1, 2)); err != nil {
		t.Errorf("after the ban's end: %v", err)
	}
	m = banned(t)
	lifted := &pb.Event{TimeMs: 5, Body: &pb.Event_UserUnbanned{UserUnbanned: &pb.UserUnbanned{AccountId: id(2), Actor: machine}}}
	for i, ev := range []*pb.Event{lifted, message(6, 2, 1, 2), message(7, 1, 2, 2)} {
		if err := m.Apply(ev); err != nil {
			t.Errorf("lifted, event %d: %v", i, err)
		}
	}
}
