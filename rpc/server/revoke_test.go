package server_test

import (
	"testing"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// revocation of a person's key, signed by the identity.
func (p *person) revocation(key []byte) *pb.RevokeKeyRequest {
	s := statement.Revoke{ServerName: serverName, Key: key, Reason: statement.ReasonKeyCompromise}
	return &pb.RevokeKeyRequest{Key: key, Reason: 1, Signature: s.Sign(p.identity)}
}

// TestRevokedDeviceIsDisconnected: whoever has the device is out at once, with
// code 3, and its token is worth nothing; the owner's next login may only enroll.
// Without a session it takes the signature alone.
func TestRevokedDeviceIsDisconnected(t *testing.T) {
	w := boot(t, nil)
	alice, stolen := w.join("alice")
	bob, other := w.join("bob")
	must[*pb.PeekResponse](stolen, &pb.PeekRequest{SessionToken: alice.token}) // binds
	must[*pb.PeekResponse](other, &pb.PeekRequest{SessionToken: bob.token})
	stranger := w.dial()
	stranger.refused(bob.revocation(public(alice.device)), pb.Status_BadRequest, pb.Reason_SIGNATURE_INVALID)
	req := alice.revocation(public(alice.device))
	resp := must[*pb.RevokeKeyResponse](stranger, req)
	if r := resp.GetRevocation(); r.GetAuthority() != pb.Authority_IDENTITY || r.GetReason() != 1 {
		t.Errorf("revocation %v", r)
	}
	wantClosed(t, stolen, rpc.CodeSessionEnded)
	w.dial().refused(&pb.PeekRequest{SessionToken: alice.token}, pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID)
	must[*pb.PeekResponse](other, &pb.PeekRequest{SessionToken: bob.token})
	if login := alice.login(w.dial(), alice.device); login.GetScope() != pb.SessionScope_ENROLL_ONLY {
		t.Errorf("a login with the revoked key has scope %v", login.GetScope())
	}
	unchanged := w.unchanged()
	again := must[*pb.RevokeKeyResponse](stranger, req)
	if again.GetRevocation().GetTimeMs() != resp.GetRevocation().GetTimeMs() {
		t.Errorf("the same again: %v", again)
	}
	unchanged()
}

// TestOwnRevocationIsAnswered: who revokes the device that asks gets the answer,
// and then the end of the connection.
func TestOwnRevocationIsAnswered(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	must[*pb.PeekResponse](c, &pb.PeekRequest{SessionToken: alice.token}) // binds
	resp := must[*pb.RevokeKeyResponse](c, &pb.RevokeKeyRequest{
		SessionToken: alice.token, Key: public(alice.device), Reason: 5, Proof: new(pb.ProofRequest),
	})
	if resp.GetRevocation().GetAuthority() != pb.Authority_SESSION_LOGIN || len(resp.GetProof().GetHistories()) != 1 {
		t.Errorf("answer %v", resp)
	}
	wantClosed(t, c, rpc.CodeSessionEnded)
	check := must[*pb.CheckRevocationResponse](w.dial(), &pb.CheckRevocationRequest{Key: public(alice.device), Proof: new(pb.ProofRequest)})
	if check.GetRevocation().GetReason() != 5 || check.GetProof() == nil {
		t.Errorf("check %v", check)
	}
}

// TestRevocationBudget: ten an hour from one address, with a session or without.
func TestRevocationBudget(t *testing.T) {
	w := boot(t, limited)
	alice, c := w.join("alice")
	req := &pb.RevokeKeyRequest{Key: public(keyOf("nobody's")), Signature: make([]byte, 64)}
	for i := range 10 {
		if i%2 == 0 {
			req.SessionToken = alice.token
		} else {
			req.SessionToken = nil
		}
		c.refused(req, pb.Status_NotFound, pb.Reason_NO_SUCH_KEY)
	}
	c.refused(req, pb.Status_RateLimited, pb.Reason_RATE)
	req.SessionToken = alice.token
	c.refused(req, pb.Status_RateLimited, pb.Reason_RATE)
}

// TestReceiptBudget: twenty looks a day at own leaves; the public form goes on.
func TestReceiptBudget(t *testing.T) {
	w := boot(t, limited)
	alice, c := w.join("alice")
	own := &pb.AuditKeyTransparencyRequest{SessionToken: alice.token, Query: &pb.AuditKeyTransparencyRequest_Index{Index: 1}}
	for range 20 {
		must[*pb.AuditKeyTransparencyResponse](c, own)
	}
	c.refused(own, pb.Status_RateLimited, pb.Reason_RATE)
	c.refused(&pb.AuditKeyTransparencyRequest{SessionToken: alice.token, Query: &pb.AuditKeyTransparencyRequest_Message{
		Message: &pb.SentMessage{MessageId: make([]byte, 16), RequestId: newRequestID()},
	}}, pb.Status_RateLimited, pb.Reason_RATE)
	open := must[*pb.AuditKeyTransparencyResponse](c, &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Index{Index: 1}})
	if len(open.GetLeaf().GetLeaf()) == 0 || len(open.GetLeaf().GetEvent()) > 0 {
		t.Errorf("the public form: %v", open)
	}
}
