package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// Target is a server with one client, one session and one recipient queue per
// connection: each account sends to its own device, so that every queue is
// written and can be counted by the client that owns it.
type Target struct {
	clients    []*client.Client
	recipients [][]byte
}

// OpenEcho connects to an echo server, which knows no accounts: the same frames
// are sent under a token that nobody checks.
func OpenEcho(ctx context.Context, cfg client.Config, connections int) (*Target, error) {
	t := new(Target)
	for range connections {
		c, err := client.Dial(ctx, cfg)
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		c.SetSession(client.Session{Token: make([]byte, 32), Scope: pb.SessionScope_DEVICE})
		t.clients = append(t.clients, c)
		t.recipients = append(t.recipients, make([]byte, ed25519.PublicKeySize))
	}
	return t, nil
}

// OpenServer connects to a server, registers one account per connection under a
// random name and logs in, with the real password profile. step is told how many
// are ready.
func OpenServer(ctx context.Context, cfg client.Config, connections int, step func(ready int)) (*Target, error) {
	t := new(Target)
	for i := range connections {
		c, err := client.Dial(ctx, cfg)
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		t.clients = append(t.clients, c)
		identity, err := enter(ctx, c)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("account %d of %d: %w", i+1, connections, err), t.Close())
		}
		t.recipients = append(t.recipients, identity)
		step(i + 1)
	}
	return t, nil
}

// enter registers an account and logs in; it returns the identity key.
func enter(ctx context.Context, c *client.Client) (ed25519.PublicKey, error) {
	random := make([]byte, 10)
	_, _ = rand.Read(random) // never fails, by its documentation
	name, password := "bench-"+hex.EncodeToString(random), []byte(rand.Text())
	identity, identityKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	_, deviceKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	if _, err := c.Register(ctx, client.RegisterParams{Username: name, Password: password, IdentityKey: identityKey, DeviceKey: deviceKey}); err != nil {
		return nil, err
	}
	_, err = c.Login(ctx, name, password, deviceKey)
	return identity, err
}

// Enqueue is a Call: one message into the queue of the connection's own account.
func (t *Target) Enqueue(ctx context.Context, connection int, payload []byte) error {
	_, err := t.clients[connection].Enqueue(ctx, &pb.EnqueueRequest{
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: t.recipients[connection]},
		Payload:   payload,
	})
	return err
}

// Stored reads every queue to its end, confirming as it goes, and counts the
// messages: each must have size bytes and a message id of its own.
func (t *Target) Stored(ctx context.Context, size int) (uint64, error) {
	var stored uint64
	for i, c := range t.clients {
		n, err := countQueue(ctx, c, size)
		if err != nil {
			return stored, fmt.Errorf("count queue %d: %w", i, err)
		}
		stored += n
	}
	return stored, nil
}

func countQueue(ctx context.Context, c *client.Client, size int) (uint64, error) {
	var after, found uint64
	ids := map[string]bool{}
	for {
		reply, err := c.Fetch(ctx, &pb.FetchRequest{AfterSeq: &after})
		if err != nil {
			return found, err
		}
		for _, envelope := range reply.GetEnvelopes() {
			if len(envelope.GetPayload()) != size || ids[string(envelope.GetMessageId())] {
				return found, fmt.Errorf("message %d has %d bytes (want %d) or came twice", envelope.GetSeq(), len(envelope.GetPayload()), size)
			}
			ids[string(envelope.GetMessageId())] = true
			after = envelope.GetSeq()
			found++
		}
		if len(reply.GetEnvelopes()) == 0 {
			return found, nil
		}
	}
}

// Close ends all connections.
func (t *Target) Close() error {
	var all error
	for _, c := range t.clients {
		all = errors.Join(all, c.Close())
	}
	return all
}
