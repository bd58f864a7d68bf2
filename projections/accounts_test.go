package projections

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	pb "quicprochat/proto/qpcv1"
)

func TestRegistrationCreatesAccountDeviceAndKeys(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	want := Account{
		ID: accountID("alice"), Username: "alice", IdentityKey: identityKey("alice"),
		RegistrationHash: Hash(bytesOf("registration", "alice")), RegisteredMS: testStart,
		Devices: []Key{deviceKey("alice")},
	}
	check := func(r Reader) {
		t.Helper()
		byName, found, err := AccountByName(r, "alice")
		if err != nil || !found || !cmp.Equal(byName, want) {
			t.Errorf("by name: %+v, %v, %v", byName, found, err)
		}
		byID, found, err := AccountByID(r, accountID("alice"))
		if err != nil || !found || !cmp.Equal(byID, want) {
			t.Errorf("by id: %+v, %v, %v", byID, found, err)
		}
		byKey, found, err := AccountByKey(r, identityKey("alice"))
		if err != nil || !found || !cmp.Equal(byKey, want) {
			t.Errorf("by key: %+v, %v, %v", byKey, found, err)
		}
		if _, found, err := AccountByKey(r, deviceKey("alice")); found || err != nil {
			t.Errorf("a device key found an account: %v, %v", found, err)
		}
		owner, found, err := KeyOwner(r, deviceKey("alice"))
		if err != nil || !found || owner != (Owner{AccountID: accountID("alice"), IsDevice: true}) {
			t.Errorf("owner of the device key: %+v, %v, %v", owner, found, err)
		}
		device, found, err := DeviceByKey(r, deviceKey("alice"))
		if err != nil || !found || device != (Device{deviceKey("alice"), accountID("alice"), testStart}) {
			t.Errorf("device: %+v, %v, %v", device, found, err)
		}
		if active, err := DeviceActive(r, deviceKey("alice")); !active || err != nil {
			t.Errorf("device active: %v, %v", active, err)
		}
		devices, found, err := DevicesOf(r, nil, accountID("alice"))
		if err != nil || !found || !cmp.Equal(devices, want.Devices) {
			t.Errorf("devices: %v, %v, %v", devices, found, err)
		}
		record, found, err := OpaqueRecord(r, accountID("alice"))
		if err != nil || !found || !proto.Equal(record, opaqueRecord("alice", 1)) {
			t.Errorf("OPAQUE record: %v, %v, %v", record, found, err)
		}
	}
	check(w.reader())
	w.commit()
	s := w.views.Snapshot()
	defer s.Close()
	// What comes later does not reach the snapshot.
	w.do(sessionStarted("alice", 1, w.now+dayMS))
	w.do(passwordChanged("alice", 2, tokenOf("alice", 1)))
	w.commit()
	check(s)
}

func TestNothingOfNobody(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	r := w.reader()
	nobody, id := keyOfName("nobody"), idOf("nobody")
	found := map[string]bool{}
	var errs [10]error
	_, found["name"], errs[0] = AccountByName(r, "nobody")
	_, found["id"], errs[1] = AccountByID(r, id)
	_, found["key"], errs[2] = AccountByKey(r, nobody)
	_, found["owner"], errs[3] = KeyOwner(r, nobody)
	_, found["device"], errs[4] = DeviceByKey(r, nobody)
	found["active"], errs[5] = DeviceActive(r, nobody)
	_, found["devices"], errs[6] = DevicesOf(r, nil, id)
	_, found["record"], errs[7] = OpaqueRecord(r, id)
	_, found["long name"], errs[8] = AccountByName(r, strings.Repeat("n", 1000))
	_, found["snapshot"], errs[9] = LastSnapshot(r)
	for what, yes := range found {
		if yes {
			t.Errorf("%s: found", what)
		}
	}
	for i, err := range errs {
		if err != nil {
			t.Errorf("error %d: %v", i, err)
		}
	}
}

func TestADeviceKeyMayBeTheIdentityKey(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	ev := registered("alice")
	ev.DeviceKey = ev.IdentityKey
	w.do(ev)
	owner, _, err := KeyOwner(w.reader(), identityKey("alice"))
	if want := (Owner{AccountID: accountID("alice"), IsIdentity: true, IsDevice: true}); err != nil || owner != want {
		t.Errorf("owner: %+v, %v, want %+v", owner, err, want)
	}
	if q, found, err := Queue(w.reader(), identityKey("alice")); !found || err != nil || q.Owner != accountID("alice") {
		t.Errorf("queue: %+v, %v, %v", q, found, err)
	}
}

