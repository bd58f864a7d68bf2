package client_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/pake"
	"quicprochat/rpc/server"
)

// live is a real server that can be restarted on its directory and address.
type live struct {
	t    *testing.T
	dir  string
	addr string
	node *server.Node
}

func startLive(t *testing.T) *live {
	l := &live{t: t, dir: t.TempDir() + "/data", addr: lastingAddress(t)}
	l.start()
	t.Cleanup(l.stop)
	return l
}

// lastingAddress is a loopback address for a server that comes back to it. It lies
// below the ports that sockets get which ask for none: one of those could have it
// while the server is away.
func lastingAddress(t testing.TB) string {
	t.Helper()
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		udp, err := net.ListenPacket("udp4", address)
		if err != nil {
			continue
		}
		tcp, tcpErr := net.Listen("tcp4", address)
		if tcpErr == nil {
			tcp.Close()
		}
		if err := udp.Close(); err == nil && tcpErr == nil {
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

func (l *live) start() {
	l.t.Helper()
	socket, err := net.ListenPacket("udp4", l.addr)
	if err != nil {
		l.t.Fatal(err)
	}
	l.node, err = server.Boot(context.Background(), server.Config{
		Dir: l.dir, PacketConn: socket, Logger: slog.New(slog.DiscardHandler), Limits: server.LimitsOff,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.addr = l.node.Addr().String()
}

func (l *live) stop() {
	if err := l.node.Shutdown(context.Background()); err != nil {
		l.t.Errorf("Shutdown: %v", err)
	}
}

func (l *live) dial() *client.Client {
	l.t.Helper()
	ca, err := os.ReadFile(l.node.CAFile())
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := client.Dial(l.t.Context(), client.Config{Addr: l.addr, CACert: ca, KSF: pake.InsecureKSF(), Attempts: 10})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}

type user struct {
	*client.Client
	name             string
	password         []byte
	identity, device ed25519.PrivateKey
	keyset           *pb.KeySet
}

func (l *live) join(name string) *user {
	l.t.Helper()
	key := func(use string) ed25519.PrivateKey {
		seed := sha256.Sum256([]byte(use + name))
		return ed25519.NewKeyFromSeed(seed[:])
	}
	u := &user{Client: l.dial(), name: name, password: []byte("secret of " + name), identity: key("i"), device: key("d")}
	r, err := u.Register(l.t.Context(), client.RegisterParams{
		Username: name, Password: u.password, IdentityKey: u.identity, DeviceKey: u.device,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	u.keyset = r.KeySet
	if _, err := u.Login(l.t.Context(), name, u.password, u.device); err != nil {
		l.t.Fatal(err)
	}
	return u
}

func (u *user) to(payload string) *pb.EnqueueRequest {
	return &pb.EnqueueRequest{
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: u.identity.Public().(ed25519.PublicKey)},
		Payload:   []byte(payload),
	}
}

// The session, the queue and the subscription outlive a restart of the server,
// and calls made meanwhile are brought to an end.
func TestServerRestart(t *testing.T) {
	l := startLive(t)
	ctx := t.Context()
	alice, bob := l.join("alice"), l.join("bob")
	pushes := bob.Subscribe(ctx)
	if first := <-pushes; !first.NewMessage.Resync {
		t.Fatalf("got %v", first)
	}
	if _, err := alice.Enqueue(ctx, bob.to("before")); err != nil {
		t.Fatal(err)
	}
	if push := <-pushes; string(push.NewMessage.Payload) != "before" {
		t.Errorf("pushed %v", push)
	}

	l.stop()
	done := make(chan error)
	go func() {
		_, err := alice.Enqueue(ctx, bob.to("meanwhile"))
		done <- err
	}()
	l.start()
	if err := <-done; err != nil {
		t.Fatalf("a call made while the server was away: %v", err)
	}
	for push := range pushes {
		if push.NewMessage.Resync {
			break
		}
	}
	page, err := bob.Fetch(ctx, &pb.FetchRequest{AfterSeq: new(uint64)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range page.Envelopes {
		got = append(got, string(e.Payload))
	}
	if fmt.Sprint(got) != "[before meanwhile]" {
		t.Errorf("queue after the restart: %q", got)
	}
}

// One request_id stores one message, however often it is sent.
func TestRepeatedRequestID(t *testing.T) {
	l := startLive(t)
	ctx := t.Context()
	alice, bob := l.join("alice"), l.join("bob")
	if _, err := alice.Health(ctx); err != nil {
		t.Fatal(err)
	}

	req := bob.to("once")
	req.RequestId = uuidv7(alice.Client)
	first, err := alice.Enqueue(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	second, err := alice.Enqueue(ctx, req)
	if err != nil || !bytes.Equal(first.MessageId, second.MessageId) {
		t.Errorf("repeat: %v, %v; first %v", second, err, first)
	}
	other := bob.to("something else")
	other.RequestId = req.RequestId
	if _, err := alice.Enqueue(ctx, other); client.ReasonOf(err) != pb.Reason_REQUEST_ID_REUSED {
		t.Errorf("another body under the id: %v", err)
	}
	old := bob.to("old")
	old.RequestId = make([]byte, 16) // 1970
	old.RequestId[6], old.RequestId[8] = 0x70, 0x80
	if _, err := alice.Enqueue(ctx, old); !errors.Is(err, client.ErrOutcomeUnknown) {
		t.Errorf("an id of 1970: %v", err)
	}
	page, err := bob.Peek(ctx, new(pb.PeekRequest))
	if err != nil || len(page.Envelopes) != 1 {
		t.Errorf("queue: %v, %v", page, err)
	}
}

func uuidv7(c *client.Client) []byte {
	ms := uint64(c.ServerTime().UnixMilli())
	return []byte{
		byte(ms >> 40), byte(ms >> 32), byte(ms >> 24), byte(ms >> 16), byte(ms >> 8), byte(ms),
		0x70, 1, 0x80, 2, 3, 4, 5, 6, 7, 8,
	}
}

func TestAccountOnTheRealServer(t *testing.T) {
	l := startLive(t)
	ctx := t.Context()
	alice, bob := l.join("alice"), l.join("bob")

	hybrid := validHybridKey(t)
	next, err := alice.UploadHybridKey(ctx, alice.identity, alice.keyset, hybrid)
	if err != nil {
		t.Fatal(err)
	}
	fetched, err := bob.FetchHybridKey(ctx, &pb.FetchHybridKeyRequest{IdentityKey: next.IdentityKey})
	if err != nil || fetched.Keyset.GetKemId() != statement.KEMXWing || !bytes.Equal(fetched.Keyset.HybridKey, hybrid) {
		t.Errorf("%v, %v", fetched, err)
	}
	if _, err := alice.UploadHybridKey(ctx, alice.identity, alice.keyset, hybrid); client.ReasonOf(err) != pb.Reason_KEYSET_VERSION {
		t.Errorf("a KeySet that is not the next: %v", err)
	}
	session, err := alice.ChangePassword(ctx, client.PasswordChange{
		Username: "alice", Old: alice.password, New: []byte("new secret"), DeviceKey: alice.device,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alice.Peek(ctx, new(pb.PeekRequest)); err != nil {
		t.Errorf("the session that changed the password: %v", err)
	}
	again := l.dial()
	if _, err := again.Login(ctx, "alice", alice.password, alice.device); !errors.Is(err, client.ErrLoginFailed) {
		t.Errorf("with the old password: %v", err)
	}
	second, err := again.Login(ctx, "alice", []byte("new secret"), alice.device)
	if err != nil || !bytes.Equal(second.ExportKey, session.ExportKey) {
		t.Errorf("with the new password: %v", err)
	}
	if _, err := l.dial().Register(ctx, client.RegisterParams{
		Username: "alice", Password: []byte("x"), IdentityKey: bob.device, DeviceKey: bob.identity,
	}); client.ReasonOf(err) != pb.Reason_USERNAME_TAKEN {
		t.Errorf("a taken name: %v", err)
	}
}

// Many calls at once, each answered with its own outcome, in any order.
func TestLoadOfOneConnection(t *testing.T) {
	l := startLive(t)
	alice, bob := l.join("alice"), l.join("bob")
	const senders, each = 64, 10
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				if _, err := alice.Enqueue(t.Context(), bob.to(fmt.Sprintf("%d/%d", s, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := make(map[string]bool)
	next := make(map[int]int) // per sender, in the order of sending
	for after := uint64(0); ; {
		page, err := bob.Fetch(t.Context(), &pb.FetchRequest{AfterSeq: &after})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Envelopes {
			var s, i int
			fmt.Sscanf(string(e.Payload), "%d/%d", &s, &i)
			if seen[string(e.Payload)] || e.Seq != after+1 || next[s] != i {
				t.Fatalf("seq %d behind %d: %s, want number %d", e.Seq, after, e.Payload, next[s])
			}
			seen[string(e.Payload)], after, next[s] = true, e.Seq, i+1
		}
		if !page.More {
			break
		}
	}
	if len(seen) != senders*each {
		t.Errorf("%d of %d messages", len(seen), senders*each)
	}
}

func validHybridKey(t *testing.T) []byte {
	t.Helper()
	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key.PublicKey().Bytes()
}
