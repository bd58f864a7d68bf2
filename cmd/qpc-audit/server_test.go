package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/pake"
	"quicprochat/rpc/server"
)

// audienceOf is a real server with the flags that reach it.
type audienceOf struct {
	t     *testing.T
	node  *server.Node
	flags []string
	state string
}

func bootServer(t *testing.T) *audienceOf {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node, err := server.Boot(t.Context(), server.Config{
		Dir: filepath.Join(t.TempDir(), "data"), PacketConn: socket, Version: "test", Limits: server.LimitsOff, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := node.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	a := &audienceOf{t: t, node: node, state: filepath.Join(t.TempDir(), "state")}
	a.flags = []string{"--server", node.Addr().String(), "--ca-cert", node.CAFile(), "--vkey", node.VerifierKeyFile(), "--state", a.state}
	return a
}

// want runs a command and expects a status and some words.
func (a *audienceOf) want(status int, args []string, words ...string) string {
	a.t.Helper()
	code, stdout, stderr := call(a.t, append(args, a.flags...)...)
	said := stdout + stderr
	if code != status {
		a.t.Fatalf("%v: status %d, want %d:\n%s", args, code, status, said)
	}
	for _, w := range words {
		if !strings.Contains(said, w) {
			a.t.Errorf("%v does not say %q:\n%s", args, w, said)
		}
	}
	return said
}

// owner is a person with a home as qpc makes it.
type owner struct {
	client           *client.Client
	identity, device ed25519.PrivateKey
	home             string
}

func (a *audienceOf) register(name string) *owner {
	a.t.Helper()
	ca, err := os.ReadFile(a.node.CAFile())
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := client.Dial(a.t.Context(), client.Config{Addr: a.node.Addr().String(), CACert: ca, KSF: pake.InsecureKSF()})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { c.Close() })
	_, identity, _ := ed25519.GenerateKey(nil)
	_, device, _ := ed25519.GenerateKey(nil)
	registered, err := c.Register(a.t.Context(), client.RegisterParams{Username: name, Password: []byte("correct horse"), IdentityKey: identity, DeviceKey: device})
	if err != nil {
		a.t.Fatal(err)
	}
	session, err := c.Login(a.t.Context(), name, []byte("correct horse"), device)
	if err != nil {
		a.t.Fatal(err)
	}
	o := &owner{client: c, identity: identity, device: device, home: a.t.TempDir()}
	o.save(a.t, name, registered.KeySet, session.Token)
	return o
}

// save writes keys.json and session.json.
func (o *owner) save(t *testing.T, name string, keySet *pb.KeySet, token []byte) {
	t.Helper()
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(keySet)
	if err != nil {
		t.Fatal(err)
	}
	for file, value := range map[string]any{
		"keys.json": map[string]any{
			"username": name, "server_name": "localhost", "keyset": raw,
			"identity_seed": hex.EncodeToString(o.identity.Seed()), "device_seed": hex.EncodeToString(o.device.Seed()),
		},
		"session.json": map[string]any{"token": token},
	} {
		content, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(o.home, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAgainstAServer goes through the commands over QUIC.
func TestAgainstAServer(t *testing.T) {
	a := bootServer(t)
	alice := a.register("alice")
	a.want(exitSatisfied, []string{"follow", "--once"}, "satisfied", "read from   quic://")
	a.flags[len(a.flags)-1] = a.state + ".kt"
	a.want(exitSatisfied, []string{"follow", "--once", "--kt-only"}, "2 key events", "NOT SEEN")
	a.flags[len(a.flags)-1] = a.state

	bundle := filepath.Join(t.TempDir(), "bundle.json")
	a.want(exitSatisfied, []string{"check", "alice", "--home", alice.home, "--bundle", bundle},
		"there is no newer one", "(registered)", fingerprint(alice.identity.Public().(ed25519.PublicKey)), fingerprint(alice.device.Public().(ed25519.PublicKey)))
	a.want(exitSatisfied, []string{"check", "nobody", "--home", alice.home}, "nobody has no account")
	key := hex.EncodeToString(alice.device.Public().(ed25519.PublicKey))
	a.want(exitSatisfied, []string{"check", key}, "is not revoked", "proved under the head of localhost/1")

	// The proof holds without the server; spoiled, it is no proof.
	vkey := a.node.VerifierKeyFile()
	code, stdout, stderr := call(t, "verify", "--vkey", vkey, bundle)
	if code != exitSatisfied || !strings.Contains(stdout, "there is no newer one") {
		t.Errorf("verify: %d\n%s%s", code, stdout, stderr)
	}
	content, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	spoiled := bytes.Replace(content, []byte(`"username": "alice"`), []byte(`"username": "alicf"`), 1)
	if err := os.WriteFile(bundle, spoiled, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := call(t, "verify", "--vkey", vkey, bundle); code == exitSatisfied {
		t.Errorf("a spoiled bundle is verified:\n%s%s", stdout, stderr)
	}

	a.want(exitSatisfied, []string{"monitor", "--once", "--home", alice.home, "alice"}, "satisfied", "as this home made it")
	// Somebody else revokes the device: monitor tells.
	revoke := &pb.RevokeKeyRequest{Key: alice.device.Public().(ed25519.PublicKey), Reason: 1}
	session, _ := alice.client.Session()
	revoke.SessionToken = session.Token
	if err := alice.client.Call(t.Context(), revoke, new(pb.RevokeKeyResponse)); err != nil {
		t.Fatal(err)
	}
	a.want(exitSatisfied, []string{"check", key}, "is REVOKED", "on the server's word")
	bob := a.register("bob")
	a.want(exitSatisfied, []string{"check", "alice", "--home", bob.home}, "REVOKED: key compromise")
	a.want(exitSatisfied, []string{"follow", "--once"}, "satisfied", "5 key events")
}

// TestMonitorTellsForeignChanges: whatever the home did not do.
func TestMonitorTellsForeignChanges(t *testing.T) {
	a := bootServer(t)
	alice := a.register("alice")
	monitor := []string{"monitor", "--once", "--home", alice.home}
	a.want(exitSatisfied, monitor, "satisfied")
	session, _ := alice.client.Session()
	other := &owner{client: alice.client, identity: alice.identity, device: alice.device, home: alice.home}
	other.save(t, "alice", &pb.KeySet{IdentityKey: alice.identity.Public().(ed25519.PublicKey), Version: 7}, session.Token)
	a.want(exitEvidence, monitor, "NOT DONE BY THIS HOME", "is not the one that this home made last")
	// It is told once, and ends a monitor that goes on, too.
	a.want(exitEvidence, []string{"monitor", "--interval", "1s", "--home", alice.home}, "EVIDENCE", "is not the one that this home made last")
	_, other.identity, _ = ed25519.GenerateKey(nil)
	other.save(t, "alice", nil, session.Token)
	a.want(exitEvidence, monitor, "has another identity key")
	a.want(exitUsage, append(monitor, "bob"), "the home is that of alice")
}

// TestMonitorWithoutASession: a revocation of the identity ends all sessions, also
// that of the monitor. It is told nevertheless.
func TestMonitorWithoutASession(t *testing.T) {
	a := bootServer(t)
	carol := a.register("carol")
	monitor := []string{"monitor", "--interval", "1s", "--home", carol.home}
	session, _ := carol.client.Session()
	revoke := &pb.RevokeKeyRequest{SessionToken: session.Token, Key: carol.identity.Public().(ed25519.PublicKey), Reason: 1}
	if err := carol.client.Call(t.Context(), revoke, new(pb.RevokeKeyResponse)); err != nil {
		t.Fatal(err)
	}
	a.want(exitEvidence, monitor, "NOT DONE BY THIS HOME: the identity key is revoked: key compromise", "on the server's word")
	// A session that is over for another reason accuses nobody.
	dora := a.register("dora")
	token := make([]byte, 32)
	dora.save(t, "dora", nil, token)
	a.want(exitUnreachable, []string{"monitor", "--once", "--home", dora.home}, "TOKEN_INVALID")
}

// TestDamagedFiles: a sentence with the file's name, whatever is wrong with it.
func TestDamagedFiles(t *testing.T) {
	a := bootServer(t)
	alice := a.register("alice")
	check := []string{"check", "alice", "--home", alice.home}
	a.want(exitSatisfied, check)
	damage := func(file, content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, content := range []string{"", "{", "[1]", `{"newest": 3}`, `{"newest": {"note": "aGFsbG8="}}`} {
		damage(filepath.Join(a.state, clientFile), content)
		a.want(exitLocal, check, clientFile+" can't be read", "put it back from a copy")
	}
	if err := os.Remove(filepath.Join(a.state, clientFile)); err != nil {
		t.Fatal(err)
	}
	damage(filepath.Join(alice.home, "session.json"), "x")
	a.want(exitLocal, check, "session.json is damaged", "run 'qpc login'")
	damage(filepath.Join(alice.home, "keys.json"), "{")
	a.want(exitLocal, check, "keys.json is damaged", "--home")
	a.want(exitUsage, []string{"check", strings.Repeat("a", 63)}, "neither a username nor a key of 64 hexadecimal digits")

	for name, content := range map[string]string{
		"empty": "", "text": "no JSON", "list": "[1]", "number": "7", "null": "null", "half": `{"format": "qpc-bun`, "other": `{"format": "else"}`, "nothing": `{}`,
		"bundle": `{"format": "qpc-bundle-v1", "time_ms": "x"}`, "more": `{"format": "qpc-bundle-v1", "zzz": 1}`, "bare": `{"format": "qpc-bundle-v1"}`,
		"evidence": `{"format": "qpc-audit evidence 1", "found": 3}`, "nobody": `{"format": "qpc-audit evidence 1"}`,
	} {
		file := filepath.Join(t.TempDir(), name)
		damage(file, content)
		code, stdout, stderr := call(t, "verify", file)
		if code != exitUnsettled || strings.Count(stderr, "\n") != 1 {
			t.Errorf("verify %s: %d\n%s%s", name, code, stdout, stderr)
		}
		for _, leak := range []string{"json:", "JSON", "Go value", "invalid character", "unmarshal"} {
			if strings.Contains(stderr, leak) {
				t.Errorf("verify %s speaks of the program's inside: %s", name, stderr)
			}
		}
	}
	bad := filepath.Join(t.TempDir(), "ca")
	damage(bad, "no certificate")
	code, stdout, stderr := call(t, "follow", "--once", "--server", a.node.Addr().String(), "--ca-cert", bad, "--state", filepath.Join(t.TempDir(), "s"))
	if code != exitUsage || !strings.Contains(stderr, "--ca-cert") {
		t.Errorf("a CA file that is none: %d\n%s%s", code, stdout, stderr)
	}
}

// TestInterrupted: whoever is interrupted before it has checked anything does not
// say that everything holds.
func TestInterrupted(t *testing.T) {
	a := newAudited(t)
	waiting := make(chan struct{}, 100)
	released := make(chan struct{})
	a.tell(func(_ string, body []byte) []byte {
		waiting <- struct{}{}
		<-released
		return body
	})
	t.Cleanup(func() { close(released) })
	for _, args := range [][]string{{"follow", "--once"}, {"follow"}, {"mirror", filepath.Join(t.TempDir(), "copy")}} {
		ctx, cancel := context.WithCancel(t.Context())
		var out, said bytes.Buffer
		status := make(chan int, 1)
		go func() {
			if args[0] == "follow" {
				args = append(args, "--state", filepath.Join(t.TempDir(), "state"))
			}
			status <- run(ctx, append(args, "--url", a.url), nil, &out, &said)
		}()
		<-waiting
		cancel()
		if code := <-status; code != exitUnsettled || !strings.Contains(said.String(), "interrupted before anything was checked") {
			t.Errorf("%v: %d\n%s%s", args, code, out.String(), said.String())
		}
		released <- struct{}{}
	}
}