func TestStrictRegistration(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice")
	alice := registered("alice")
	for _, c := range []struct {
		reason string
		spoil  func(*pb.AccountRegistered)
	}{
		{"the account exists", func(a *pb.AccountRegistered) { a.AccountId = alice.AccountId }},
		{"the name is taken", func(a *pb.AccountRegistered) { a.Username = "alice" }},
		{"a key is in use", func(a *pb.AccountRegistered) { a.IdentityKey = alice.IdentityKey }},
		{"a key is in use", func(a *pb.AccountRegistered) { a.DeviceKey = alice.DeviceKey }},
		{"a key is in use", func(a *pb.AccountRegistered) { a.DeviceKey = alice.IdentityKey }},
		{"a key is in use", func(a *pb.AccountRegistered) { a.IdentityKey = alice.DeviceKey }},
		{"username of 0 bytes", func(a *pb.AccountRegistered) { a.Username = "" }},
		{"username of 129 bytes", func(a *pb.AccountRegistered) { a.Username = strings.Repeat("n", 129) }},
		{"account id of 3 bytes", func(a *pb.AccountRegistered) { a.AccountId = []byte("abc") }},
		{"identity key of 33 bytes", func(a *pb.AccountRegistered) { a.IdentityKey = append(a.IdentityKey, 0) }},
		{"device key of 0 bytes", func(a *pb.AccountRegistered) { a.DeviceKey = nil }},
		{"registration hash of 0 bytes", func(a *pb.AccountRegistered) { a.RegistrationHash = nil }},
		{"OPAQUE record of 0 bytes", func(a *pb.AccountRegistered) { a.Opaque = nil }},
		{"OPAQUE record of 191 bytes", func(a *pb.AccountRegistered) { a.Opaque.Upload = a.Opaque.Upload[1:] }},
		{"OPAQUE credential identifier of 31", func(a *pb.AccountRegistered) { a.Opaque.CredentialId = a.Opaque.CredentialId[1:] }},
	} {
		ev := registered("bob")
		c.spoil(ev)
		w.refuse(ev, c.reason)
	}
	w.do(registered("bob"))
}

func passwordChanged(name string, version uint32, kept Hash) *pb.PasswordChanged {
	id := accountID(name)
	return &pb.PasswordChanged{AccountId: id[:], Opaque: opaqueRecord(name, version), KeptSession: kept[:]}
}

func TestPasswordChangeReplacesTheRecordAndEndsOtherSessions(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	for n := range 3 {
		w.do(sessionStarted("alice", n, w.now+dayMS))
	}
	w.do(sessionStarted("bob", 0, w.now+dayMS))
	w.refuse(passwordChanged("alice", 1, tokenOf("alice", 1)), "record version 1 after 1")
	w.refuse(passwordChanged("alice", 2, tokenOf("bob", 0)), "none of the account's")
	w.refuse(passwordChanged("carol", 2, tokenOf("alice", 1)), "does not exist")
	w.refuse(&pb.PasswordChanged{AccountId: bytesOf(1)[:16], Opaque: opaqueRecord("alice", 2)}, "kept session of 0 bytes")
	w.do(passwordChanged("alice", 2, tokenOf("alice", 1)))

	record, _, err := OpaqueRecord(w.reader(), accountID("alice"))
	if diff := cmp.Diff(opaqueRecord("alice", 2), record, protocmp.Transform()); diff != "" || err != nil {
		t.Errorf("record: %v (-want +got):\n%s", err, diff)
	}
	left, err := SessionsOf(w.reader(), accountID("alice"))
	if err != nil || len(left) != 1 || left[0].TokenHash != tokenOf("alice", 1) {
		t.Errorf("sessions of alice: %+v, %v", left, err)
	}
	left, err = SessionsOf(w.reader(), accountID("bob"))
	if err != nil || len(left) != 1 {
		t.Errorf("sessions of bob: %+v, %v", left, err)
	}
}
