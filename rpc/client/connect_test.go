package client

import (
	"context"
	"encoding/pem"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

func TestDial(t *testing.T) {
	f := newFake(t)
	f.on("Health", func(c *fakeCall) { c.ok(&pb.HealthResponse{Status: "ok", ServerName: fakeName}) })
	_, port, err := net.SplitHostPort(f.addr)
	if err != nil {
		t.Fatal(err)
	}
	pemCA := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.auth.ca})
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	remote, err := net.ResolveUDPAddr("udp4", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"DER":         func(*Config) {},
		"PEM":         func(c *Config) { c.CACert = pemCA },
		"two in PEM":  func(c *Config) { c.CACert = append(pemCA, pemCA...) },
		"host name":   func(c *Config) { c.Addr = "localhost:" + port },
		"own socket":  func(c *Config) { c.PacketConn, c.RemoteAddr = socket, remote },
		"no attempts": func(c *Config) { c.Attempts = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := f.config()
			change(&cfg)
			c, err := Dial(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			health, err := c.Health(t.Context())
			if err != nil || health.Status != "ok" {
				t.Errorf("Health: %v, %v", health, err)
			}
			if c.ServerName() != fakeName {
				t.Errorf("ServerName %q", c.ServerName())
			}
		})
	}
}

func TestDialRefusesStrangers(t *testing.T) {
	f := newFake(t)
	other := newFake(t)
	for name, tt := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"wrong CA":     {func(c *Config) { c.CACert = other.auth.ca }, "does not fit the pinned CA and server name"},
		"wrong name":   {func(c *Config) { c.ServerName = "evil.example" }, "evil.example"},
		"system roots": {func(c *Config) { c.CACert = nil }, "does not fit"},
	} {
		cfg := f.config()
		tt.change(&cfg)
		c, err := Dial(t.Context(), cfg)
		var connect *ConnectError
		if c != nil || !errors.As(err, &connect) || !connect.Permanent || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want a permanent ConnectError with %q", name, err, tt.want)
		}
	}
}

func TestDialRefusesAnotherProtocol(t *testing.T) {
	f := &fake{t: t, auth: newAuthority(t, fakeName)}
	f.listen("127.0.0.1:0", "h3")
	_, err := Dial(t.Context(), f.config())
	var connect *ConnectError
	if !errors.As(err, &connect) || !connect.Permanent {
		t.Errorf("a server without ALPN %q: %v", rpc.ALPN, err)
	}
}

func TestDialToNobody(t *testing.T) {
	f := newFake(t)
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0") // bound, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	cfg := f.config()
	cfg.Addr = silent.LocalAddr().String()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial to a silent address: %v", err)
	}
}

