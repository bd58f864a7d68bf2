package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// demoTime is the longest that a demonstration may take.
const demoTime = 30 * time.Second

// demoText is what Alice writes.
const demoText = "Hello Bob, this survives a kill -9."

// demonstration is one run. Every step ends with an error on any deviation from
// what it tells.
type demonstration struct {
	out    io.Writer
	folder string
	step   int

	server     *child
	alice, bob *person
	request    *pb.EnqueueRequest // what Alice sends, and sends again
	messageID  []byte             // what the server called it
}

// run tells the story in a temporary folder.
func (c *demoCommand) run(ctx context.Context, p *process) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, demoTime)
	defer cancel()
	folder, err := os.MkdirTemp("", "quicprochat-demo-")
	if err != nil {
		return &coded{exitFailure, fmt.Errorf("no temporary folder for the demo: set TMPDIR to one that is writable (%w)", err)}
	}
	d := &demonstration{out: p.stdout, folder: folder}
	defer func() {
		err = errors.Join(err, d.close(c.Keep))
	}()
	start := time.Now()
	if err := d.tell(ctx); err != nil {
		return &coded{exitFailure, d.deviation(err)}
	}
	d.say("\nEvery step held (%.1f s).\n", time.Since(start).Seconds())
	return nil
}

// tell runs the steps in order.
func (d *demonstration) tell(ctx context.Context) error {
	d.say("quicprochat demo: two people, one server, one kill -9, and proofs.\n")
	for _, step := range []func(context.Context) error{
		d.startServer, d.register, d.logIn, d.send, d.kill, d.restart, d.sendAgain, d.receive, d.lookUp, d.receipt, d.stop, d.prove,
	} {
		d.step++
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demonstration) say(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

// title begins a step in the narration, note says what came of it.
func (d *demonstration) title(format string, args ...any) {
	d.say("\n%2d. %s\n", d.step, fmt.Sprintf(format, args...))
}

func (d *demonstration) note(format string, args ...any) {
	d.say("    %s\n", fmt.Sprintf(format, args...))
}

// deviation is the error of a run, with what the server said last.
func (d *demonstration) deviation(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("it took longer than %v: try again on a machine that is less busy (%w)", demoTime, err)
	}
	if said := d.server.lastWords(); said != "" {
		return fmt.Errorf("demo, step %d: %w\nthe server's log ends with:\n%s", d.step, err, said)
	}
	return fmt.Errorf("demo, step %d: %w", d.step, err)
}

// close leaves nothing behind: no process, no socket, no folder.
func (d *demonstration) close(keep bool) error {
	d.alice.close()
	d.bob.close()
	d.server.kill()
	if keep {
		d.say("The data directory is kept: %s\n", d.dataDir())
		return nil
	}
	return os.RemoveAll(d.folder)
}

func (d *demonstration) dataDir() string { return filepath.Join(d.folder, "data") }

func (d *demonstration) startServer(ctx context.Context) (err error) {
	d.title("A server starts in an empty folder, as a process of its own.")
	d.server, err = startSelf(ctx, d.dataDir(), "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.note("process %d made keys, certificates and a log in %s", d.server.pid(), d.dataDir())
	d.note("and listens on UDP %s (QUIC, TLS 1.3, ALPN qpc)", d.server.address)
	return nil
}

func (d *demonstration) register(ctx context.Context) (err error) {
	d.title("Alice and Bob register over QUIC.")
	if d.alice, err = newPerson(ctx, "alice", d.server.address, d.dataDir()); err != nil {
		return err
	}
	if d.bob, err = newPerson(ctx, "bob", d.server.address, d.dataDir()); err != nil {
		return err
	}
	for _, p := range []*person{d.alice, d.bob} {
		if err := p.register(ctx); err != nil {
			return err
		}
		d.note("%-5s identity key %x…, password by OPAQUE: the server never sees it", p.name, p.public()[:8])
	}
	return nil
}

func (d *demonstration) logIn(ctx context.Context) error {
	d.title("They log in; each device gets a session.")
	for _, p := range []*person{d.alice, d.bob} {
		if err := p.logIn(ctx); err != nil {
			return err
		}
	}
	d.note("both sessions are events in the log, so they will outlive the process")
	return nil
}

func (d *demonstration) send(ctx context.Context) (err error) {
	d.title("Alice writes to Bob: %q", demoText)
	d.request, err = d.alice.write(ctx, d.bob, demoText)
	if err != nil {
		return err
	}
	if bytes.Contains(d.request.Payload, []byte(demoText[:8])) {
		return errors.New("the payload shows the text")
	}
	resp, err := d.alice.client.Enqueue(ctx, d.request)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	d.messageID = resp.MessageId
	d.note("sealed on her device to %d bytes that only Bob's key opens", len(d.request.Payload))
	d.note("the server answered Ok: message %x is on the disk", d.messageID)
	return nil
}

func (d *demonstration) kill(context.Context) error {
	d.title("kill -9: the server has no time for anything.")
	killed, err := d.server.kill()
	if err != nil {
		return err
	}
	d.note("process %d: %s", d.server.pid(), killed)
	return nil
}

func (d *demonstration) restart(ctx context.Context) error {
	d.title("It starts again on the same folder.")
	begin := time.Now()
	server, err := startSelf(ctx, d.dataDir(), d.server.address)
	if err != nil {
		return err
	}
	d.server = server
	d.note("process %d recovered the log, checked it against its anchor and listens after %d ms",
		server.pid(), time.Since(begin).Milliseconds())
	return nil
}

func (d *demonstration) sendAgain(ctx context.Context) error {
	d.title("Alice is not sure that her message went out and sends the same request again.")
	resp, err := d.alice.client.Enqueue(ctx, d.request)
	if err != nil {
		return fmt.Errorf("repeat: %w", err)
	}
	if !bytes.Equal(resp.MessageId, d.messageID) {
		return fmt.Errorf("the repeated request made a second message, %x beside %x", resp.MessageId, d.messageID)
	}
	d.note("same request id, same answer: message %x, not a second one", resp.MessageId)
	return nil
}

func (d *demonstration) receive(ctx context.Context) error {
	d.title("Bob fetches, with the session from before the kill.")
	envelope, err := d.bob.fetchOne(ctx)
	if err != nil {
		return err
	}
	if !bytes.Equal(envelope.MessageId, d.messageID) || !bytes.Equal(envelope.Payload, d.request.Payload) {
		return fmt.Errorf("message %x arrived, not the %x that was sent", envelope.MessageId, d.messageID)
	}
	text, err := d.bob.read(ctx, d.alice.name, envelope.Payload)
	if err != nil {
		return err
	}
	if text != demoText {
		return fmt.Errorf("the message reads %q", text)
	}
	d.note("exactly one message, byte for byte; opened and its signature checked:")
	d.note("%q", text)
	if err := d.bob.confirm(ctx, envelope.Seq); err != nil {
		return err
	}
	d.note("he confirms it; his queue is empty, and the server drops the ciphertext")
	return nil
}

func (d *demonstration) lookUp(ctx context.Context) error {
	d.title("Alice asks who Bob is, and believes nothing that is not proved.")
	answer, err := d.alice.client.ProveUser(ctx, d.bob.name, true)
	if err != nil {
		return fmt.Errorf("look-up: %w", err)
	}
	identity := answer.Person.Identity
	switch {
	case !answer.Person.Exists() || !d.bob.public().Equal(ed25519.PublicKey(identity.Key)):
		return errors.New("the log names another key for Bob")
	case identity.Revocation != nil || len(identity.DeviceKeys()) != 1:
		return errors.New("the log says that a key of Bob's is revoked")
	}
	d.note("in the log of %s, %d records: his identity key, his KeySet version %d,", answer.Head.Origin, answer.Head.Size, identity.KeySet.GetVersion())
	d.note("that there is nothing newer, and that none of his keys is revoked")
	d.note("the log continues the one that Alice saw before the kill")
	return nil
}

func (d *demonstration) receipt(ctx context.Context) error {
	d.title("She asks for the receipt of her message.")
	r, err := d.alice.client.MessageReceipt(ctx, d.messageID, d.request.RequestId)
	if err != nil {
		return fmt.Errorf("receipt: %w", err)
	}
	if err := checkPayloadHash(d.request.Payload, r.Event.GetMessageEnqueued().GetPayloadSha256()); err != nil {
		return err
	}
	d.note("record %d, under a checkpoint of %d records that the server signed: it can't deny it", r.Index, r.Checkpoint.Size)
	return nil
}

func (d *demonstration) stop(ctx context.Context) error {
	d.title("SIGTERM: this time the server may tidy up.")
	if err := d.server.stop(ctx); err != nil {
		return err
	}
	d.note("process %d ended with exit code 0", d.server.pid())
	return nil
}

func (d *demonstration) prove(ctx context.Context) error {
	d.title("The stopped log is opened: is the message's event in its Merkle tree?")
	p, err := proveMessage(ctx, d.dataDir(), d.messageID)
	if err != nil {
		return err
	}
	sum := p.event.GetMessageEnqueued().GetPayloadSha256()
	if err := checkPayloadHash(d.request.Payload, sum); err != nil {
		return err
	}
	d.note("record %d of %d tells of message %x and of the SHA-256 of what Alice sent", p.index, p.size, d.messageID)
	d.note("its leaf shows nobody more than a commitment: %x…", p.leaf[1:9])
	d.note("commitment + %d hashes lead to the root that the anchor keeps: %x…", len(p.path), p.root[:8])
	d.note("with one bit of the event changed they do not")
	return nil
}

// newRequestID makes a UUIDv7 (RFC 9562) of the given time.
func newRequestID(now time.Time) []byte {
	id := make([]byte, 16)
	rand.Read(id)
	for i, ms := 5, now.UnixMilli(); i >= 0; i-- {
		id[i] = byte(ms)
		ms >>= 8
	}
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// afterSeq is an optional field's value.
func afterSeq(seq uint64) *uint64 { return proto.Uint64(seq) }
