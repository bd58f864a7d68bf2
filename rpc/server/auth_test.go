package server_test

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/pake"
)

// loginFailed is the status of every login that fails.
var loginFailed = commands.AsRefusal(commands.LoginFailed()).Status

// wrongPassword tries to log in: the client finds out by KE2 already, so the
// test goes on with a KE3 that is none.
func (p *person) wrongPassword(c *conn) {
	p.t.Helper()
	state, ke1, err := pake.StartLogin(p.password, pake.InsecureKSF())
	if err != nil {
		p.t.Fatal(err)
	}
	start := must[*pb.OpaqueLoginStartResponse](c, &pb.OpaqueLoginStartRequest{Username: p.name, LoginRequest: ke1})
	if _, _, _, err := state.Finish(start.GetLoginResponse()); err == nil {
		p.t.Error("the password was taken")
	}
	c.refused(p.loginFinish(ke1, start, make([]byte, pake.KE3Size), p.device), loginFailed, pb.Reason_LOGIN_FAILED)
}

func TestRegisterStartRefused(t *testing.T) {
	w := boot(t, nil)
	c := w.dial()
	_, request, err := pake.StartRegistration([]byte("secret"), pake.InsecureKSF())
	if err != nil {
		t.Fatal(err)
	}
	unchanged := w.unchanged()
	for _, name := range []string{"", "a", strings.Repeat("a", 33), "with space", "al:ice", "a@b", "a/b", "-dash", "ünïcode", "a\u0000b", "Ⅷ"} {
		c.refused(&pb.OpaqueRegisterStartRequest{Username: name, RegistrationRequest: request}, pb.Status_BadRequest, pb.Reason_USERNAME_INVALID)
		c.refused(&pb.OpaqueLoginStartRequest{Username: name, LoginRequest: make([]byte, pake.KE1Size)}, pb.Status_BadRequest, pb.Reason_USERNAME_INVALID)
	}
	c.refused(&pb.OpaqueRegisterStartRequest{Username: "alice"}, pb.Status_BadRequest, pb.Reason_MISSING_FIELD)
	for _, size := range []int{1, 31, 33, 192} {
		c.refused(&pb.OpaqueRegisterStartRequest{Username: "alice", RegistrationRequest: make([]byte, size)}, pb.Status_BadRequest, pb.Reason_OPAQUE_MALFORMED)
	}
	// Right size, no group element; and the identity element.
	c.refused(&pb.OpaqueRegisterStartRequest{Username: "alice", RegistrationRequest: bytes.Repeat([]byte{0xff}, 32)}, pb.Status_BadRequest, pb.Reason_OPAQUE_MALFORMED)
	c.refused(&pb.OpaqueRegisterStartRequest{Username: "alice", RegistrationRequest: make([]byte, 32)}, pb.Status_BadRequest, pb.Reason_OPAQUE_MALFORMED)
	unchanged()
}

// TestRegisterStartTellsNothing compares the answers for a taken and a free
// name, and two answers for one name.
func TestRegisterStartTellsNothing(t *testing.T) {
	w := boot(t, nil)
	_, c := w.join("alice")
	_, request, err := pake.StartRegistration([]byte("secret"), pake.InsecureKSF())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(name string) *pb.OpaqueRegisterStartResponse {
		return must[*pb.OpaqueRegisterStartResponse](c, &pb.OpaqueRegisterStartRequest{Username: name, RegistrationRequest: request})
	}
	taken, again, free := ask("alice"), ask("alice"), ask("carol")
	if len(taken.GetChallenge()) != len(free.GetChallenge()) || len(taken.GetRegistrationResponse()) != len(free.GetRegistrationResponse()) {
		t.Error("answers for taken and free names differ in shape")
	}
	// A credential identifier of its own for each call: the evaluated element
	// (the first half) can't be used as an oracle.
	if bytes.Equal(taken.GetRegistrationResponse()[:32], again.GetRegistrationResponse()[:32]) {
		t.Error("two calls evaluated the same OPRF key")
	}
	if taken.GetUsername() != "alice" || ask("ALICE").GetUsername() != "alice" || taken.GetServerName() != serverName {
		t.Errorf("names: %v", taken)
	}
}

