package server_test

import (
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/pake"
	"quicprochat/rpc/server"
)

func limited(c *server.Config) { c.Limits = server.LimitsDefault }

// TestRegistrationBudget: six registrations per hour and address prefix, and
// thirty beginnings.
func TestRegistrationBudget(t *testing.T) {
	w := boot(t, limited)
	c := w.dial()
	began := time.Now()
	var people []*person
	for i := range 7 {
		people = append(people, newPerson(t, fmt.Sprintf("user%d", i)))
	}
	for _, p := range people[:6] {
		must[*pb.OpaqueRegisterFinishResponse](c, p.registration(c))
	}
	req := people[6].registration(c)
	unchanged := w.unchanged()
	d := w.dial().refused(req, pb.Status_RateLimited, pb.Reason_RATE)
	if wait := time.Duration(d.GetRetryAfterMs()) * time.Millisecond; wait < 10*time.Minute-time.Since(began) || wait > 10*time.Minute {
		t.Errorf("retry after %v, want 10 minutes behind the first", wait)
	}
	unchanged()
	_, request, err := pake.StartRegistration([]byte("secret"), pake.InsecureKSF())
	if err != nil {
		t.Fatal(err)
	}
	start := &pb.OpaqueRegisterStartRequest{Username: "other", RegistrationRequest: request}
	for range 30 - 7 {
		must[*pb.OpaqueRegisterStartResponse](c, start)
	}
	c.refused(start, pb.Status_RateLimited, pb.Reason_RATE)
}

// TestLoginBudget: ten tries per name and prefix, for known and unknown names
// alike; the owner on a bound connection is not locked out by them.
func TestLoginBudget(t *testing.T) {
	w := boot(t, limited)
	alice, bound := w.join("alice")
	must[*pb.PeekResponse](bound, &pb.PeekRequest{SessionToken: alice.token})
	_, ke1, err := pake.StartLogin([]byte("guess"), pake.InsecureKSF())
	if err != nil {
		t.Fatal(err)
	}
	unchanged := w.unchanged()
	c := w.dial()
	tries := func(name string) int {
		for n := 0; ; n++ {
			r := c.send(&pb.OpaqueLoginStartRequest{Username: name, LoginRequest: ke1})
			if r.status != pb.Status_Ok {
				d := c.check(r, pb.Status_RateLimited, pb.Reason_RATE)
				if wait := time.Duration(d.GetRetryAfterMs()) * time.Millisecond; wait < time.Minute || wait > 90*time.Second {
					t.Errorf("%s: retry after %v, want about 90 s", name, wait)
				}
				return n
			}
		}
	}
	if got := tries("alice"); got != 9 { // joining was the first
		t.Errorf("known name: %d tries, want 9", got)
	}
	for _, name := range []string{"nobody", "NoOne"} {
		if got := tries(name); got != 10 {
			t.Errorf("unknown name %s: %d tries, want 10", name, got)
		}
	}
	if got := tries("noone"); got != 0 {
		t.Errorf("another spelling got %d tries more", got)
	}
	unchanged()
	alice.login(bound, alice.device)
	// A bound connection is no way around the budget of other names.
	bound.refused(&pb.OpaqueLoginStartRequest{Username: "nobody", LoginRequest: ke1}, pb.Status_RateLimited, pb.Reason_RATE)
}

// TestPairBudget: sixty messages at once from one account to one recipient.
func TestPairBudget(t *testing.T) {
	w := boot(t, limited)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	sent := 0
	var refused *pb.ErrorDetail
	for refused == nil {
		r := a.send(alice.enqueue(bob, []byte("x")))
		if r.status == pb.Status_Ok {
			sent++
			continue
		}
		refused = a.check(r, pb.Status_RateLimited, pb.Reason_RATE)
	}
	if sent < 60 || sent > 60+int(time.Minute/time.Second) || refused.GetRetryAfterMs() == 0 || refused.GetRetryAfterMs() > 1001 {
		t.Errorf("%d messages, then retry after %d ms", sent, refused.GetRetryAfterMs())
	}
	// Other pairs have budgets of their own.
	must[*pb.EnqueueResponse](a, alice.enqueue(alice, []byte("x")))
	must[*pb.EnqueueResponse](b, bob.enqueue(bob, []byte("x")))
	must[*pb.EnqueueResponse](b, bob.enqueue(alice, []byte("x")))
	// A batch is charged per message.
	batch := &pb.BatchEnqueueRequest{SessionToken: bob.token, RequestId: newRequestID()}
	for range 59 {
		batch.Items = append(batch.Items, &pb.BatchEnqueueRequest_Item{
			Payload: []byte("x"), Recipient: &pb.BatchEnqueueRequest_Item_RecipientKey{RecipientKey: public(alice.identity)},
		})
	}
	must[*pb.BatchEnqueueResponse](b, batch)
	batch.RequestId, batch.Items = newRequestID(), batch.Items[:50]
	unchanged := w.unchanged()
	b.refused(batch, pb.Status_RateLimited, pb.Reason_RATE)
	unchanged()
}