// Of several addresses the first that answers is taken, whatever the others do.
func TestRaceOfAddresses(t *testing.T) {
	f := newFake(t)
	stranger := &fake{t: t, auth: newAuthority(t, fakeName)} // with another CA
	stranger.listen("127.0.0.1:0", rpc.ALPN)
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	good, err := net.ResolveUDPAddr("udp4", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := net.ResolveUDPAddr("udp4", stranger.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := f.dial()
	for name, addrs := range map[string][]net.Addr{
		"first answers":  {good, silent.LocalAddr()},
		"first silent":   {silent.LocalAddr(), good},
		"first fails":    {bad, bad, good},
		"both the same":  {good, good},
		"silent between": {bad, silent.LocalAddr(), good},
	} {
		conn, err := c.race(t.Context(), addrs)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if conn.RemoteAddr().String() != f.addr || conn.Context().Err() != nil {
			t.Errorf("%s: connected to %s, %v", name, conn.RemoteAddr(), conn.Context().Err())
		}
		closeConn(conn)
	}
	if conn, err := c.race(t.Context(), []net.Addr{bad, bad}); err == nil || conn != nil || !isPermanent(err) {
		t.Errorf("all fail: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.race(ctx, []net.Addr{silent.LocalAddr(), silent.LocalAddr()}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("all silent: %v", err)
	}
}

// blackHole loses everything that is sent while it is open.
type blackHole struct {
	net.PacketConn
	open atomic.Bool
}

func (b *blackHole) WriteTo(p []byte, addr net.Addr) (int, error) {
	if b.open.Load() {
		return len(p), nil
	}
	return b.PacketConn.WriteTo(p, addr)
}

// The network goes away without a word and comes back: the silence ends the
// connection, and the call that was made meanwhile goes over a new one.
func TestNetworkOutage(t *testing.T) {
	simulate(t, func(t *testing.T, f *fake) {
		f.on("Peek", func(c *fakeCall) { c.ok(new(pb.PeekResponse)) })
		var hole *blackHole
		c := f.dial(func(cfg *Config) {
			hole = &blackHole{PacketConn: cfg.PacketConn}
			cfg.PacketConn, cfg.MaxIdle, cfg.Timeout, cfg.Attempts = hole, 300*time.Millisecond, 100*time.Millisecond, 100
		})
		if _, err := c.Peek(t.Context(), new(pb.PeekRequest)); err != nil {
			t.Fatal(err)
		}
		old, err := c.connection(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		hole.open.Store(true)
		done := make(chan error)
		go func() {
			_, err := c.Peek(t.Context(), new(pb.PeekRequest))
			done <- err
		}()
		<-old.Context().Done()
		hole.open.Store(false)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := f.connections(); n < 2 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestConfigErrors(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no address":     {CACert: []byte{}},
		"CA not DER":     {Addr: "127.0.0.1:1", CACert: []byte("junk")},
		"CA a key":       {Addr: "127.0.0.1:1", CACert: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})},
		"no port":        {Addr: "127.0.0.1"},
		"no such host":   {Addr: "no-such-host.invalid:1"},
		"not a port":     {Addr: "127.0.0.1:seventy"},
		"PEM not X.509":  {Addr: "127.0.0.1:1", CACert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})},
		"port too large": {Addr: "127.0.0.1:70000"},
	} {
		if c, err := Dial(t.Context(), cfg); err == nil || c != nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestDefaultServerName(t *testing.T) {
	for addr, want := range map[string]string{
		"chat.example:5001": "chat.example", "localhost:5001": "localhost", "127.0.0.1:5001": "localhost",
		"[::1]:5001": "localhost", ":5001": "localhost", "nonsense": "localhost",
	} {
		if got := defaultServerName(addr); got != want {
			t.Errorf("defaultServerName(%q) = %q, want %q", addr, got, want)
		}
	}
}

func TestServerNameMismatch(t *testing.T) {
	f := newFake(t)
	f.on("Health", func(c *fakeCall) { c.ok(&pb.HealthResponse{ServerName: "other.example"}) })
	f.on("OpaqueRegisterStart", func(c *fakeCall) {
		c.ok(&pb.OpaqueRegisterStartResponse{ServerName: "other.example", Username: "alice"})
	})
	c := f.dial()
	_, err := c.Health(t.Context())
	checkServerName(t, err)
	_, err = c.Register(t.Context(), newPerson(t, "alice").params())
	checkServerName(t, err)
	if n := f.count("OpaqueRegisterStart") + f.count("Health"); n != 2 {
		t.Errorf("%d calls: a wrong name was tried again", n)
	}
}

func checkServerName(t *testing.T, err error) {
	t.Helper()
	var name *ServerNameError
	if !errors.As(err, &name) || name.Configured != fakeName || name.Reported != "other.example" {
		t.Fatalf("got %v", err)
	}
	for _, both := range []string{fakeName, "other.example"} {
		if !strings.Contains(err.Error(), both) {
			t.Errorf("%q does not name %s", err, both)
		}
	}
}

func TestClose(t *testing.T) {
	f := newFake(t)
	f.on("Health", (*fakeCall).hang)
	f.on("Enqueue", (*fakeCall).hang)
	c := f.dial()
	health, enqueue := make(chan error), make(chan error)
	go func() {
		_, err := c.Health(context.Background())
		health <- err
	}()
	go func() {
		_, err := c.Enqueue(context.Background(), &pb.EnqueueRequest{Payload: []byte("x")})
		enqueue <- err
	}()
	pushes := c.Subscribe(t.Context())
	eventually(t, "both calls arrive", func() bool { return f.count("Health") == 1 && f.count("Enqueue") == 1 })
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-health; !errors.Is(err, ErrClosed) || errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("a read under way: %v", err)
	}
	if err := <-enqueue; !errors.Is(err, ErrClosed) || !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("a mutation under way: %v", err)
	}
	if _, open := <-pushes; open {
		t.Error("a push after Close")
	}
	if _, err := c.Health(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("a call after Close: %v", err)
	}
	if _, open := <-c.Subscribe(t.Context()); open {
		t.Error("a subscription after Close")
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
