package server_test

import (
	"testing"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/pake"
)

// passwordChange runs method 100 with a new password and makes the request of
// 101 that changes it. From then on p logs in with the new one.
func (p *person) passwordChange(c *conn, password string) *pb.OpaqueRegisterFinishRequest {
	p.t.Helper()
	p.password = []byte(password)
	state, request, err := pake.StartRegistration(p.password, pake.InsecureKSF())
	if err != nil {
		p.t.Fatal(err)
	}
	start := must[*pb.OpaqueRegisterStartResponse](c, &pb.OpaqueRegisterStartRequest{Username: p.name, RegistrationRequest: request})
	upload, _, err := state.Finish(start.GetRegistrationResponse())
	if err != nil {
		p.t.Fatal(err)
	}
	req := &pb.OpaqueRegisterFinishRequest{
		SessionToken: p.token, Username: p.name, Upload: upload,
		IdentityKey: public(p.identity), Challenge: start.GetChallenge(),
	}
	p.sign(req, p.device)
	return req
}

func TestPasswordChange(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	old := *alice
	begun := old.finish(c, old.device) // KE2 was made with the record to be replaced
	change := alice.passwordChange(c, "a better password")
	must[*pb.OpaqueRegisterFinishResponse](c, change)

	c.refused(begun, loginFailed, pb.Reason_LOGIN_FAILED)
	old.wrongPassword(c)
	alice.login(c, alice.device)

	unchanged := w.unchanged()
	must[*pb.OpaqueRegisterFinishResponse](c, change) // again: Ok, nothing happens
	unchanged()
}

func TestPasswordChangeRefused(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	bob, b := w.join("bob")
	enroll := alice.login(c, keyOf("another device")).GetSessionToken()
	unchanged := w.unchanged()
	password := string(alice.password)

	other := bob.passwordChange(b, string(bob.password))
	other.SessionToken = alice.token
	other.IdentityKey = public(bob.identity)
	bob.sign(other, alice.device)
	c.refused(other, pb.Status_Forbidden, pb.Reason_WRONG_ACCOUNT)

	req := alice.passwordChange(c, password)
	req.SessionToken = enroll
	c.refused(req, pb.Status_Forbidden, pb.Reason_SCOPE)

	req = alice.passwordChange(c, password)
	req.SessionToken = append([]byte{1}, req.SessionToken[1:]...)
	c.refused(req, pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID)

	req = alice.passwordChange(c, password)
	alice.sign(req, alice.identity)
	c.refused(req, pb.Status_BadRequest, pb.Reason_SIGNATURE_INVALID)

	req = alice.passwordChange(c, password)
	req.RecoveryBundle = []byte("sealed")
	c.refused(req, pb.Status_BadRequest, pb.Reason_NOT_SUPPORTED)

	req = alice.passwordChange(c, password)
	req.Upload[0] ^= 1 // no group element any more, or another record
	c.refused(req, pb.Status_BadRequest, pb.Reason_SIGNATURE_INVALID)
	unchanged()
	alice.login(c, alice.device)
}