// TestFanoutBudget: a post is charged for each member of its channel, over all channels
// of an account: whoever makes many large ones gets no more out of the server.
func TestFanoutBudget(t *testing.T) {
	t.Cleanup(server.LimitFanout(6))
	w := boot(t, limited)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	post := func(p *person, channel []byte) *pb.BatchEnqueueRequest {
		return &pb.BatchEnqueueRequest{SessionToken: p.token, RequestId: newRequestID(), ChannelId: channel, Payload: []byte("x")}
	}
	var channels [][]byte
	for range 4 {
		made := must[*pb.CreateChannelResponse](a, &pb.CreateChannelRequest{
			SessionToken: alice.token, RequestId: newRequestID(), Members: [][]byte{public(bob.identity)},
		})
		channels = append(channels, made.GetChannelId())
	}
	for _, channel := range channels[:3] { // two members each
		must[*pb.BatchEnqueueResponse](a, post(alice, channel))
	}
	unchanged := w.unchanged()
	detail := a.refused(post(alice, channels[3]), pb.Status_RateLimited, pb.Reason_RATE)
	unchanged()
	if wait := time.Duration(detail.GetRetryAfterMs()) * time.Millisecond; wait < time.Hour || wait > 2*time.Hour+time.Second {
		t.Errorf("wait %v for two members", wait)
	}
	must[*pb.BatchEnqueueResponse](b, post(bob, channels[0]))
	must[*pb.EnqueueResponse](a, alice.enqueue(bob, []byte("x")))
}

// TestLimitsOffIsForLoopback refuses an open server without limits.
func TestLimitsOffIsForLoopback(t *testing.T) {
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4zero})
	if err != nil {
		t.Fatal(err)
	}
	_, err = server.Boot(testContext(t), server.Config{FS: newFS(), Dir: "/data", PacketConn: socket, Limits: server.LimitsOff})
	if err == nil {
		t.Fatal("it started")
	}
	if _, err := socket.WriteTo(nil, socket.LocalAddr()); err == nil {
		t.Error("the socket is still open")
	}
}

// TestConnectionFlood opens more connections without a session than one prefix
// may have: the rest is refused, those with a session live on, and what goes
// away makes room.
func TestConnectionFlood(t *testing.T) {
	t.Parallel()
	w := boot(t, limited)
	alice, c := w.join("alice")
	must[*pb.PeekResponse](c, &pb.PeekRequest{SessionToken: alice.token})
	socket := loopback(t)
	transport := &quic.Transport{Conn: socket}
	defer socket.Close()
	defer transport.Close()
	var open []*quic.Conn
	for {
		flood, err := transport.Dial(testContext(t), w.node.Addr(), w.tlsConfig(), &quic.Config{HandshakeIdleTimeout: time.Minute, MaxIdleTimeout: time.Hour})
		if err != nil {
			break
		}
		open = append(open, flood)
		if len(open) > server.MaxPrefixStrangers {
			t.Fatalf("%d connections without a session", len(open))
		}
	}
	if len(open) != server.MaxPrefixStrangers {
		t.Errorf("%d connections, want %d", len(open), server.MaxPrefixStrangers)
	}
	must[*pb.EnqueueResponse](c, alice.enqueue(alice, []byte("unharmed")))
	for _, flood := range open {
		flood.CloseWithError(0, "")
	}
	eventually(t, "only alice's connection is there", func() bool { return w.node.Connections() == 1 })
	must[*pb.HealthResponse](w.dial(), &pb.HealthRequest{})
	if w.node.IdleStrangers() != 0 {
		t.Error("connections that just came are swept")
	}
}

// TestStreamsAreBounded opens streams and leaves them half-way: at most so many
// are taken, and they are cut off in time.
func TestStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bootSimulated(t, nil)
		c, end := s.dial()
		defer end()
		opened := 0
		for {
			s, err := c.OpenStream()
			if err != nil {
				break
			}
			s.Write([]byte{0})
			opened++
		}
		if opened != server.MaxStreams {
			t.Errorf("%d streams, want %d", opened, server.MaxStreams)
		}
		other, endOther := s.dial()
		defer endOther()
		must[*pb.HealthResponse](other, &pb.HealthRequest{})
		must[*pb.HealthResponse](c, &pb.HealthRequest{}) // as soon as they were cut off
	})
}

// TestStarting: before the engine has caught up everything is Unavailable.
func TestStarting(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	resume := w.node.Suspend()
	c.refused(&pb.HealthRequest{}, pb.Status_Unavailable, pb.Reason_STARTING)
	c.refused(alice.enqueue(alice, []byte("x")), pb.Status_Unavailable, pb.Reason_STARTING)
	resume()
	must[*pb.EnqueueResponse](c, alice.enqueue(alice, []byte("x")))
}
