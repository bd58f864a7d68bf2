package client_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/pake"
	"quicprochat/rpc/server"
)

// startServer boots a server in a temporary directory and returns how to reach
// it. With cheap password stretching: for examples and tests only.
func startServer() (cfg client.Config, stop func()) {
	dir, err := os.MkdirTemp("", "qpc-example")
	if err != nil {
		log.Fatal(err)
	}
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	node, err := server.Boot(ctx, server.Config{Dir: dir + "/data", PacketConn: socket, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	ca, err := os.ReadFile(node.CAFile())
	if err != nil {
		log.Fatal(err)
	}
	cfg = client.Config{Addr: node.Addr().String(), CACert: ca, KSF: pake.InsecureKSF()}
	return cfg, func() {
		node.Shutdown(ctx)
		os.RemoveAll(dir)
	}
}

// join registers somebody with new keys and logs in.
func join(ctx context.Context, cfg client.Config, name string) (*client.Client, ed25519.PublicKey, error) {
	c, err := client.Dial(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	identityKey, identity, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, nil, err
	}
	_, device, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, nil, err
	}
	password := []byte("correct horse battery staple")
	_, err = c.Register(ctx, client.RegisterParams{
		Username: name, Password: password, IdentityKey: identity, DeviceKey: device,
	})
	if err != nil {
		return nil, nil, err
	}
	_, err = c.Login(ctx, name, password, device)
	return c, identityKey, err
}

func Example() {
	cfg, stop := startServer()
	defer stop()
	ctx := context.Background()

	alice, _, err := join(ctx, cfg, "alice")
	if err != nil {
		log.Fatal(err)
	}
	defer alice.Close()
	bob, _, err := join(ctx, cfg, "bob")
	if err != nil {
		log.Fatal(err)
	}
	defer bob.Close()

	// Alice finds Bob and leaves something in his queue. A real client seals it
	// first: package rpc/client/seal, or MLS.
	who, err := alice.ResolveUser(ctx, "Bob")
	if err != nil {
		log.Fatal(err)
	}
	_, err = alice.Enqueue(ctx, &pb.EnqueueRequest{
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: who.IdentityKey},
		Payload:   []byte("ciphertext"),
	})
	if err != nil {
		log.Fatal(err)
	}

	// Bob reads from where he stopped, and with the next call confirms it.
	var done uint64
	page, err := bob.Fetch(ctx, &pb.FetchRequest{AfterSeq: &done})
	if err != nil {
		log.Fatal(err)
	}
	for _, envelope := range page.Envelopes {
		fmt.Printf("message %d for %s: %s\n", envelope.Seq, who.Username, envelope.Payload)
		done = envelope.Seq
	}
	page, err = bob.Fetch(ctx, &pb.FetchRequest{AfterSeq: &done})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(page.Envelopes), "left")

	// Output:
	// message 1 for bob: ciphertext
	// 0 left
}

func ExampleClient_Subscribe() {
	cfg, stop := startServer()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	alice, identity, err := join(ctx, cfg, "alice")
	if err != nil {
		log.Fatal(err)
	}
	defer alice.Close()

	pushes := alice.Subscribe(ctx)
	first := <-pushes // a resync: from here on the server knows whose this connection is
	fmt.Println("resync:", first.NewMessage.Resync)

	_, err = alice.Enqueue(ctx, &pb.EnqueueRequest{
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: identity},
		Payload:   []byte("note to self"),
	})
	if err != nil {
		log.Fatal(err)
	}
	push := <-pushes
	fmt.Printf("%s: %s\n", push.Type, push.NewMessage.Payload)

	// Output:
	// resync: true
	// NEW_MESSAGE: note to self
}

func ExampleStatusError() {
	cfg, stop := startServer()
	defer stop()
	ctx := context.Background()
	alice, _, err := join(ctx, cfg, "alice")
	if err != nil {
		log.Fatal(err)
	}
	defer alice.Close()

	_, err = alice.ResolveUser(ctx, "nobody")
	var status *client.StatusError
	if errors.As(err, &status) {
		fmt.Println(status.Status, status.Reason)
	}

	// Output: NotFound NO_SUCH_USER
}