// TestRegisterFinishRefused breaks one thing of a good registration at a time.
func TestRegisterFinishRefused(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	bob := newPerson(t, "bob")
	small := make([]byte, 32) // the identity point's neighbour: order 4
	offCurve := append([]byte{2}, make([]byte, 31)...)
	resign := func(req *pb.OpaqueRegisterFinishRequest) { bob.sign(req, bob.identity) }
	keySet := func(req *pb.OpaqueRegisterFinishRequest) { statement.SignKeySet(serverName, req.Keyset, bob.identity) }
	tests := []struct {
		name   string
		change func(*pb.OpaqueRegisterFinishRequest)
		reason pb.Reason
	}{
		{"no challenge", func(r *pb.OpaqueRegisterFinishRequest) { r.Challenge = nil }, pb.Reason_CHALLENGE_INVALID},
		{"forged challenge", func(r *pb.OpaqueRegisterFinishRequest) { r.Challenge[20] ^= 1; resign(r) }, pb.Reason_CHALLENGE_INVALID},
		{"short challenge", func(r *pb.OpaqueRegisterFinishRequest) { r.Challenge = r.Challenge[:10]; resign(r) }, pb.Reason_CHALLENGE_INVALID},
		{"challenge of another name", func(r *pb.OpaqueRegisterFinishRequest) {
			r.Challenge = newPerson(t, "carol").registration(c).Challenge
			resign(r)
		}, pb.Reason_CHALLENGE_INVALID},
		{"another name than the challenge's", func(r *pb.OpaqueRegisterFinishRequest) { r.Username = "carol" }, pb.Reason_CHALLENGE_INVALID},
		{"odd name", func(r *pb.OpaqueRegisterFinishRequest) { r.Username = "b:b" }, pb.Reason_USERNAME_INVALID},
		{"short upload", func(r *pb.OpaqueRegisterFinishRequest) { r.Upload = r.Upload[:191]; resign(r) }, pb.Reason_OPAQUE_MALFORMED},
		{"long upload", func(r *pb.OpaqueRegisterFinishRequest) { r.Upload = append(r.Upload, 0); resign(r) }, pb.Reason_OPAQUE_MALFORMED},
		{"upload without a key", func(r *pb.OpaqueRegisterFinishRequest) { clear(r.Upload[:32]); resign(r) }, pb.Reason_OPAQUE_MALFORMED},
		{"no identity key", func(r *pb.OpaqueRegisterFinishRequest) { r.IdentityKey = nil }, pb.Reason_MISSING_FIELD},
		{"short identity key", func(r *pb.OpaqueRegisterFinishRequest) { r.IdentityKey = r.IdentityKey[:31] }, pb.Reason_KEY_INVALID},
		{"identity key of small order", func(r *pb.OpaqueRegisterFinishRequest) { r.IdentityKey = small }, pb.Reason_KEY_INVALID},
		{"identity key off the curve", func(r *pb.OpaqueRegisterFinishRequest) { r.IdentityKey = offCurve }, pb.Reason_KEY_INVALID},
		{"identity key not canonical", func(r *pb.OpaqueRegisterFinishRequest) { r.IdentityKey = bytes.Repeat([]byte{0xff}, 32) }, pb.Reason_KEY_INVALID},
		{"device key of small order", func(r *pb.OpaqueRegisterFinishRequest) { r.Device.DeviceKey = small }, pb.Reason_KEY_INVALID},
		{"no device", func(r *pb.OpaqueRegisterFinishRequest) { r.Device = nil }, pb.Reason_MISSING_FIELD},
		{"no keyset", func(r *pb.OpaqueRegisterFinishRequest) { r.Keyset = nil }, pb.Reason_MISSING_FIELD},
		{"no signature", func(r *pb.OpaqueRegisterFinishRequest) { r.Signature = nil }, pb.Reason_SIGNATURE_INVALID},
		{"signature of another key", func(r *pb.OpaqueRegisterFinishRequest) { bob.sign(r, bob.device) }, pb.Reason_SIGNATURE_INVALID},
		{"device did not consent", func(r *pb.OpaqueRegisterFinishRequest) { r.Device.Signature[0] ^= 1 }, pb.Reason_SIGNATURE_INVALID},
		{"keyset of version 1", func(r *pb.OpaqueRegisterFinishRequest) {
			r.Keyset.Version, r.Keyset.PreviousHash = 1, make([]byte, 32)
			keySet(r)
		}, pb.Reason_KEYSET_VERSION},
		{"keyset lists another device", func(r *pb.OpaqueRegisterFinishRequest) {
			r.Keyset.DeviceKeys = [][]byte{public(keyOf("other"))}
			keySet(r)
		}, pb.Reason_KEYSET_INVALID},
		{"keyset not signed", func(r *pb.OpaqueRegisterFinishRequest) { r.Keyset.Signature[5] ^= 1 }, pb.Reason_SIGNATURE_INVALID},
		{"recovery bundle", func(r *pb.OpaqueRegisterFinishRequest) { r.RecoveryBundle = []byte{1} }, pb.Reason_NOT_SUPPORTED},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := &conn{Conn: c.Conn, t: t}
			req := bob.registration(c)
			test.change(req)
			unchanged := w.unchanged()
			c.refused(req, pb.Status_BadRequest, test.reason)
			unchanged()
		})
	}
	// Names and keys that are somebody's.
	taken := newPerson(t, "alice")
	taken.identity, taken.device = keyOf("x1"), keyOf("x2")
	unchanged := w.unchanged()
	c.refused(taken.registration(c), pb.Status_BadRequest, pb.Reason_USERNAME_TAKEN)
	for _, keys := range [][2]ed25519.PrivateKey{
		{alice.identity, keyOf("y1")}, {keyOf("y2"), alice.device}, {alice.device, keyOf("y3")}, {keyOf("y4"), alice.identity},
	} {
		p := newPerson(t, "dave")
		p.identity, p.device = keys[0], keys[1]
		c.refused(p.registration(c), pb.Status_BadRequest, pb.Reason_KEY_IN_USE)
	}
	unchanged()
	// The good one, and the same again.
	req := bob.registration(c)
	first := must[*pb.OpaqueRegisterFinishResponse](c, req)
	unchanged = w.unchanged()
	second := must[*pb.OpaqueRegisterFinishResponse](c, req)
	unchanged()
	first.ServerTimeMs, second.ServerTimeMs = 0, 0
	if !proto.Equal(first, second) {
		t.Errorf("first %v, again %v", first, second)
	}
}

