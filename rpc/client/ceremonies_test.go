package client

import (
	"bytes"
	"crypto/sha256"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/pake"
)

// ceremonies is the OPAQUE side of a fake server with one account at most. It
// checks every statement as the protocol says.
type ceremonies struct {
	*fake
	pake *pake.Server
	id   []byte // credential identifier

	mu      sync.Mutex
	account *pb.OpaqueRegisterFinishRequest
	upload  []byte
	token   []byte
	logins  map[string]*pakeLogin
}

type pakeLogin struct {
	conn     any
	state    *pake.LoginState
	ke1, ke2 []byte
}

func newCeremonies(t testing.TB) *ceremonies {
	t.Helper()
	server, err := pake.NewServer(pake.NewMaterial())
	if err != nil {
		t.Fatal(err)
	}
	c := &ceremonies{
		fake: newFake(t), pake: server, id: bytes.Repeat([]byte{9}, pake.CredentialIDSize),
		token: bytes.Repeat([]byte{0xee}, 32), logins: make(map[string]*pakeLogin),
	}
	c.on("OpaqueRegisterStart", c.registerStart)
	c.on("OpaqueRegisterFinish", c.registerFinish)
	c.on("OpaqueLoginStart", c.loginStart)
	c.on("OpaqueLoginFinish", c.loginFinish)
	return c
}

func (s *ceremonies) registerStart(c *fakeCall) {
	req := c.req.(*pb.OpaqueRegisterStartRequest)
	response, err := s.pake.RegistrationResponse(req.RegistrationRequest, s.id)
	if err != nil {
		s.t.Error(err)
	}
	c.ok(&pb.OpaqueRegisterStartResponse{
		RegistrationResponse: response, Challenge: []byte("challenge for " + req.Username),
		ServerName: fakeName, ServerTimeMs: aheadMS(), Username: req.Username,
	})
}

func (s *ceremonies) registerFinish(c *fakeCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	req := c.req.(*pb.OpaqueRegisterFinishRequest)
	signer := req.IdentityKey
	change := len(req.SessionToken) > 0
	if change {
		signer = s.account.Device.DeviceKey
	}
	st := statement.Register{
		ServerName: fakeName, Username: req.Username, UploadHash: sha256.Sum256(req.Upload),
		IdentityKey: req.IdentityKey, Challenge: []byte("challenge for " + req.Username),
	}
	if err := st.Verify(signer, req.Signature); err != nil {
		c.refuse(pb.Status_BadRequest, &pb.ErrorDetail{Reason: pb.Reason_SIGNATURE_INVALID})
		return
	}
	if _, err := s.pake.ParseRecord(req.Upload); err != nil {
		s.t.Error(err)
	}
	if change {
		if !bytes.Equal(req.SessionToken, s.token) || req.Device != nil || req.Keyset != nil {
			s.t.Errorf("password change: %v", req)
		}
		s.upload = req.Upload
		c.ok(new(pb.OpaqueRegisterFinishResponse))
		return
	}
	if s.account != nil && !proto.Equal(s.account, req) {
		c.refuse(pb.Status_BadRequest, &pb.ErrorDetail{Reason: pb.Reason_USERNAME_TAKEN})
		return
	}
	consent := statement.Device{ServerName: fakeName, IdentityKey: req.IdentityKey, DeviceKey: req.Device.DeviceKey}
	if err := consent.Verify(req.Device.DeviceKey, req.Device.Signature); err != nil {
		s.t.Errorf("consent: %v", err)
	}
	if err := statement.VerifyKeySet(fakeName, req.Keyset); err != nil {
		s.t.Errorf("KeySet: %v", err)
	}
	if len(req.Keyset.DeviceKeys) != 1 || !bytes.Equal(req.Keyset.DeviceKeys[0], req.Device.DeviceKey) || req.Keyset.Version != 0 {
		s.t.Errorf("KeySet %v", req.Keyset)
	}
	if off := time.Until(time.UnixMilli(int64(req.Keyset.TimeMs))) - serverAhead; off.Abs() > time.Minute {
		s.t.Errorf("KeySet's time is %s off the server's", off)
	}
	s.account, s.upload = req, req.Upload
	if c.n == 1 && s.loseFirstRegistration() {
		c.loseAnswer()
		return
	}
	c.ok(&pb.OpaqueRegisterFinishResponse{IdentityKey: req.IdentityKey})
}

func (s *ceremonies) loseFirstRegistration() bool { return s.account.Username == "unlucky" }

func (s *ceremonies) loginStart(c *fakeCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	req := c.req.(*pb.OpaqueLoginStartRequest)
	upload := s.upload
	if s.account == nil || req.Username != s.account.Username {
		fake, err := pake.NewFakeRecord()
		if err != nil {
			s.t.Error(err)
		}
		upload = fake
	}
	record, err := s.pake.ParseRecord(upload)
	if err != nil {
		s.t.Error(err)
		return
	}
	ke2, state, err := s.pake.LoginStart(req.LoginRequest, record, s.id)
	if err != nil {
		s.t.Error(err)
		return
	}
	id := []byte{15: byte(c.n)}
	s.logins[string(id)] = &pakeLogin{c.conn, state, req.LoginRequest, ke2}
	c.ok(&pb.OpaqueLoginStartResponse{LoginResponse: ke2, LoginId: id, ServerTimeMs: aheadMS()})
}

func (s *ceremonies) loginFinish(c *fakeCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	req := c.req.(*pb.OpaqueLoginFinishRequest)
	login := s.logins[string(req.LoginId)]
	delete(s.logins, string(req.LoginId))
	failed := func() {
		c.refuse(pb.Status_Unauthorized, &pb.ErrorDetail{Reason: pb.Reason_LOGIN_FAILED, Message: "wrong name or password"})
	}
	if login == nil || login.conn != c.conn {
		failed()
		return
	}
	if _, err := s.pake.LoginFinish(login.state, req.Finalization); err != nil {
		failed()
		return
	}
	st := statement.Login{
		ServerName: fakeName, Username: req.Username, LoginID: req.LoginId, Key: req.IdentityKey,
		TranscriptHash: sha256.Sum256(bytes.Join([][]byte{login.ke1, login.ke2, req.Finalization}, nil)),
	}
	if st.Verify(req.IdentityKey, req.Signature) != nil {
		failed()
		return
	}
	scope := pb.SessionScope_ENROLL_ONLY
	if bytes.Equal(req.IdentityKey, s.account.Device.DeviceKey) {
		scope = pb.SessionScope_DEVICE
	}
	c.ok(&pb.OpaqueLoginFinishResponse{
		SessionToken: s.token, Scope: scope, IdentityKey: s.account.IdentityKey,
		ExpiresMs: aheadMS(), IdleTimeoutMs: 60_000, ServerTimeMs: aheadMS(),
	})
}
