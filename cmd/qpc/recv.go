package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/client/seal"
)

type recvCommand struct {
	Follow bool `short:"f" help:"Go on showing what comes, until interrupted."`
}

func (recvCommand) Help() string {
	return "Fetches this device's queue, opens each message, and shows it only after its signature was checked against the sender's key. What was shown is confirmed to the server, which then forgets it."
}

// pageItems is how many messages are fetched at once; what was shown is noted
// and confirmed per page.
const pageItems = 64

// waitMS is how long one poll of --follow waits at the server.
const waitMS = 60_000

// Run reads the queue to its end, and with --follow stays.
func (cmd recvCommand) Run(ctx context.Context, a *app) error {
	h, k, c, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	defer h.lockInbox()()
	r, err := newReader(a, h, k, c)
	if err != nil {
		return err
	}
	if err := r.showHeld(ctx); err != nil {
		return err
	}
	if err := r.drain(ctx); err != nil || !cmd.Follow {
		return interrupted(ctx, err)
	}
	return interrupted(ctx, r.follow(ctx))
}

// interrupted makes an end by the person's own Ctrl-C a clean one.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// page is what Fetch and FetchWait have in common.
type page interface {
	GetEnvelopes() []*pb.Envelope
	GetMore() bool
	GetGap() *pb.Gap
}

// drain reads pages until the queue is empty; the last, empty answer confirms
// what was shown before it.
func (r *reader) drain(ctx context.Context) error {
	for {
		reply, err := r.client.Fetch(ctx, &pb.FetchRequest{AfterSeq: &r.inbox.AfterSeq, MaxItems: pageItems})
		if err != nil {
			return err
		}
		if err := r.showPage(ctx, reply); err != nil {
			return err
		}
		if len(reply.GetEnvelopes()) == 0 && reply.GetGap() == nil {
			return nil
		}
	}
}

// follow waits for messages. Another qpc that follows the same device takes
// over; this one then stops instead of taking it back.
func (r *reader) follow(ctx context.Context) error {
	for {
		reply, err := r.client.FetchWait(ctx, &pb.FetchWaitRequest{AfterSeq: &r.inbox.AfterSeq, MaxItems: pageItems, TimeoutMs: waitMS})
		if err != nil {
			return err
		}
		if reply.GetSuperseded() {
			return errors.New("another 'recv --follow' of this device took over")
		}
		if err := r.showPage(ctx, reply); err != nil {
			return err
		}
	}
}

// showPage shows the messages of a page in order and then notes how far it got,
// also when one of them stopped it.
func (r *reader) showPage(ctx context.Context, p page) (err error) {
	before := r.inbox.AfterSeq
	defer func() {
		if r.inbox.AfterSeq != before {
			err = errors.Join(err, r.home.save(inboxFile, r.inbox))
		}
	}()
	if gap := p.GetGap(); gap != nil {
		r.warn("%d messages for this device were lost: the queue was full, or they were not fetched in time", gap.GetCount())
	}
	for _, envelope := range p.GetEnvelopes() {
		if err := r.take(ctx, envelope); err != nil {
			return err
		}
		r.inbox.AfterSeq = envelope.GetSeq()
	}
	if len(p.GetEnvelopes()) == 0 && p.GetGap() != nil {
		r.inbox.AfterSeq = max(r.inbox.AfterSeq, p.GetGap().GetUpToSeq())
	}
	return nil
}

// take shows one envelope, or reports why not. An error means that it could not
// be judged now (no connection, rate limit) and stays in the queue.
func (r *reader) take(ctx context.Context, envelope *pb.Envelope) error {
	if item := envelope.GetControl(); item != nil {
		return r.notice(item)
	}
	r.shown = ""
	if envelope.GetChannelSeq() > 0 {
		return r.showPost(envelope)
	}
	err := r.open(ctx, envelope.GetPayload())
	var rejected *rejection
	switch {
	case errors.Is(err, errKeyChanged):
		r.warn("message %d is held back: %v", envelope.GetSeq(), err)
		return r.hold(envelope)
	case errors.As(err, &rejected):
		r.warn("message %d is not shown: %v", envelope.GetSeq(), rejected)
		return nil
	case err != nil:
		return err
	}
	return r.noteReportable(r.shown, envelope)
}

// open takes a payload for what it is: a message, or keys from another device of
// this account.
func (r *reader) open(ctx context.Context, payload []byte) error {
	if !seal.IsSecrets(payload) {
		return r.show(ctx, payload)
	}
	unlock := r.home.lock()
	defer unlock()
	fresh, err := r.home.keys() // another command may have changed them
	if err != nil {
		return err
	}
	r.keys = fresh
	if err := r.home.takeSecrets(ctx, r.client, r.keys, payload); err != nil {
		return err
	}
	pairs, err := r.keys.hybrid()
	if err != nil {
		return err
	}
	r.pairs = pairs
	return r.app.print(map[string]any{"control": "keys_received"}, "Another device of this account handed over its keys.")
}

func (r *reader) warn(format string, args ...any) {
	fmt.Fprintf(r.app.stderr, "qpc: "+format+"\n", args...)
}

// newReader loads what reading needs.
func newReader(a *app, h *home, k *keys, c *client.Client) (*reader, error) {
	pairs, err := k.hybrid()
	if err != nil {
		return nil, err
	}
	read, err := h.inbox()
	if err != nil {
		return nil, err
	}
	return &reader{app: a, home: h, keys: k, identity: identityOf(k), pairs: pairs, client: c, inbox: read, people: map[string]*person{}}, nil
}

func messageName(id []byte) string { return hex.EncodeToString(id) }