// TestLoginStartAlike compares known and unknown names.
func TestLoginStartAlike(t *testing.T) {
	w := boot(t, nil)
	_, c := w.join("alice")
	_, ke1, err := pake.StartLogin([]byte("secret"), pake.InsecureKSF())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(name string) *pb.OpaqueLoginStartResponse {
		return must[*pb.OpaqueLoginStartResponse](c, &pb.OpaqueLoginStartRequest{Username: name, LoginRequest: ke1})
	}
	const evaluated = 32 // the OPRF output stands first in KE2
	for _, name := range []string{"alice", "nobody"} {
		first, again := ask(name), ask(name)
		if len(first.GetLoginResponse()) != pake.KE2Size || len(first.GetLoginId()) != 16 {
			t.Errorf("%s: %d and %d bytes", name, len(first.GetLoginResponse()), len(first.GetLoginId()))
		}
		if !bytes.Equal(first.GetLoginResponse()[:evaluated], again.GetLoginResponse()[:evaluated]) {
			t.Errorf("%s: the OPRF key changes from call to call", name)
		}
		if bytes.Equal(first.GetLoginId(), again.GetLoginId()) {
			t.Errorf("%s: login_id repeats", name)
		}
	}
	if bytes.Equal(ask("nobody").GetLoginResponse()[:evaluated], ask("noone").GetLoginResponse()[:evaluated]) {
		t.Error("two unknown names have one OPRF key")
	}
	before := ask("nobody").GetLoginResponse()[:evaluated]
	w.stop()
	w.start(nil)
	c = w.dial()
	if !bytes.Equal(before, ask("nobody").GetLoginResponse()[:evaluated]) {
		t.Error("an unknown name answers differently after a restart")
	}
	for _, size := range []int{0, 1, 95, 97} {
		reason := pb.Reason_OPAQUE_MALFORMED
		if size == 0 {
			reason = pb.Reason_MISSING_FIELD
		}
		c.refused(&pb.OpaqueLoginStartRequest{Username: "alice", LoginRequest: make([]byte, size)}, pb.Status_BadRequest, reason)
	}
	c.refused(&pb.OpaqueLoginStartRequest{Username: "alice", LoginRequest: bytes.Repeat([]byte{0xff}, 96)}, pb.Status_BadRequest, pb.Reason_OPAQUE_MALFORMED)
}

