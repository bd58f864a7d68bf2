package server_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/cloudflare/circl/kem/xwing"
	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/server"
)

// TestDiskFull calls every method of the table on a disk that is nearly full:
// what the table serves then is served, all other mutations are refused, and
// reads go on.
func TestDiskFull(t *testing.T) {
	const total = 100 << 20
	w, mona, m := bootWithModerator(t, func(c *server.Config) {
		c.MinFree = 8
		c.FS.(*vfs.MemFS).TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: total / 2, TotalBytes: total})
	})
	disk := func(free uint64, full float64) {
		t.Helper()
		w.fs.(*vfs.MemFS).TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: total})
		for deadline := time.Now().Add(30 * time.Second); w.metric("qpc_disk_full", nil) != full; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("qpc_disk_full does not become %v", full)
			}
		}
		if got := w.metric("qpc_disk_free_bytes", nil); got != float64(free) {
			t.Errorf("qpc_disk_free_bytes is %v, not %d", got, free)
		}
	}
	alice, c := newPerson(t, "alice"), w.dial()
	registered := alice.registration(c)
	must[*pb.OpaqueRegisterFinishResponse](c, registered)
	alice.token = alice.login(c, alice.device).GetSessionToken()
	must[*pb.EnqueueResponse](c, alice.enqueue(alice, []byte("before")))
	lost := newPerson(t, "lost") // whose phone is stolen when the disk is full
	must[*pb.OpaqueRegisterFinishResponse](c, lost.registration(c))
	stranger := newPerson(t, "stranger")
	registration := stranger.registration(c)
	var channels [4][]byte
	for i := range channels {
		channels[i] = must[*pb.CreateChannelResponse](c, &pb.CreateChannelRequest{SessionToken: alice.token, RequestId: newRequestID()}).GetChannelId()
	}
	dave, d := w.join("dave") // who gets another device
	other := keyOf("dave's second device")
	listed := must[*pb.ListDevicesResponse](d, &pb.ListDevicesRequest{SessionToken: dave.token})
	consent := statement.Device{ServerName: serverName, IdentityKey: public(dave.identity), DeviceKey: public(other)}
	gone, g := w.join("gone") // who revokes the own device
	w.join("pest")
	w.join("banned")
	ban := func(name string) *pb.BanUserRequest {
		return &pb.BanUserRequest{SessionToken: mona.token, RequestId: newRequestID(), Scope: pb.BanScope_WHOLE_SERVER, Username: name}
	}
	report := func() *pb.ReportMessageRequest {
		return &pb.ReportMessageRequest{SessionToken: alice.token, RequestId: newRequestID(), Username: "pest", Category: pb.ReportCategory_SPAM}
	}
	must[*pb.BanUserResponse](m, ban("banned"))
	reported := must[*pb.ReportMessageResponse](c, report()).GetReportId()
	conns := map[string]*conn{"RegisterDevice": d, "RevokeDevice": g, "BanUser": m, "UnbanUser": m, "ResolveReport": m}
	on := func(method string) *conn {
		if special := conns[method]; special != nil {
			return special
		}
		return c
	}
	disk(total/100, 1)

	health := must[*pb.HealthResponse](c, &pb.HealthRequest{})
	if !health.GetReady() || health.GetStatus() != "full" {
		t.Errorf("health: %v", health)
	}
	after := uint64(1)
	served := map[string]proto.Message{
		"Fetch":        &pb.FetchRequest{SessionToken: alice.token},
		"FetchWait":    &pb.FetchWaitRequest{SessionToken: alice.token, AfterSeq: &after},
		"Ack":          &pb.AckRequest{SessionToken: alice.token, RequestId: newRequestID(), UpTo: 1},
		"RevokeKey":    lost.revocation(public(lost.device)),
		"RevokeDevice": &pb.RevokeDeviceRequest{SessionToken: gone.token, DeviceKey: public(gone.device), Reason: 1},
	}
	refused := map[string]proto.Message{
		"Enqueue": alice.enqueue(alice, []byte("x")),
		"BatchEnqueue": &pb.BatchEnqueueRequest{SessionToken: alice.token, RequestId: newRequestID(), Items: []*pb.BatchEnqueueRequest_Item{{
			Recipient: &pb.BatchEnqueueRequest_Item_RecipientKey{RecipientKey: public(alice.identity)}, Payload: []byte("x"),
		}}},
		"UploadHybridKey":      &pb.UploadHybridKeyRequest{SessionToken: alice.token, RequestId: newRequestID(), Keyset: hybridKeySet(alice, registered.Keyset)},
		"UploadKeyPackage":     alice.keyPackages("full"),
		"FetchKeyPackage":      alice.fetchPackage(lost),
		"OpaqueRegisterFinish": registration,
		"CreateChannel":        &pb.CreateChannelRequest{SessionToken: alice.token, RequestId: newRequestID()},
		"RotateKeys":           &pb.RotateKeysRequest{SessionToken: alice.token, RequestId: newRequestID(), ChannelId: channels[0]},
		"AddMember": &pb.AddMemberRequest{
			SessionToken: alice.token, RequestId: newRequestID(), ChannelId: channels[1], Members: [][]byte{public(lost.identity)},
		},
		"RemoveMember": &pb.RemoveMemberRequest{
			SessionToken: alice.token, RequestId: newRequestID(), ChannelId: channels[2], IdentityKey: public(alice.identity),
		},
		"UpdateGroupMetadata": &pb.UpdateGroupMetadataRequest{
			SessionToken: alice.token, RequestId: newRequestID(), ChannelId: channels[3], Fields: []pb.ChannelField{pb.ChannelField_CHANNEL_NAME}, ExpectedVersion: 1,
		},
	}
	refused["RegisterDevice"] = &pb.RegisterDeviceRequest{
		SessionToken: dave.token,
		Keyset:       dave.keySetAfter(listed.GetKeyset(), listed.GetServerTimeMs(), public(dave.device), public(other)),
		Device:       &pb.DeviceConsent{DeviceKey: public(other), Signature: consent.Sign(other)},
	}
	refused["ReportMessage"], refused["BanUser"] = report(), ban("pest")
	refused["UnbanUser"] = &pb.UnbanUserRequest{SessionToken: mona.token, RequestId: newRequestID(), Scope: pb.BanScope_WHOLE_SERVER, Username: "banned"}
	refused["ResolveReport"] = &pb.ResolveReportRequest{
		SessionToken: mona.token, RequestId: newRequestID(), ReportId: reported, State: pb.ReportState_DISMISSED,
	}
	for _, m := range rpc.Methods() {
		switch {
		case !m.Rule.Mutates, m.Name == "OpaqueLoginFinish":
		case served[m.Name] != nil:
			if r := on(m.Name).send(served[m.Name]); r.status != pb.Status_Ok {
				t.Errorf("%s: %v", m, r.detail)
			}
		case refused[m.Name] != nil:
			detail := on(m.Name).refused(refused[m.Name], pb.Status_Unavailable, pb.Reason_DISK_FULL)
			if detail.GetRetryAfterMs() == 0 || detail.GetMessage() == "" {
				t.Errorf("%s: %v", m, detail)
			}
		default:
			t.Errorf("%s mutates and is not in this test", m)
		}
	}
	alice.login(c, alice.device)
	must[*pb.OpaqueRegisterFinishResponse](c, alice.passwordChange(c, "changed on a full disk"))
	must[*pb.PeekResponse](c, &pb.PeekRequest{SessionToken: alice.token})

	disk(total/2, 0)
	if health := must[*pb.HealthResponse](c, &pb.HealthRequest{}); health.GetStatus() != "ok" {
		t.Errorf("health: %v", health)
	}
	for name, req := range refused {
		if r := on(name).send(req); r.status != pb.Status_Ok {
			t.Errorf("%s, again: %v", name, r.detail)
		}
	}
	if info, err := w.fs.Stat("/data/" + commands.BallastFile); err != nil || info.Size() != total/100 {
		t.Errorf("ballast: %v, %v", info, err)
	}
	if got := w.metric("qpc_disk_ballast_bytes", nil); got != total/100 {
		t.Errorf("qpc_disk_ballast_bytes is %v", got)
	}
}

// hybridKeySet is the KeySet that follows a registration's, with a hybrid key.
func hybridKeySet(p *person, registered *pb.KeySet) *pb.KeySet {
	seed := sha256.Sum256([]byte("hybrid"))
	_, hybrid := xwing.DeriveKeyPairPacked(seed[:])
	hash := statement.KeySetHash(serverName, registered)
	next := &pb.KeySet{
		IdentityKey: public(p.identity), Version: 1, PreviousHash: hash[:], DeviceKeys: [][]byte{public(p.device)},
		KemId: statement.KEMXWing, HybridKey: hybrid, TimeMs: registered.TimeMs,
	}
	statement.SignKeySet(serverName, next, p.identity)
	return next
}
