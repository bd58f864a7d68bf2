package client

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/pake"
)

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
		whole := s.script(lose)
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