// TestLoginFinishFailsAlike breaks one thing of a good login at a time: the
// answer is always the same, and a login_id serves once.
func TestLoginFinishFailsAlike(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	elsewhere := w.dial()
	tests := []struct {
		name   string
		on     *conn
		change func(*pb.OpaqueLoginFinishRequest)
	}{
		{"wrong KE3", c, func(r *pb.OpaqueLoginFinishRequest) { r.Finalization[0] ^= 1 }},
		{"no KE3 at all but zeros", c, func(r *pb.OpaqueLoginFinishRequest) { clear(r.Finalization) }},
		{"another name", c, func(r *pb.OpaqueLoginFinishRequest) { r.Username = "bob" }},
		{"no name", c, func(r *pb.OpaqueLoginFinishRequest) { r.Username = "" }},
		{"unknown login_id", c, func(r *pb.OpaqueLoginFinishRequest) { r.LoginId[0] ^= 1 }},
		{"short login_id", c, func(r *pb.OpaqueLoginFinishRequest) { r.LoginId = r.LoginId[:15] }},
		{"no login_id", c, func(r *pb.OpaqueLoginFinishRequest) { r.LoginId = nil }},
		{"another connection", elsewhere, func(*pb.OpaqueLoginFinishRequest) {}},
		{"wrong signature", c, func(r *pb.OpaqueLoginFinishRequest) { r.Signature[0] ^= 1 }},
		{"no signature", c, func(r *pb.OpaqueLoginFinishRequest) { r.Signature = nil }},
		{"signature of another key", c, func(r *pb.OpaqueLoginFinishRequest) { r.IdentityKey = public(keyOf("other")) }},
		{"no key", c, func(r *pb.OpaqueLoginFinishRequest) { r.IdentityKey = nil }},
	}
	unchanged := w.unchanged()
	var first *pb.ErrorDetail
	for _, test := range tests {
		req := alice.finish(c, alice.device)
		good := proto.Clone(req).(*pb.OpaqueLoginFinishRequest)
		test.change(req)
		d := test.on.refused(req, loginFailed, pb.Reason_LOGIN_FAILED)
		d.ServerTimeMs = 0
		if first == nil {
			first = d
		}
		if !proto.Equal(first, d) {
			t.Errorf("%s: %v, others %v", test.name, d, first)
		}
		if bytes.Equal(req.GetLoginId(), good.GetLoginId()) { // it is spent
			c.refused(good, loginFailed, pb.Reason_LOGIN_FAILED)
		}
	}
	for _, size := range []int{1, 63, 65} {
		req := alice.finish(c, alice.device)
		req.Finalization = make([]byte, size)
		c.refused(req, pb.Status_BadRequest, pb.Reason_OPAQUE_MALFORMED)
	}
	nobody := newPerson(t, "nobody")
	nobody.wrongPassword(c)
	alice.password = []byte("guess")
	alice.wrongPassword(c)
	unchanged()
}

func TestLoginServesOnce(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	req := alice.finish(c, alice.device)
	must[*pb.OpaqueLoginFinishResponse](c, req)
	unchanged := w.unchanged()
	c.refused(req, loginFailed, pb.Reason_LOGIN_FAILED)
	unchanged()
}

// TestIdentityKeyIsNoDevice: the account key counts only where it is a listed
// device key itself.
func TestIdentityKeyIsNoDevice(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	if got := alice.login(c, alice.identity); got.GetScope() != pb.SessionScope_ENROLL_ONLY {
		t.Errorf("identity key: scope %v", got.GetScope())
	}
	if got := alice.login(c, alice.device); got.GetScope() != pb.SessionScope_DEVICE || len(got.GetSessionToken()) != 32 {
		t.Errorf("device key: %v", got.GetScope())
	}
}
