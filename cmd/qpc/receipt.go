package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"time"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

type receiptCommand struct {
	What    string `arg:"" help:"Message id, as 'qpc send' printed it (32 hexadecimal digits), or the index of a record of the log."`
	Request string `placeholder:"ID" help:"Request id of the message (32 hexadecimal digits), for one that another program sent. Default: the one that this home remembers."`
	Wait    bool   `help:"Wait until a checkpoint covers it, which takes a minute at most."`
}

func (receiptCommand) Help() string {
	return `Proves that a message which this home sent within the last day is a record of the server's log, under a checkpoint that the server has signed and that continues what this home saw before: the server can't deny the message later, nor take it out. What it shows is checked here. A message is covered by the next checkpoint; before that the answer is "pending", with exit status 75. The server answers 20 times a day.

By index anybody may look at a record; what is in it is told only to who did it.`
}

// Run proves one record and prints it.
func (cmd receiptCommand) Run(ctx context.Context, a *app) error {
	index, message, err := cmd.what()
	if err != nil {
		return err
	}
	h, _, c, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	ask := func() (*kt.Receipt, error) { return c.Receipt(ctx, index) }
	if message != nil {
		request, err := cmd.request(h, message)
		if err != nil {
			return err
		}
		ask = func() (*kt.Receipt, error) { return c.MessageReceipt(ctx, message, request) }
	}
	for {
		r, err := ask()
		var pending *client.PendingError
		switch {
		case err == nil && a.JSON:
			return a.print(receiptObject(r), "")
		case err == nil:
			return describeReceipt(a.stdout, r)
		case !errors.As(err, &pending):
			return err
		case !cmd.Wait:
			return a.pending(pending)
		}
		select {
		case <-time.After(pending.RetryAfter):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// what reads the argument: an index, or a message id.
func (cmd receiptCommand) what() (index uint64, message []byte, err error) {
	if message, err = decodeHex(cmd.What, 16); err == nil {
		return 0, message, nil
	}
	if index, err = strconv.ParseUint(cmd.What, 10, 64); err != nil {
		return 0, nil, usageError("%q is neither a message id (32 hexadecimal digits) nor an index", cmd.What)
	}
	return index, nil, nil
}

// request is the request id under which a message was sent.
func (cmd receiptCommand) request(h *home, message []byte) ([]byte, error) {
	if cmd.Request != "" {
		id, err := decodeHex(cmd.Request, 16)
		if err != nil {
			return nil, usageError("--request: %w", err)
		}
		return id, nil
	}
	sent, err := h.sent()
	if err != nil {
		return nil, err
	}
	known, found := sent[hex.EncodeToString(message)]
	if !found {
		return nil, usageError("this home (%s) remembers no message %x of the last day: give its request id with --request, or its index", h.dir, message)
	}
	return known.RequestID, nil
}

// pending says that there is no receipt yet.
func (a *app) pending(p *client.PendingError) error {
	if a.JSON {
		if err := a.print(map[string]any{"pending": true, "retry_after_ms": p.RetryAfter.Milliseconds()}, ""); err != nil {
			return err
		}
	}
	return &exitError{exitPending, fmt.Errorf("pending: %w, or use --wait", p)}
}

// describeReceipt prints a receipt for a person.
func describeReceipt(out io.Writer, r *kt.Receipt) error {
	text := fmt.Sprintf("Proved: record %d is in the log of %s.\n", r.Index, r.Checkpoint.Origin)
	text += fmt.Sprintf("leaf          %x\n", r.Leaf)
	text += fmt.Sprintf("checkpoint    %d records, root %s; %d hashes lead there\n",
		r.Checkpoint.Size, base64.StdEncoding.EncodeToString(r.Checkpoint.Root[:]), len(r.Path))
	if r.Event == nil {
		text += "What the record holds is told to nobody but who did it.\n"
	} else {
		at := time.UnixMilli(int64(r.Event.GetTimeMs())).Local().Format(time.DateTime)
		text += fmt.Sprintf("committed to  %s at %s\n", eventName(r.Event), at)
		if m := r.Event.GetMessageEnqueued(); m != nil {
			text += fmt.Sprintf("message       %x: %d bytes with SHA-256 %x\n", m.GetMessageId(), m.GetPayloadSize(), m.GetPayloadSha256())
		}
	}
	_, err := io.WriteString(out, text)
	return err
}

func eventName(ev *pb.Event) string {
	m := ev.ProtoReflect()
	return string(m.WhichOneof(m.Descriptor().Oneofs().ByName("body")).Message().Name())
}

// receiptObject is a receipt for programs, with all that it takes to check it
// again: note, leaf, path, opening and event are in base64.
func receiptObject(r *kt.Receipt) map[string]any {
	object := map[string]any{
		"index": r.Index, "origin": r.Checkpoint.Origin, "log_size": r.Checkpoint.Size, "root": r.Checkpoint.Root[:],
		"leaf": r.Leaf, "path": r.Path, "note": r.Note,
	}
	if r.Event == nil {
		return object
	}
	object["opening"], object["event"] = r.Opening, r.Raw
	object["event_name"], object["time_ms"] = eventName(r.Event), r.Event.GetTimeMs()
	if m := r.Event.GetMessageEnqueued(); m != nil {
		object["message_id"] = hex.EncodeToString(m.GetMessageId())
		object["payload_sha256"] = hex.EncodeToString(m.GetPayloadSha256())
	}
	return object
}

// sentFile remembers under which request each message was sent: only with it can
// its receipt be asked for, and only as long as the server keeps that.
const sentFile = "sent.json"

// sentKept is how long: a day beyond the request's time, and some more.
const sentKept = 48 * time.Hour

type sentMessage struct {
	RequestID []byte `json:"request_id"`
	TimeMS    int64  `json:"time_ms"`
}

// sent are the messages of the last days, by message id in hexadecimal digits.
func (h *home) sent() (map[string]sentMessage, error) {
	all := map[string]sentMessage{}
	if err := h.load(sentFile, &all); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return all, nil
}

// maxSent bounds sentFile; the oldest go first.
const maxSent = 10_000

func (h *home) noteSent(message, request []byte, now time.Time) error {
	defer h.lockPart("sent.lock")()
	all, err := h.sent()
	if err != nil {
		return err
	}
	maps.DeleteFunc(all, func(_ string, m sentMessage) bool { return m.TimeMS < now.Add(-sentKept).UnixMilli() })
	if over := len(all) - maxSent + 1; over > 0 {
		oldest := slices.SortedFunc(maps.Keys(all), func(a, b string) int { return int(all[a].TimeMS - all[b].TimeMS) })
		for _, id := range oldest[:over] {
			delete(all, id)
		}
	}
	all[hex.EncodeToString(message)] = sentMessage{request, now.UnixMilli()}
	return h.save(sentFile, all)
}
