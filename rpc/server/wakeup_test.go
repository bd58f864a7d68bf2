package server

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/client"
	"quicprochat/rpc/pake"
	"quicprochat/rpc/transparency"
)

// TestNothingFallsBeforeTheWaiter: a message that is published when a FetchWait has
// its view, and is not registered yet, is in its answer: nobody would wake it.
func TestNothingFallsBeforeTheWaiter(t *testing.T) {
	fs := vfs.NewMem()
	node := bootWitnessed(t, fs, transparency.WitnessPolicy{})
	t.Cleanup(func() {
		if err := node.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	f, err := fs.Open(node.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	alice, err := client.Dial(t.Context(), client.Config{Addr: node.Addr().String(), CACert: ca, KSF: pake.InsecureKSF()})
	if err != nil {
		t.Fatal(err)
	}
	defer alice.Close()
	key := func(of string) ed25519.PrivateKey {
		seed := sha256.Sum256([]byte(of))
		return ed25519.NewKeyFromSeed(seed[:])
	}
	identity, device, password := key("identity"), key("device"), []byte("secret")
	if _, err := alice.Register(t.Context(), client.RegisterParams{Username: "alice", Password: password, IdentityKey: identity, DeviceKey: device}); err != nil {
		t.Fatal(err)
	}
	session, err := alice.Login(t.Context(), "alice", password, device)
	if err != nil {
		t.Fatal(err)
	}

	method, _ := rpc.MethodByName("FetchWait")
	req := &pb.FetchWaitRequest{SessionToken: session.Token, AfterSeq: new(uint64), TimeoutMs: 60_000}
	c := &call{
		server: node.server, service: node.server.service.Load(), request: request{connection: new(connection)},
		method: method, message: req, token: commands.TokenHash(req),
	}
	if err := c.refreshView(); err != nil {
		t.Fatal(err)
	}
	defer c.closeView()
	c.caller = c.view.Caller
	_, err = alice.Enqueue(t.Context(), &pb.EnqueueRequest{
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: identity.Public().(ed25519.PublicKey)}, Payload: []byte("between"),
	})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.fetchWait(t.Context(), req)
	if err != nil || len(resp.GetEnvelopes()) != 1 || string(resp.GetEnvelopes()[0].GetPayload()) != "between" {
		t.Errorf("%v, %v", resp, err)
	}
}
