package sim_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/admin"
	"quicprochat/rpc/client"
	"quicprochat/rpc/pake"
	"quicprochat/rpc/server"
	"quicprochat/rpc/sim"
)

// somebody is a person with the SDK and one device.
type somebody struct {
	*client.Client
	t                *testing.T
	name             string
	identity, device ed25519.PrivateKey
}

func keyNamed(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func publicKey(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func arrive(t *testing.T, addr string, ca []byte, name string) *somebody {
	t.Helper()
	c, err := client.Dial(t.Context(), client.Config{Addr: addr, CACert: ca, KSF: pake.InsecureKSF(), Attempts: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s := &somebody{c, t, name, keyNamed(name), keyNamed(name + "/1")}
	_, err = c.Register(t.Context(), client.RegisterParams{
		Username: name, Password: []byte(name), IdentityKey: s.identity, DeviceKey: s.device,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.login(pb.SessionScope_DEVICE)
	return s
}

func (s *somebody) login(scope pb.SessionScope) {
	s.t.Helper()
	session, err := s.Login(s.t.Context(), s.name, []byte(s.name), s.device)
	if err != nil || session.Scope != scope {
		s.t.Fatalf("%s: login of scope %v, %v", s.name, session, err)
	}
}

func (s *somebody) send(to ed25519.PublicKey, payload string) error {
	_, err := s.Enqueue(s.t.Context(), &pb.EnqueueRequest{
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: to}, Payload: []byte(payload),
	})
	return err
}

func (s *somebody) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", s.name, err)
	}
}

func (s *somebody) refused(err error, want pb.Reason) {
	s.t.Helper()
	if client.ReasonOf(err) != want {
		s.t.Fatalf("%s: %v, want %v", s.name, err, want)
	}
}

// TestKeysThatEnd lets keys end in every way that a running server offers, and
// holds what is on its disk in the end against the model.
func TestKeysThatEnd(t *testing.T) {
	fs := vfs.NewMem()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "qpc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := dir + "/" + admin.SocketName
	node, err := server.Boot(t.Context(), server.Config{
		FS: fs, Dir: sim.DataDir, PacketConn: conn, AdminSocket: socket,
		Limits: server.LimitsOff, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := fs.Open(node.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	ctx, addr := t.Context(), node.Addr().String()
	alice, bob, carol, root := arrive(t, addr, ca, "alice"), arrive(t, addr, ca, "bob"), arrive(t, addr, ca, "carol"), arrive(t, addr, ca, "root")
	for _, to := range []*somebody{alice, bob, carol} {
		for range 5 {
			root.must(root.send(publicKey(to.identity), "for "+to.name))
		}
	}

	// A device, by a statement made in advance and sent by anybody.
	_, err = root.RevokeKey(ctx, bob.SignRevocation(bob.identity, publicKey(bob.device), statement.ReasonKeyCompromise))
	root.must(err)
	bob.refused(bob.send(publicKey(root.identity), "x"), pb.Reason_TOKEN_INVALID)
	root.refused(root.send(publicKey(bob.identity), "x"), pb.Reason_NO_DEVICE)
	bob.login(pb.SessionScope_ENROLL_ONLY)

	// An identity, by its successor.
	next := keyNamed("alice, later")
	_, err = alice.ReplaceIdentity(ctx, client.Replacement{
		Old: alice.identity, New: next, Devices: []ed25519.PublicKey{publicKey(alice.device)}, Reason: statement.ReasonSuperseded,
	})
	alice.must(err)
	root.refused(root.send(publicKey(alice.identity), "x"), pb.Reason_NO_DEVICE)
	root.must(root.send(publicKey(next), "for the new one"))
	page, err := alice.Fetch(ctx, &pb.FetchRequest{})
	if alice.must(err); len(page.GetEnvelopes()) != 6 {
		t.Errorf("alice has %d messages", len(page.GetEnvelopes()))
	}
	found, err := resolve(root, "alice")
	if root.must(err); !next.Public().(ed25519.PublicKey).Equal(found) {
		t.Errorf("alice is %x", found)
	}

	// By an administrator in a session, and on the machine.
	_, err = root.RevokeKey(ctx, &pb.RevokeKeyRequest{Key: publicKey(carol.device)})
	root.refused(err, pb.Reason_WRONG_ACCOUNT)
	if err := admin.Call(ctx, socket, &pb.GrantRoleRequest{Username: "root", Role: pb.Role_ADMIN}, new(pb.GrantRoleResponse)); err != nil {
		t.Fatal(err)
	}
	revoked, err := root.RevokeKey(ctx, &pb.RevokeKeyRequest{Key: publicKey(carol.device), Reason: 5})
	if root.must(err); revoked.GetRevocation().GetAuthority() != pb.Authority_ADMINISTRATOR {
		t.Errorf("by %v", revoked)
	}
	err = admin.Call(ctx, socket, &pb.RevokeAnyKeyRequest{Key: publicKey(carol.identity)}, new(pb.RevokeAnyKeyResponse))
	if err != nil {
		t.Fatal(err)
	}
	check, err := carol.CheckRevocation(ctx, &pb.CheckRevocationRequest{Key: publicKey(carol.identity)})
	if carol.must(err); !check.GetKnown() || check.GetRevocation().GetAuthority() != pb.Authority_ADMINISTRATOR {
		t.Errorf("carol: %v", check)
	}

	// What the log says of it all, over the wire.
	if note, err := carol.LogResource(ctx, "checkpoint"); err != nil || len(note) == 0 {
		t.Errorf("no checkpoint: %v", err)
	}
	if _, err := carol.LogResource(ctx, "tile/7/000"); client.ReasonOf(err) != pb.Reason_NO_SUCH_ENTRY {
		t.Errorf("a tile that is not there: %v", err)
	}
	audit, err := root.AuditKeyTransparency(ctx, &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Username{Username: "alice"}})
	if root.must(err); len(audit.GetProof().GetHistories()) < 4 {
		t.Errorf("alice: %v", audit)
	}

	// The own device, in its own session: the answer arrives before the end.
	_, err = root.RevokeKey(ctx, &pb.RevokeKeyRequest{Key: publicKey(root.device)})
	root.must(err)
	root.refused(root.send(publicKey(next), "x"), pb.Reason_TOKEN_INVALID)

	stop, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := node.Shutdown(stop); err != nil {
		t.Fatal(err)
	}
	if err := sim.CheckDisk(fs, nil); err != nil {
		t.Fatal(err)
	}
}

// resolve resolves a name.
func resolve(s *somebody, name string) (ed25519.PublicKey, error) {
	resp, err := s.ResolveUser(s.t.Context(), name)
	return resp.GetIdentityKey(), err
}
