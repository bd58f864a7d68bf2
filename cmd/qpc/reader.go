package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/client/seal"
)

// reader opens, checks and shows messages of one home.
type reader struct {
	app      *app
	home     *home
	keys     *keys
	identity ed25519.PublicKey
	pairs    []*seal.HybridKey
	client   *client.Client
	inbox    *inbox
	// people met in this run: a name is resolved once, and again when a device
	// signs that the KeySet at hand does not list.
	people map[string]*person
	// shown is who wrote the message shown last.
	shown string
}

// rejection: a message that will never be shown.
type rejection struct{ cause error }

func (r *rejection) Error() string { return r.cause.Error() }
func (r *rejection) Unwrap() error { return r.cause }

// show opens a payload, checks its sender and prints it. Errors: *rejection,
// errKeyChanged, or what kept it from being judged.
func (r *reader) show(ctx context.Context, payload []byte) error {
	content, err := seal.Open(r.client.ServerName(), r.identity, r.pairs, payload)
	if err != nil {
		return &rejection{err}
	}
	from, err := r.sender(ctx, content)
	if err != nil {
		return err
	}
	if !r.inbox.note(messageName(content.GetId())) {
		return nil
	}
	r.greet(from)
	r.shown = from.name
	sent := time.UnixMilli(int64(content.GetTimeMs()))
	if id := content.GetChannelId(); len(id) > 0 {
		if note, is := parseChannelNote(content.GetPlaintext()); is {
			return r.showNote(from, id, note, sent)
		}
		return r.app.print(map[string]any{
			"channel": hex.EncodeToString(id), "channel_name": r.channelName(id), "from": from.name,
			"text": string(content.GetPlaintext()), "id": messageName(content.GetId()), "time_ms": content.GetTimeMs(),
		}, "[%s] #%s %s: %s", sent.Local().Format(time.DateTime), r.channelName(id), from.name, printable(content.GetPlaintext()))
	}
	return r.app.print(map[string]any{
		"from": from.name, "text": string(content.GetPlaintext()), "id": messageName(content.GetId()), "time_ms": content.GetTimeMs(),
	}, "[%s] %s: %s", sent.Local().Format(time.DateTime), from.name, printable(content.GetPlaintext()))
}

// greet tells once whose key was remembered just now.
func (r *reader) greet(from *person) {
	if from.isNew && !r.app.JSON {
		fmt.Fprintf(r.app.stderr, "First message from %s: remembering identity key %s\n", from.name, fingerprint(from.keyset.GetIdentityKey()))
	}
	from.isNew = false
}

// isRejection tells what will never be believed, or only after the person decided,
// from what could not be judged now.
func isRejection(err error) bool {
	var rejected *rejection
	return errors.As(err, &rejected) || errors.Is(err, errKeyChanged)
}

// sender finds the person who claims to have written and checks the claim.
func (r *reader) sender(ctx context.Context, content *pb.SealedContent) (*person, error) {
	from, known := r.people[content.GetSender()]
	if !known || from.verify(content) != nil {
		met, err := r.home.meet(ctx, r.client, content.GetSender())
		switch {
		case isReason(err, pb.Reason_NO_SUCH_USER), isReason(err, pb.Reason_NO_SUCH_KEY), isReason(err, pb.Reason_USERNAME_INVALID), isUsage(err):
			return nil, &rejection{fmt.Errorf("it claims to come from %q: %w", content.GetSender(), err)}
		case err != nil:
			return nil, err
		}
		from = met
		r.people[content.GetSender()] = met
	}
	if err := from.verify(content); err != nil {
		return nil, &rejection{fmt.Errorf("it claims to come from %s: %w", from.name, err)}
	}
	if from.name == r.keys.Username { // nobody to be met: the identity is at hand
		if !bytes.Equal(from.keyset.GetIdentityKey(), r.identity) {
			return nil, &rejection{errors.New("it claims to come from this account, and does not")}
		}
		from.isNew = false
	}
	return from, nil
}

// verify checks that one of the person's devices signed that is not revoked.
func (p *person) verify(content *pb.SealedContent) error {
	if err := seal.VerifySender(content, p.keyset); err != nil {
		return err
	}
	for _, device := range p.devices {
		if bytes.Equal(device, content.GetSenderDeviceKey()) {
			return nil
		}
	}
	return errors.New("the device that signed it was revoked")
}

func isUsage(err error) bool {
	var coded *exitError
	return errors.As(err, &coded) && coded.status == exitUsage
}

// hold keeps a payload whose sender's key changed until the person decides.
func (r *reader) hold(envelope *pb.Envelope) error {
	folder := r.home.path(heldFolder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	return replaceFile(filepath.Join(folder, messageName(envelope.GetMessageId())), envelope.GetPayload())
}

// showHeld tries held messages again; those whose sender is trusted by now are
// shown and removed.
func (r *reader) showHeld(ctx context.Context) error {
	entries, err := os.ReadDir(r.home.path(heldFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := filepath.Join(r.home.path(heldFolder), entry.Name())
		payload, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		err = r.show(ctx, payload)
		var rejected *rejection
		switch {
		case errors.Is(err, errKeyChanged):
			r.warn("a message is still held back: %v", err)
			continue
		case errors.As(err, &rejected):
			r.warn("a held message is not shown: %v", rejected)
		case err != nil:
			return err
		}
		if err := errors.Join(r.home.save(inboxFile, r.inbox), os.Remove(name)); err != nil {
			return err
		}
	}
	return nil
}
