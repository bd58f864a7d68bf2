package bench

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// Target is a server with one connection, one session and one recipient queue
// for each of the load's connections. Sender and recipient are two accounts: the
// recipients stay away while the load runs, as people who are asleep, and come
// back to have their queues counted.
type Target struct {
	cfg        client.Config
	senders    []*client.Client
	recipients []*account
}

// OpenEcho connects to an echo server, which knows no accounts: the same frames
// are sent under a token that nobody checks.
func OpenEcho(ctx context.Context, cfg client.Config, connections int) (*Target, error) {
	t := &Target{cfg: cfg}
	for range connections {
		c, err := client.Dial(ctx, cfg)
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		c.SetSession(client.Session{Token: make([]byte, 32), Scope: pb.SessionScope_DEVICE})
		t.senders = append(t.senders, c)
		t.recipients = append(t.recipients, &account{identity: make([]byte, ed25519.PublicKeySize)})
	}
	return t, nil
}

// OpenServer connects to a server, registers two accounts per connection under
// random names and logs the sender in. With
// online the recipients are connected, too, so that every message is also pushed
// to one of them. step is told how many connections are ready.
func OpenServer(ctx context.Context, cfg client.Config, connections int, online bool, step func(ready int)) (*Target, error) {
	t := &Target{cfg: cfg}
	for i := range connections {
		if err := t.addPair(ctx, online); err != nil {
			return nil, errors.Join(fmt.Errorf("accounts of connection %d of %d: %w", i+1, connections, err), t.Close())
		}
		step(i + 1)
	}
	return t, nil
}

func (t *Target) addPair(ctx context.Context, online bool) error {
	c, err := client.Dial(ctx, t.cfg)
	if err != nil {
		return err
	}
	t.senders = append(t.senders, c)
	recipient, err := register(ctx, c)
	if err != nil {
		return err
	}
	t.recipients = append(t.recipients, recipient)
	if online {
		if err := recipient.connect(ctx, t.cfg); err != nil {
			return err
		}
	}
	sender, err := register(ctx, c)
	if err != nil {
		return err
	}
	return sender.login(ctx, c)
}

// Enqueue is a Call: one message into the queue of the connection's recipient.
func (t *Target) Enqueue(ctx context.Context, connection int, payload []byte) error {
	_, err := t.senders[connection].Enqueue(ctx, &pb.EnqueueRequest{
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: t.recipients[connection].identity},
		Payload:   payload,
	})
	return err
}

// Stored reads every queue to its end, confirming as it goes, and counts the
// messages: each must have size bytes and a message id of its own.
func (t *Target) Stored(ctx context.Context, size int) (uint64, error) {
	var stored uint64
	for i, recipient := range t.recipients {
		if err := recipient.connect(ctx, t.cfg); err != nil {
			return stored, fmt.Errorf("count queue %d: %w", i, err)
		}
		n, err := countQueue(ctx, recipient.client, size)
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
	for _, c := range t.senders {
		all = errors.Join(all, c.Close())
	}
	for _, recipient := range t.recipients {
		if recipient.client != nil {
			all = errors.Join(all, recipient.client.Close())
		}
	}
	return all
}
