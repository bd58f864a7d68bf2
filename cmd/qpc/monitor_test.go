package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/server"
	"quicprochat/rpc/sim"
)

// TestLoginMonitorsTheOwnName: what a server says about a person on its own word,
// the person is told at the next login.
func TestLoginMonitorsTheOwnName(t *testing.T) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	node, err := server.Boot(t.Context(), server.Config{Dir: dir, PacketConn: socket, Limits: server.LimitsOff, Version: "test", Logger: slog.New(slog.DiscardHandler)})
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
	liar, err := sim.NewLiar(node, vfs.Default, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { liar.Close() })
	home, password := filepath.Join(t.TempDir(), "home"), filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	qpc := func(want int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		globals := []string{"--server", liar.Addr().String(), "--ca-cert", node.CAFile(), "--home", home}
		if got := run(t.Context(), append(globals, args...), strings.NewReader(""), &out, &out); got != want {
			t.Fatalf("qpc %v: status %d, want %d\n%s", args, got, want, &out)
		}
		return out.String()
	}
	qpc(0, "register", "alice", "--password-file", password)
	login := []string{"login", "--password-file", password}
	var whoami struct {
		Key string `json:"identity_key"`
	}
	if err := json.Unmarshal([]byte(qpc(0, "--json", "whoami")), &whoami); err != nil {
		t.Fatal(err)
	}
	identity, err := decodeHex(whoami.Key, ed25519.PublicKeySize)
	if err != nil {
		t.Fatal(err)
	}
	for word, tell := range map[string]func(*sim.FalseLog){
		"on the word of the server's administrator alone": func(f *sim.FalseLog) {
			f.Bind("alice", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
		},
		"on the server's word": func(f *sim.FalseLog) {
			f.Enter(kt.KindRevocation, identity, &pb.Revocation{Reason: 1, TimeMs: 1, Authority: pb.Authority_ADMINISTRATOR})
		},
	} {
		f, err := liar.Copy()
		if err != nil {
			t.Fatal(err)
		}
		tell(f)
		f.Seal(nil)
		liar.Show(f)
		if err := os.Remove(filepath.Join(home, transparencyFile)); err != nil { // each lie is the first
			t.Fatal(err)
		}
		if said := qpc(exitLocal, login...); !strings.Contains(said, "NOT DONE BY THIS HOME") || !strings.Contains(said, word) {
			t.Errorf("it does not say %q: %s", word, said)
		}
	}
	if _, err := os.Stat(filepath.Join(home, evidenceFolder)); err == nil {
		t.Error("evidence was kept, and there is none")
	}
	document, err := os.ReadFile("../../docs/transparency.md")
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.CheckThreats(string(document), []sim.Told{{Threat: sim.Adds, Test: t.Name(), Found: "not done by this home"}}); err != nil {
		t.Error(err)
	}
}
