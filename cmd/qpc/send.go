package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/client/seal"
)

type sendCommand struct {
	To   string        `arg:"" help:"Username of the recipient."`
	Text string        `arg:"" help:"The message; '-' reads it from stdin."`
	TTL  time.Duration `name:"ttl" default:"720h" help:"Drop it unread after this time; at most 720h (30 days)."`
}

func (sendCommand) Help() string {
	return "Seals the text for the recipient's hybrid key, signs it with this device's key and queues it. When it returns, the message is on the server's disk."
}

// Run seals one message and queues it for every device of the recipient.
func (cmd sendCommand) Run(ctx context.Context, a *app) error {
	if cmd.TTL < time.Second || cmd.TTL > 720*time.Hour {
		return usageError("--ttl %s: use 1s to 720h", cmd.TTL)
	}
	text, err := cmd.text(a)
	if err != nil {
		return err
	}
	h, k, c, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	to, err := h.meet(ctx, c, cmd.To)
	if err != nil {
		return err
	}
	if to.isNew && !a.JSON {
		fmt.Fprintf(a.stderr, "First message to %s: remembering identity key %s\n", to.name, fingerprint(to.keyset.GetIdentityKey()))
	}
	if to.rotationDue {
		fmt.Fprintf(a.stderr, "qpc: a device that %s no longer has may be able to read this, until %s publishes another key\n", to.name, to.name)
	}
	request := c.NewRequestID()
	reply, err := sealAndSend(ctx, c, k, to, text, cmd.TTL, request)
	if err != nil {
		return err
	}
	if err := h.noteSent(reply.GetMessageId(), request, time.Now()); err != nil {
		return fmt.Errorf("sent to %s (message %x), but its receipt can't be asked for later: %w", to.name, reply.GetMessageId(), err)
	}
	return a.print(map[string]any{"to": to.name, "message_id": hex.EncodeToString(reply.GetMessageId()), "server_time_ms": reply.GetServerTimeMs()},
		"Sent to %s (message %x).", to.name, reply.GetMessageId())
}

// text is the message. One without a byte is an accident: a variable that was not set,
// a program before the pipe that failed.
func (cmd sendCommand) text(a *app) ([]byte, error) {
	if cmd.Text == "" {
		return nil, usageError("the message is empty")
	}
	if cmd.Text != "-" {
		return []byte(cmd.Text), nil
	}
	text, err := io.ReadAll(io.LimitReader(a.stdin, seal.MaxPlaintext+1))
	switch {
	case err != nil:
	case len(text) > seal.MaxPlaintext:
		err = usageError("the text on stdin is longer than %d bytes", seal.MaxPlaintext)
	case len(text) == 0:
		err = usageError("the message on stdin is empty")
	}
	return text, err
}

func sealAndSend(ctx context.Context, c *client.Client, k *keys, to *person, text []byte, ttl time.Duration, request []byte) (*pb.EnqueueResponse, error) {
	draft := seal.Draft{TimeMS: uint64(c.ServerTime().UnixMilli()), Text: text}
	_, _ = rand.Read(draft.ID[:]) // never fails, by its documentation
	payload, err := seal.Seal(seal.Sender{
		ServerName: c.ServerName(), Username: k.Username, IdentityKey: identityOf(k), Device: k.device(),
	}, to.keyset, draft)
	if err != nil {
		return nil, err
	}
	return c.Enqueue(ctx, &pb.EnqueueRequest{
		RequestId: request,
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: to.keyset.GetIdentityKey()},
		Payload:   payload,
		TtlS:      uint32(ttl / time.Second),
	})
}
