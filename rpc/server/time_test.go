package server_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/server"
)

// simulated is a world in a bubble: its network and its clock are simulated.
type simulated struct {
	*world
	network simnet.PerfectRouter
	clients int
}

func (s *simulated) address(host byte) *net.UDPAddr {
	return &net.UDPAddr{IP: net.IPv4(127, 0, 0, host), Port: 5001}
}

// bootSimulated starts a node on the simulated network.
func bootSimulated(t *testing.T, change func(*server.Config)) *simulated {
	s := &simulated{world: &world{t: t, fs: newFS(), registry: prometheus.NewRegistry()}}
	s.boot(change)
	return s
}

func (s *simulated) boot(change func(*server.Config)) {
	s.t.Helper()
	s.start(func(c *server.Config) {
		c.PacketConn.Close() // that of the real network
		c.PacketConn = simnet.NewSimConn(s.address(1), &s.network)
		if change != nil {
			change(c)
		}
	})
}

// dial connects a client; end closes what it holds.
func (s *simulated) dial() (c *conn, end func()) {
	return s.dialWith(&quic.Config{MaxIdleTimeout: time.Hour})
}

func (s *simulated) dialWith(config *quic.Config) (c *conn, end func()) {
	s.t.Helper()
	s.clients++
	socket := simnet.NewSimConn(s.address(byte(1+s.clients)), &s.network)
	transport := &quic.Transport{Conn: socket}
	q, err := transport.Dial(context.Background(), s.node.Addr(), s.tlsConfig(), config)
	if err != nil {
		s.t.Fatalf("dial: %v", err)
	}
	return &conn{Conn: q, t: s.t}, func() {
		q.CloseWithError(0, "")
		transport.Close()
		socket.Close()
	}
}

// TestExpiredSession lets a month pass without the use of a session.
func TestExpiredSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bootSimulated(t, nil)
		c, end := s.dial()
		alice := newPerson(t, "alice")
		must[*pb.OpaqueRegisterFinishResponse](c, alice.registration(c))
		alice.token = alice.login(c, alice.device).GetSessionToken()
		must[*pb.PeekResponse](c, &pb.PeekRequest{SessionToken: alice.token})
		end()
		s.stop()
		time.Sleep(32 * 24 * time.Hour)

		// So long a silence of the log makes a start ask for consent.
		_, err := server.Boot(context.Background(), server.Config{
			FS: s.fs, Dir: "/data", PacketConn: simnet.NewSimConn(s.address(1), &s.network), Limits: server.LimitsOff,
		})
		var clock *commands.ClockError
		if !errors.As(err, &clock) {
			t.Fatalf("start after a month: %v", err)
		}
		s.boot(func(c *server.Config) { c.AcceptTime = true })
		c, end = s.dial()
		defer end()
		c.refused(&pb.PeekRequest{SessionToken: alice.token}, pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID)
		c.refused(alice.enqueue(alice, []byte("x")), pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID)
		for _, m := range rpc.Methods() {
			if m.TokenField != 0 {
				c.refused(withToken(m, alice.token), pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID)
			}
		}
		alice.token = alice.login(c, alice.device).GetSessionToken()
		must[*pb.EnqueueResponse](c, alice.enqueue(alice, []byte("x")))
	})
}

// TestTimesOfCeremonies lets a challenge, a login_id and the freshness of a
// login run out.
func TestTimesOfCeremonies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bootSimulated(t, nil)
		c, end := s.dial()
		defer end()
		alice := newPerson(t, "alice")
		late := alice.registration(c)
		for range 5 { // the connection's requests keep it from being swept
			time.Sleep(time.Minute)
			must[*pb.HealthResponse](c, &pb.HealthRequest{})
		}
		unchanged := s.unchanged()
		c.refused(late, pb.Status_BadRequest, pb.Reason_CHALLENGE_INVALID)
		unchanged()
		must[*pb.OpaqueRegisterFinishResponse](c, alice.registration(c))

		login := alice.finish(c, alice.device)
		time.Sleep(time.Minute)
		unchanged = s.unchanged()
		c.refused(login, loginFailed, pb.Reason_LOGIN_FAILED)
		unchanged()

		alice.token = alice.login(c, alice.device).GetSessionToken()
		for range 5 {
			time.Sleep(time.Minute)
			must[*pb.PeekResponse](c, &pb.PeekRequest{SessionToken: alice.token})
		}
		change := alice.passwordChange(c, "new")
		unchanged = s.unchanged()
		c.refused(change, pb.Status_Forbidden, pb.Reason_REAUTH)
		unchanged()
	})
}

// TestSilentConnections: one that sends nothing ends by the idle time-out; one
// that sends only PINGs and has no session is closed with code 2; one with a
// session lives on.
func TestSilentConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bootSimulated(t, nil)
		bound, endBound := s.dial()
		defer endBound()
		alice := newPerson(t, "alice")
		must[*pb.OpaqueRegisterFinishResponse](bound, alice.registration(bound))
		alice.token = alice.login(bound, alice.device).GetSessionToken()
		must[*pb.PeekResponse](bound, &pb.PeekRequest{SessionToken: alice.token})

		silent, endSilent := s.dial()
		defer endSilent()
		pinging, endPinging := s.dialWith(&quic.Config{KeepAlivePeriod: 10 * time.Second})
		defer endPinging()
		waiting := bound.begin(waitFor(alice, 60_000))
		time.Sleep(61 * time.Second)
		if page := waiting.page(); len(page.GetEnvelopes()) != 0 || page.GetSuperseded() {
			t.Errorf("a FetchWait of a minute: %v", page)
		}
		time.Sleep(40 * time.Second)
		if s.node.Connections() != 2 {
			t.Errorf("%d connections after 100 s, want 2: the silent one is gone", s.node.Connections())
		}
		must[*pb.PeekResponse](bound, &pb.PeekRequest{SessionToken: alice.token})
		time.Sleep(60 * time.Second)
		wantClosed(t, pinging, rpc.CodeLimit)
		must[*pb.PeekResponse](bound, &pb.PeekRequest{SessionToken: alice.token})
		var idle *quic.IdleTimeoutError
		if err := context.Cause(silent.Context()); !errors.As(err, &idle) {
			t.Errorf("the silent connection ended with %v", err)
		}
	})
}
