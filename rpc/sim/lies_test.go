package sim_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/pake"
	"quicprochat/rpc/server"
	"quicprochat/rpc/sim"
)

// lyingServer is an honest node with a Liar before it, and two people who came
// while it told the truth.
type lyingServer struct {
	t          *testing.T
	liar       *sim.Liar
	ca         []byte
	alice, bob *somebody
}

func newLyingServer(t *testing.T) *lyingServer {
	t.Helper()
	fs := vfs.NewMem()
	node := bootHonest(t, fs)
	liar, err := sim.NewLiar(node, fs, sim.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { liar.Close() })
	s := &lyingServer{t: t, liar: liar, ca: fileOf(t, fs, node.CAFile())}
	addr := liar.Addr().String()
	s.alice, s.bob = arrive(t, addr, s.ca, "alice"), arrive(t, addr, s.ca, "bob")
	return s
}

func bootHonest(t *testing.T, fs vfs.FS) *server.Node {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	node, err := server.Boot(t.Context(), server.Config{
		FS: fs, Dir: sim.DataDir, PacketConn: conn, Limits: server.LimitsOff, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, node) })
	return node
}

func shut(t *testing.T, node *server.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := node.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

func fileOf(t *testing.T, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return content
}

// victim is bob's SDK, with what it remembers and what it kept as evidence.
type victim struct {
	*client.Client
	t        *testing.T
	state    kt.State
	evidence []*kt.Bundle
}

// victim comes to the server with bob's session and a witness policy.
func (s *lyingServer) victim(t *testing.T, policy kt.WitnessPolicy) *victim {
	t.Helper()
	v := &victim{t: t}
	c, err := client.Dial(t.Context(), client.Config{
		Addr: s.liar.Addr().String(), CACert: s.ca, KSF: pake.InsecureKSF(), Attempts: 1,
		Transparency: client.Transparency{
			Policy:       policy,
			Update:       func(change func(*kt.State) bool) error { change(&v.state); return nil },
			SaveEvidence: func(b *kt.Bundle) error { v.evidence = append(v.evidence, b); return nil },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	session, _ := s.bob.Session()
	c.SetSession(session)
	v.Client = c
	return v
}

func (v *victim) resolve(name string) error {
	_, err := v.ResolveUser(v.t.Context(), name)
	return err
}

// TestAnHonestFalseLog: left alone, a FalseLog is believed; so it is the lies that
// the other tests find, not the Liar's clumsiness.
func TestAnHonestFalseLog(t *testing.T) {
	s := newLyingServer(t)
	v := s.victim(t, kt.WitnessPolicy{})
	if err := v.resolve("alice"); err != nil { // from the node itself
		t.Fatal(err)
	}
	keys := [][]byte{publicKey(s.alice.identity), publicKey(keyNamed("mallory")), publicKey(s.alice.identity)}
	if several, err := v.FetchHybridKeys(t.Context(), &pb.FetchHybridKeysRequest{IdentityKeys: keys}); err != nil || len(several.GetEntries()) != 3 {
		t.Fatalf("%v, %v", several, err)
	}
	f := s.copy(t)
	for range 3 {
		s.liar.Show(f)
		identity, err := v.LookupIdentity(t.Context(), publicKey(s.alice.identity))
		if err != nil || identity.KeySet == nil || identity.Revocation != nil {
			t.Fatalf("%+v, %v", identity, err)
		}
		if err := v.resolve("alice"); err != nil {
			t.Fatal(err)
		}
		if err := v.resolve("nobody"); client.ReasonOf(err) != pb.Reason_NO_SUCH_USER {
			t.Fatal(err)
		}
		f = f.Fork(f.Shown())
		f.Junk(2)
		f.Opaque(3)
		f.Seal(nil)
	}
	if len(v.evidence) > 0 {
		t.Errorf("evidence against the truth: %+v", v.evidence)
	}
}

func (s *lyingServer) copy(t *testing.T) *sim.FalseLog {
	t.Helper()
	f, err := s.liar.Copy()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestLiesOverTheWire: whatever a server tells an SDK of transparency.md's table of
// threats, the SDK names the step that found it and keeps what shows it to others.
// What accuses nobody is told apart and nothing is kept.
func TestLiesOverTheWire(t *testing.T) {
	s := newLyingServer(t)
	for _, lie := range wireLies() {
		t.Run(lie.name, func(t *testing.T) {
			v := s.victim(t, lie.policy)
			if !lie.newcomer {
				s.liar.Show(nil)
				if err := v.resolve("alice"); err != nil {
					t.Fatal(err)
				}
			}
			f := lie.tell(&telling{s, v, s.copy(t)})
			s.liar.Show(f)
			defer s.liar.Show(nil)
			ask := lie.ask
			if ask == nil {
				ask = func(v *victim) error { return v.resolve("alice") }
			}
			err := ask(v)
			if lie.step == "" {
				if !errors.Is(err, lie.err) {
					t.Errorf("%v, want %v", err, lie.err)
				}
				if len(v.evidence) > 0 {
					t.Errorf("kept as evidence: %s, %s", v.evidence[0].Step, v.evidence[0].Detail)
				}
				return
			}
			v.caught(err, lie.step, lie.text)
		})
	}
}

// caught expects evidence, kept so that a stranger sees the same.
func (v *victim) caught(err error, step kt.Step, text string) {
	v.t.Helper()
	evidence, is := client.EvidenceOf(err)
	if !is || evidence.Step != step || !strings.Contains(evidence.Detail, text) {
		v.t.Fatalf("%v, want evidence of step %s with %q", err, step, text)
	}
	if len(v.evidence) != 1 || v.evidence[0].Step != step {
		v.t.Fatalf("kept: %+v", v.evidence)
	}
	raw, err := v.evidence[0].Marshal()
	if err != nil {
		v.t.Fatal(err)
	}
	bundle, err := kt.ParseBundle(raw)
	if err != nil {
		v.t.Fatal(err)
	}
	_, again := kt.VerifyBundle(bundle, nil)
	if other, is := client.EvidenceOf(again); !is || other.Error() != evidence.Error() {
		v.t.Errorf("offline it is %v, was %v", again, evidence)
	}
}

// TestOnlyWhatIsProved: what a reply says beside its proof is not believed.
func TestOnlyWhatIsProved(t *testing.T) {
	s := newLyingServer(t)
	alice, bob, mallory := publicKey(s.alice.identity), publicKey(s.bob.identity), publicKey(keyNamed("mallory"))
	v, f := s.victim(t, kt.WitnessPolicy{}), s.copy(t)
	f.Publish(s.alice.identity, bytes.Repeat([]byte{5}, statement.HybridKeySize))
	f.Enter(kt.KindRevocation, bob, &pb.Revocation{Reason: 1, TimeMs: 1, Authority: pb.Authority_ADMINISTRATOR})
	f.Seal(nil)
	s.liar.Show(f)
	ctx := t.Context()
	one := func(key ed25519.PublicKey) (*pb.FetchHybridKeyResponse, error) {
		return v.FetchHybridKey(ctx, &pb.FetchHybridKeyRequest{IdentityKey: key})
	}
	if got, err := one(bob); !errors.Is(err, client.ErrKeyRevoked) || got.GetKeyset() != nil {
		t.Errorf("a revoked identity: %v, %v", got, err)
	}
	keys := [][]byte{mallory, alice, bob}
	for range 32 {
		keys = append(keys, alice) // and a second call
	}
	for _, said := range []*pb.KeySet{nil, {IdentityKey: mallory, KemId: 5}} {
		lying := f.Fork(f.Shown())
		lying.Word = func(reply proto.Message) {
			switch reply := reply.(type) {
			case *pb.FetchHybridKeyResponse:
				reply.Keyset, reply.HybridRotationDue = said, true
			case *pb.FetchHybridKeysResponse:
				for _, entry := range reply.Entries {
					entry.Keyset, entry.HybridRotationDue = said, true
				}
			case *pb.ResolveUserResponse:
				reply.IdentityKey = mallory
			}
		}
		s.liar.Show(lying)
		got, err := one(alice)
		if said != nil && !errors.Is(err, client.ErrProtocol) {
			t.Errorf("another KeySet than the proof's: %v", err)
		} else if said == nil && (err != nil || got.GetKeyset().GetVersion() != 1 || got.GetHybridRotationDue()) {
			t.Errorf("a KeySet that the reply leaves out: %v, %v", got, err)
		}
		several, err := v.FetchHybridKeys(ctx, &pb.FetchHybridKeysRequest{IdentityKeys: keys})
		if err != nil || len(several.GetEntries()) != len(keys) {
			t.Fatalf("%v, %v", several, err)
		}
		for i, entry := range several.GetEntries() {
			if has := bytes.Equal(keys[i], alice); has != (entry.GetKeyset() != nil) || has && entry.Keyset.GetVersion() != 1 || entry.GetHybridRotationDue() {
				t.Errorf("entry %d: %v", i, entry)
			}
		}
		if err := v.resolve("alice"); !errors.Is(err, client.ErrProtocol) {
			t.Errorf("another identity than the proof's: %v", err)
		}
	}
	if len(v.evidence) > 0 {
		t.Errorf("evidence: %+v", v.evidence)
	}
}

// TestWordOfTheServer: what a server may say on its own word is shown as that, and
// can only deny.
func TestWordOfTheServer(t *testing.T) {
	s := newLyingServer(t)
	v := s.victim(t, kt.WitnessPolicy{})
	f := s.copy(t)
	f.Bind("alice", keyNamed("mallory"))
	f.Seal(nil)
	s.liar.Show(f)
	p, err := v.LookupUser(t.Context(), "alice")
	if err != nil || len(p.Bindings) != 2 || p.Bindings[1].Authority != pb.Authority_ADMINISTRATOR {
		t.Errorf("a binding on the server's word: %+v, %v", p, err)
	}
	v, f = s.victim(t, kt.WitnessPolicy{}), s.copy(t)
	f.Enter(kt.KindRevocation, publicKey(s.alice.identity), &pb.Revocation{Reason: 1, TimeMs: 1, Authority: pb.Authority_ADMINISTRATOR})
	f.Seal(nil)
	s.liar.Show(f)
	if p, err = v.LookupUser(t.Context(), "alice"); err != nil || p.Identity.Revocation == nil || p.Identity.Revocation.Signed {
		t.Errorf("a revocation on the server's word: %+v, %v", p, err)
	}
	if err := v.resolve("alice"); !errors.Is(err, client.ErrKeyRevoked) {
		t.Errorf("a revoked key was given out: %v", err)
	}
	if len(v.evidence) > 0 {
		t.Errorf("evidence: %+v", v.evidence)
	}
}

// TestOldBackupOverTheWire: a server that was put back to an old copy signs
// nothing, when its guard or a client knows better.
func TestOldBackupOverTheWire(t *testing.T) {
	for _, keeps := range []string{"the guard", "a client"} {
		t.Run(keeps, func(t *testing.T) {
			fs, old := vfs.NewMem(), vfs.NewMem()
			node := bootHonest(t, fs)
			ca := fileOf(t, fs, node.CAFile())
			alice := arrive(t, node.Addr().String(), ca, "alice")
			shut(t, node)
			copyDir(t, fs, old)
			node = bootHonest(t, fs)
			bob := arrive(t, node.Addr().String(), ca, "bob")
			state, err := bob.TransparencyState()
			if err != nil || state.Newest == nil {
				t.Fatalf("%+v, %v", state, err)
			}
			shut(t, node)
			if keeps == "the guard" {
				copyFile(t, fs, old, "guard")
			}
			node = bootHonest(t, old)
			session, _ := alice.Session()
			c, err := client.Dial(t.Context(), client.Config{
				Addr: node.Addr().String(), CACert: ca, Attempts: 1, KSF: pake.InsecureKSF(),
				Transparency: client.Transparency{Update: func(change func(*kt.State) bool) error { change(&state); return nil }},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetSession(session)
			for range 2 { // the second time nobody has to tell it
				_, err = c.ResolveUser(t.Context(), "alice")
				if _, caught := client.EvidenceOf(err); caught || client.ReasonOf(err) != pb.Reason_SIGNING_STOPPED {
					t.Fatalf("%v, want SIGNING_STOPPED", err)
				}
				if keeps == "the guard" {
					state = kt.State{}
				}
			}
		})
	}
}

func copyDir(t *testing.T, from, to vfs.FS) {
	t.Helper()
	if err := to.MkdirAll(sim.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	names, err := from.List(sim.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		copyFile(t, from, to, name)
	}
}

func copyFile(t *testing.T, from, to vfs.FS, name string) {
	t.Helper()
	path := from.PathJoin(sim.DataDir, name)
	if err := to.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if _, err := vfs.Clone(from, to, path, path); err != nil {
		t.Fatal(err)
	}
}
