package server_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/admin"
	"quicprochat/rpc/server"
)

// bootWithModerator has mona be a moderator.
func bootWithModerator(t *testing.T, change ...func(*server.Config)) (w *world, mona *person, c *conn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "qpc") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "admin.sock")
	w = boot(t, func(c *server.Config) {
		c.AdminSocket = socket
		for _, f := range change {
			f(c)
		}
	})
	mona, c = w.join("mona")
	grant := &pb.GrantRoleRequest{Username: "mona", Role: pb.Role_MODERATOR}
	if err := admin.Call(testContext(t), socket, grant, new(pb.GrantRoleResponse)); err != nil {
		t.Fatal(err)
	}
	return w, mona, c
}

// TestBannedIsDisconnected: every connection of the account is closed with the code
// of ended sessions, a login is refused after the right password and fails as always
// after a wrong one, and all is well again when the ban is lifted.
func TestBannedIsDisconnected(t *testing.T) {
	w, mona, m := bootWithModerator(t)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	must[*pb.PeekResponse](a, &pb.PeekRequest{SessionToken: alice.token}) // binds
	must[*pb.PeekResponse](b, &pb.PeekRequest{SessionToken: bob.token})
	ban := &pb.BanUserRequest{SessionToken: mona.token, RequestId: newRequestID(), Scope: pb.BanScope_WHOLE_SERVER, Username: "alice"}
	must[*pb.BanUserResponse](m, ban)
	wantClosed(t, a, rpc.CodeSessionEnded)
	c := w.dial()
	c.refused(&pb.PeekRequest{SessionToken: alice.token}, pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID)
	c.refused(alice.finish(c, alice.device), pb.Status_Forbidden, pb.Reason_BANNED)
	b.refused(bob.enqueue(alice, []byte("x")), pb.Status_NotFound, pb.Reason_NO_DEVICE)
	b.refused(&pb.ResolveUserRequest{SessionToken: bob.token, Username: "alice"}, pb.Status_NotFound, pb.Reason_NO_SUCH_USER)
	b.refused(&pb.ResolveUserRequest{SessionToken: bob.token, Username: "alice", Proof: new(pb.ProofRequest)}, pb.Status_NotFound, pb.Reason_NO_SUCH_USER)
	must[*pb.UnbanUserResponse](m, &pb.UnbanUserRequest{
		SessionToken: mona.token, RequestId: newRequestID(), Scope: pb.BanScope_WHOLE_SERVER, Username: "alice",
	})
	alice.token = alice.login(c, alice.device).GetSessionToken()
	must[*pb.EnqueueResponse](b, bob.enqueue(alice, []byte("welcome back")))
	got := must[*pb.FetchResponse](c, &pb.FetchRequest{SessionToken: alice.token})
	if len(got.GetEnvelopes()) != 1 {
		t.Errorf("fetched %v", got)
	}
}

// TestDeliveredMessagesCarryTags: in all three ways of reading, the same tag, and a
// report with it is proved to the moderator.
func TestDeliveredMessagesCarryTags(t *testing.T) {
	w, mona, m := bootWithModerator(t)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	must[*pb.EnqueueResponse](a, alice.enqueue(bob, []byte("bad words")))
	after := uint64(0)
	peeked := must[*pb.PeekResponse](b, &pb.PeekRequest{SessionToken: bob.token}).GetEnvelopes()
	read := must[*pb.FetchResponse](b, &pb.FetchRequest{SessionToken: bob.token, AfterSeq: &after}).GetEnvelopes()
	drained := must[*pb.FetchWaitResponse](b, &pb.FetchWaitRequest{SessionToken: bob.token}).GetEnvelopes()
	if len(peeked) != 1 || len(read) != 1 || len(drained) != 1 {
		t.Fatalf("read %v, %v, %v", peeked, read, drained)
	}
	tag := peeked[0].GetFrank()
	if len(tag.GetTag()) != 32 || string(read[0].GetFrank().GetTag()) != string(tag.GetTag()) || string(drained[0].GetFrank().GetTag()) != string(tag.GetTag()) {
		t.Errorf("tags %v, %v, %v", tag, read[0].GetFrank(), drained[0].GetFrank())
	}
	digest := sha256.Sum256([]byte("bad words"))
	must[*pb.ReportMessageResponse](b, &pb.ReportMessageRequest{
		SessionToken: bob.token, RequestId: newRequestID(), Username: "alice", Category: pb.ReportCategory_HARASSMENT, Evidence: []byte("bad words"),
		Message: &pb.ReportedMessage{
			MessageId: peeked[0].GetMessageId(), PayloadSha256: digest[:], TimeMs: peeked[0].GetEnqueuedMs(), Frank: tag,
		},
	})
	reports := must[*pb.ListReportsResponse](m, &pb.ListReportsRequest{SessionToken: mona.token}).GetReports()
	if len(reports) != 1 || !reports[0].GetProved() || string(reports[0].GetEvidence()) != "bad words" {
		t.Errorf("reports %v", reports)
	}
}
