package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/client/seal"
)

// person is somebody with one device and a client for it.
type person struct {
	name             string
	password         []byte
	identity, device ed25519.PrivateKey
	hybrid           *seal.HybridKey
	client           *client.Client
}

// newPerson draws the keys and connects, pinning the CA of a data directory.
func newPerson(ctx context.Context, name, address, dataDir string) (*person, error) {
	ca, err := os.ReadFile(filepath.Join(dataDir, "ca-cert.der"))
	if err != nil {
		return nil, err
	}
	p := &person{name: name, password: []byte(rand.Text())}
	if _, p.identity, err = ed25519.GenerateKey(nil); err != nil {
		return nil, err
	}
	if _, p.device, err = ed25519.GenerateKey(nil); err != nil {
		return nil, err
	}
	var seed [32]byte
	rand.Read(seed[:])
	if p.hybrid, err = seal.NewHybridKey(seed); err != nil {
		return nil, err
	}
	p.client, err = client.Dial(ctx, client.Config{Addr: address, CACert: ca, Attempts: 20})
	return p, err
}

func (p *person) public() ed25519.PublicKey { return p.identity.Public().(ed25519.PublicKey) }

func (p *person) register(ctx context.Context) error {
	_, err := p.client.Register(ctx, client.RegisterParams{
		Username: p.name, Password: p.password,
		IdentityKey: p.identity, DeviceKey: p.device, HybridKey: p.hybrid.Public(),
	})
	if err != nil {
		return fmt.Errorf("register %s: %w", p.name, err)
	}
	return nil
}

func (p *person) logIn(ctx context.Context) error {
	session, err := p.client.Login(ctx, p.name, p.password, p.device)
	if err != nil {
		return fmt.Errorf("log %s in: %w", p.name, err)
	}
	if session.Scope != pb.SessionScope_DEVICE {
		return fmt.Errorf("log %s in: the session is of scope %v", p.name, session.Scope)
	}
	return nil
}

// keySet looks somebody up by name.
func (p *person) keySet(ctx context.Context, name string) (*pb.KeySet, error) {
	user, err := p.client.ResolveUser(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", name, err)
	}
	keys, err := p.client.FetchHybridKey(ctx, &pb.FetchHybridKeyRequest{IdentityKey: user.IdentityKey})
	if err != nil {
		return nil, fmt.Errorf("fetch the key of %s: %w", name, err)
	}
	return keys.Keyset, nil
}

// write seals a text for somebody and makes the request that sends it, with a
// request id, so that it can be repeated.
func (p *person) write(ctx context.Context, to *person, text string) (*pb.EnqueueRequest, error) {
	keys, err := p.keySet(ctx, to.name)
	if err != nil {
		return nil, err
	}
	if !to.public().Equal(ed25519.PublicKey(keys.IdentityKey)) {
		return nil, fmt.Errorf("the server gives another identity key for %s", to.name)
	}
	now := p.client.ServerTime()
	draft := seal.Draft{TimeMS: uint64(now.UnixMilli()), Text: []byte(text)}
	rand.Read(draft.ID[:])
	from := seal.Sender{ServerName: p.client.ServerName(), Username: p.name, IdentityKey: p.public(), Device: p.device}
	payload, err := seal.Seal(from, keys, draft)
	if err != nil {
		return nil, err
	}
	return &pb.EnqueueRequest{
		RequestId: newRequestID(now),
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: to.public()},
		Payload:   payload,
	}, nil
}

// read opens a payload and checks that its author is who it says.
func (p *person) read(ctx context.Context, author string, payload []byte) (string, error) {
	content, err := seal.Open(p.client.ServerName(), p.public(), []*seal.HybridKey{p.hybrid}, payload)
	if err != nil {
		return "", fmt.Errorf("open: %w", err)
	}
	if content.Sender != author {
		return "", fmt.Errorf("the message says that it is from %q", content.Sender)
	}
	keys, err := p.keySet(ctx, author)
	if err != nil {
		return "", err
	}
	if err := seal.VerifySender(content, keys); err != nil {
		return "", fmt.Errorf("signature: %w", err)
	}
	return string(content.Plaintext), nil
}

// fetchOne reads the queue, which must hold exactly one message and no gap.
func (p *person) fetchOne(ctx context.Context) (*pb.Envelope, error) {
	page, err := p.client.Fetch(ctx, &pb.FetchRequest{AfterSeq: afterSeq(0)})
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	if len(page.Envelopes) != 1 || page.More || page.Gap != nil {
		return nil, fmt.Errorf("%s's queue holds %d messages (more: %v, gap: %v) instead of one", p.name, len(page.Envelopes), page.More, page.Gap)
	}
	return page.Envelopes[0], nil
}

// confirm tells the server that everything up to seq was processed; nothing
// may follow it.
func (p *person) confirm(ctx context.Context, seq uint64) error {
	page, err := p.client.Fetch(ctx, &pb.FetchRequest{AfterSeq: afterSeq(seq)})
	if err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	if len(page.Envelopes) != 0 {
		return fmt.Errorf("%s's queue still holds %d messages", p.name, len(page.Envelopes))
	}
	return nil
}

// close may be called on a person who never came to be.
func (p *person) close() {
	if p != nil && p.client != nil {
		_ = p.client.Close()
	}
}
