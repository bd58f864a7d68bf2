package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
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

func (s *ceremonies) register(t *testing.T, c *Client, p *person) *Registration {
	t.Helper()
	r, err := c.Register(t.Context(), p.params())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRegisterAndLogin(t *testing.T) {
	s := newCeremonies(t)
	c := s.dial()
	alice := newPerson(t, "alice")
	params := alice.params()
	params.Username = "Alice" // the canonical form is what counts
	registration, err := c.Register(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	if registration.Username != "alice" || len(registration.ExportKey) != pake.ExportKeySize {
		t.Errorf("%+v", registration)
	}
	if _, ok := c.Session(); ok {
		t.Error("a registration is no login")
	}
	session, err := c.Login(t.Context(), "ALICE", alice.password(), alice.device)
	if err != nil {
		t.Fatal(err)
	}
	if session.Username != "alice" || session.Scope != pb.SessionScope_DEVICE || !bytes.Equal(session.Token, s.token) ||
		!session.IdentityKey.Equal(alice.identity.Public()) || !session.DeviceKey.Equal(alice.device.Public()) ||
		session.IdleTimeout != time.Minute || !bytes.Equal(session.ExportKey, registration.ExportKey) {
		t.Errorf("%+v", session)
	}
	if off := time.Until(session.Expires) - serverAhead; off.Abs() > time.Minute {
		t.Errorf("expires %s", session.Expires)
	}
	s.on("Peek", func(c *fakeCall) {
		if !bytes.Equal(c.req.(*pb.PeekRequest).SessionToken, s.token) {
			t.Error("the session is not used")
		}
		c.ok(new(pb.PeekResponse))
	})
	if _, err := c.Peek(t.Context(), new(pb.PeekRequest)); err != nil {
		t.Error(err)
	}
	stranger := newPerson(t, "stranger")
	session, err = c.Login(t.Context(), "alice", alice.password(), stranger.device)
	if err != nil || session.Scope != pb.SessionScope_ENROLL_ONLY {
		t.Errorf("login with a new key: %v, %v", session, err)
	}
}

func TestRegisterWithHybridKey(t *testing.T) {
	s := newCeremonies(t)
	params := newPerson(t, "alice").params()
	params.HybridKey = make([]byte, statement.HybridKeySize)
	r, err := s.dial().Register(t.Context(), params)
	if err != nil || r.KeySet.KemId != statement.KEMXWing || len(r.KeySet.HybridKey) != statement.HybridKeySize {
		t.Errorf("%v, %v", r, err)
	}
}

func TestRegisterSurvivesALostAnswer(t *testing.T) {
	s := newCeremonies(t)
	s.register(t, s.dial(), newPerson(t, "unlucky"))
	if n := s.count("OpaqueRegisterFinish"); n != 2 {
		t.Errorf("%d calls", n)
	}
	other := newPerson(t, "unlucky")
	other.identity = newPerson(t, "other").identity
	if _, err := s.dial().Register(t.Context(), other.params()); ReasonOf(err) != pb.Reason_USERNAME_TAKEN {
		t.Errorf("somebody else under the name: %v", err)
	}
}

func TestRegisterRefusesBadParams(t *testing.T) {
	s := newCeremonies(t)
	c := s.dial()
	good := newPerson(t, "alice").params()
	for name, change := range map[string]func(*RegisterParams){
		"no name":        func(p *RegisterParams) { p.Username = "" },
		"bad name":       func(p *RegisterParams) { p.Username = "a b" },
		"no identity":    func(p *RegisterParams) { p.IdentityKey = nil },
		"short device":   func(p *RegisterParams) { p.DeviceKey = p.DeviceKey[:32] },
		"bad hybrid key": func(p *RegisterParams) { p.HybridKey = []byte{1} },
	} {
		p := good
		change(&p)
		if _, err := c.Register(t.Context(), p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if s.count("OpaqueRegisterFinish") != 0 {
		t.Error("a registration was sent")
	}
	if _, err := c.Login(t.Context(), "a b", nil, good.DeviceKey); !errors.Is(err, statement.ErrUsername) {
		t.Errorf("login with a bad name: %v", err)
	}
	if _, err := c.Login(t.Context(), "alice", nil, nil); err == nil {
		t.Error("login without a key")
	}
}

func TestRegisterChecksTheServersReply(t *testing.T) {
	good := func(s *ceremonies, c *fakeCall) *pb.OpaqueRegisterStartResponse {
		response, err := s.pake.RegistrationResponse(c.req.(*pb.OpaqueRegisterStartRequest).RegistrationRequest, s.id)
		if err != nil {
			t.Error(err)
		}
		return &pb.OpaqueRegisterStartResponse{RegistrationResponse: response, ServerName: fakeName, Username: "alice"}
	}
	for name, change := range map[string]func(*pb.OpaqueRegisterStartResponse){
		"another username":  func(r *pb.OpaqueRegisterStartResponse) { r.Username = "mallory" },
		"no OPAQUE message": func(r *pb.OpaqueRegisterStartResponse) { r.RegistrationResponse = nil },
		"not a group element": func(r *pb.OpaqueRegisterStartResponse) {
			r.RegistrationResponse = bytes.Repeat([]byte{0xff}, pake.RegistrationResponseSize)
		},
	} {
		s := newCeremonies(t)
		s.on("OpaqueRegisterStart", func(c *fakeCall) {
			r := good(s, c)
			change(r)
			c.ok(r)
		})
		if _, err := s.dial().Register(t.Context(), newPerson(t, "alice").params()); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoginFails(t *testing.T) {
	s := newCeremonies(t)
	c := s.dial()
	alice := newPerson(t, "alice")
	s.register(t, c, alice)
	for name, login := range map[string]func() error{
		"wrong password": func() error {
			_, err := c.Login(t.Context(), "alice", []byte("guess"), alice.device)
			return err
		},
		"unknown name": func() error {
			_, err := c.Login(t.Context(), "nobody", alice.password(), alice.device)
			return err
		},
	} {
		if err := login(); !errors.Is(err, ErrLoginFailed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := s.count("OpaqueLoginStart"); n != 2 {
		t.Errorf("%d logins were begun for 2", n)
	}
	if _, ok := c.Session(); ok {
		t.Error("a session after failed logins")
	}
	// The client opens the envelope, but the server does not want the proof.
	s.on("OpaqueLoginFinish", func(c *fakeCall) {
		c.refuse(pb.Status_Unauthorized, &pb.ErrorDetail{Reason: pb.Reason_LOGIN_FAILED})
	})
	_, err := c.Login(t.Context(), "alice", alice.password(), alice.device)
	if !errors.Is(err, ErrLoginFailed) || ReasonOf(err) != pb.Reason_LOGIN_FAILED {
		t.Errorf("refused by the server: %v", err)
	}
	s.on("OpaqueLoginFinish", func(c *fakeCall) {
		c.ok(&pb.OpaqueLoginFinishResponse{SessionToken: []byte("short")})
	})
	if _, err = c.Login(t.Context(), "alice", alice.password(), alice.device); !errors.Is(err, ErrProtocol) {
		t.Errorf("a token of 5 bytes: %v", err)
	}
	s.on("OpaqueLoginFinish", func(c *fakeCall) {
		c.refuse(pb.Status_Forbidden, &pb.ErrorDetail{Reason: pb.Reason_BANNED})
	})
	_, err = c.Login(t.Context(), "alice", alice.password(), alice.device)
	if errors.Is(err, ErrLoginFailed) || ReasonOf(err) != pb.Reason_BANNED {
		t.Errorf("banned: %v", err)
	}
}

// The two halves are bound to one connection: whatever is lost between, the
// login starts over.
func TestLoginStartsOver(t *testing.T) {
	for name, lose := range map[string]string{"the first half": "OpaqueLoginStart", "the second half": "OpaqueLoginFinish"} {
		s := newCeremonies(t)
		c := s.dial()
		alice := newPerson(t, "alice")
		s.register(t, c, alice)
		whole := s.scripts[lose]
		s.on(lose, func(c *fakeCall) {
			if c.n == 1 {
				c.loseAnswer()
				return
			}
			whole(c)
		})
		if _, err := c.Login(t.Context(), "alice", alice.password(), alice.device); err != nil {
			t.Errorf("%s lost: %v", name, err)
		}
		if n := s.count("OpaqueLoginStart"); n != 2 {
			t.Errorf("%s lost: %d logins begun", name, n)
		}
		s.on(lose, (*fakeCall).loseAnswer)
		before := s.count("OpaqueLoginStart")
		if _, err := c.Login(t.Context(), "alice", alice.password(), alice.device); err == nil || errors.Is(err, ErrLoginFailed) {
			t.Errorf("%s always lost: %v", name, err)
		}
		if n := s.count("OpaqueLoginStart") - before; n != maxLogins {
			t.Errorf("%s always lost: %d logins begun", name, n)
		}
	}
}

func TestLoginIsCancelled(t *testing.T) {
	s := newCeremonies(t)
	c := s.dial()
	alice := newPerson(t, "alice")
	s.register(t, c, alice)
	s.on("OpaqueLoginStart", (*fakeCall).hang)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.Login(ctx, "alice", alice.password(), alice.device)
		done <- err
	}()
	eventually(t, "the login begins", func() bool { return s.count("OpaqueLoginStart") == 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestChangePassword(t *testing.T) {
	s := newCeremonies(t)
	c := s.dial()
	alice := newPerson(t, "alice")
	s.register(t, c, alice)
	changed, err := c.ChangePassword(t.Context(), PasswordChange{
		Username: "alice", Old: alice.password(), New: []byte("new"), DeviceKey: alice.device,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Login(t.Context(), "alice", alice.password(), alice.device); !errors.Is(err, ErrLoginFailed) {
		t.Errorf("with the old password: %v", err)
	}
	session, err := c.Login(t.Context(), "alice", []byte("new"), alice.device)
	if err != nil || !bytes.Equal(session.ExportKey, changed.ExportKey) {
		t.Errorf("with the new password: %v", err)
	}
	_, err = c.ChangePassword(t.Context(), PasswordChange{
		Username: "alice", Old: []byte("new"), New: []byte("newer"), DeviceKey: newPerson(t, "stranger").device,
	})
	if err == nil {
		t.Error("by a key that is no device")
	}
	_, err = c.ChangePassword(t.Context(), PasswordChange{
		Username: "alice", Old: []byte("wrong"), New: []byte("newer"), DeviceKey: alice.device,
	})
	if !errors.Is(err, ErrLoginFailed) {
		t.Errorf("with a wrong old password: %v", err)
	}
}

func TestHybridKeys(t *testing.T) {
	s := newCeremonies(t)
	c := s.dial()
	alice, mallory := newPerson(t, "alice"), newPerson(t, "mallory")
	registration := s.register(t, c, alice)
	var mu sync.Mutex
	var uploaded *pb.KeySet
	s.on("UploadHybridKey", func(c *fakeCall) {
		mu.Lock()
		defer mu.Unlock()
		uploaded = c.req.(*pb.UploadHybridKeyRequest).Keyset
		c.ok(&pb.UploadHybridKeyResponse{Version: uploaded.Version})
	})
	hybrid := bytes.Repeat([]byte{5}, statement.HybridKeySize)
	next, err := c.UploadHybridKey(t.Context(), alice.identity, registration.KeySet, hybrid)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if !proto.Equal(next, uploaded) {
		t.Errorf("returned %v, uploaded %v", next, uploaded)
	}
	mu.Unlock()
	if err := statement.VerifyKeySet(fakeName, next); err != nil {
		t.Error(err)
	}
	if err := statement.VerifySuccessor(fakeName, registration.KeySet, next); err != nil {
		t.Error(err)
	}
	if _, err := c.UploadHybridKey(t.Context(), mallory.identity, next, hybrid); err == nil {
		t.Error("with another identity's key")
	}
	if _, err := c.UploadHybridKey(t.Context(), alice.identity, next, hybrid[1:]); err == nil {
		t.Error("with a key that is too short")
	}

	identity, other := public(alice.identity), public(mallory.identity)
	forged := proto.CloneOf(next)
	forged.HybridKey[0] ^= 1
	for name, tt := range map[string]struct {
		keyset *pb.KeySet
		want   error
	}{
		"good": {next, nil}, "none": {nil, nil}, "forged": {forged, ErrKeySet},
		"unsigned": {&pb.KeySet{IdentityKey: identity}, ErrKeySet},
	} {
		s.on("FetchHybridKey", func(c *fakeCall) { c.ok(&pb.FetchHybridKeyResponse{Keyset: tt.keyset}) })
		_, err := c.FetchHybridKey(t.Context(), &pb.FetchHybridKeyRequest{IdentityKey: identity})
		if !errors.Is(err, tt.want) {
			t.Errorf("FetchHybridKey, %s: %v", name, err)
		}
		s.on("FetchHybridKeys", func(c *fakeCall) {
			c.ok(&pb.FetchHybridKeysResponse{Entries: []*pb.FetchHybridKeysResponse_Entry{{}, {Keyset: tt.keyset}}})
		})
		_, err = c.FetchHybridKeys(t.Context(), &pb.FetchHybridKeysRequest{IdentityKeys: [][]byte{other, identity}})
		if !errors.Is(err, tt.want) {
			t.Errorf("FetchHybridKeys, %s: %v", name, err)
		}
	}
	s.on("FetchHybridKey", func(c *fakeCall) { c.ok(&pb.FetchHybridKeyResponse{Keyset: next}) })
	if _, err := c.FetchHybridKey(t.Context(), &pb.FetchHybridKeyRequest{IdentityKey: other}); !errors.Is(err, ErrKeySet) {
		t.Errorf("somebody else's KeySet: %v", err)
	}
	_, err = c.FetchHybridKeys(t.Context(), &pb.FetchHybridKeysRequest{IdentityKeys: [][]byte{identity}})
	if !errors.Is(err, ErrProtocol) {
		t.Errorf("two entries for one key: %v", err)
	}
}

// Every typed helper reaches its method and returns its reply.
func TestTypedCalls(t *testing.T) {
	f := newFake(t)
	for _, m := range rpc.Methods() {
		f.on(m.Name, func(c *fakeCall) {
			resp := m.NewResponse()
			if h, ok := resp.(*pb.HealthResponse); ok {
				h.ServerName = fakeName
			}
			c.ok(resp)
		})
	}
	c := f.dial()
	ctx := t.Context()
	calls := map[string]func() error{
		"Health":          func() error { _, err := c.Health(ctx); return err },
		"Enqueue":         func() error { _, err := c.Enqueue(ctx, message()); return err },
		"BatchEnqueue":    func() error { _, err := c.BatchEnqueue(ctx, new(pb.BatchEnqueueRequest)); return err },
		"Fetch":           func() error { _, err := c.Fetch(ctx, new(pb.FetchRequest)); return err },
		"FetchWait":       func() error { _, err := c.FetchWait(ctx, new(pb.FetchWaitRequest)); return err },
		"Peek":            func() error { _, err := c.Peek(ctx, new(pb.PeekRequest)); return err },
		"Ack":             func() error { _, err := c.Ack(ctx, new(pb.AckRequest)); return err },
		"FetchHybridKey":  func() error { _, err := c.FetchHybridKey(ctx, new(pb.FetchHybridKeyRequest)); return err },
		"FetchHybridKeys": func() error { _, err := c.FetchHybridKeys(ctx, new(pb.FetchHybridKeysRequest)); return err },
		"ResolveUser":     func() error { _, err := c.ResolveUser(ctx, "alice"); return err },
	}
	for name, call := range calls {
		if err := call(); err != nil || f.count(name) != 1 {
			t.Errorf("%s: %v after %d calls", name, err, f.count(name))
		}
	}
	for _, m := range rpc.Methods() {
		ceremony := m.ID < 200 || m.Name == "UploadHybridKey" // have tests of their own
		if _, ok := calls[m.Name]; !ok && !ceremony {
			t.Errorf("%s has no typed call", m)
		}
	}
}
