package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quicprochat/commands/datadir"
	"quicprochat/log"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/pake"
)

// kills is how often the server is killed: few in every run, many at night; never
// in a run for the race detector, which the killed program does not have.
func kills() int {
	switch os.Getenv("QPC_TEST_SCALE") {
	case "race":
		return 0
	case "nightly":
		return 1000
	case "release":
		return 10000
	}
	return 10
}

const (
	senders = 6
	// betweenKills is how many messages must have been acknowledged since the
	// last start before the next kill, so that each one strikes under load.
	betweenKills = 30
)

// load is what the clients of a kill test know.
type load struct {
	t         *testing.T
	receiver  *person
	acked     atomic.Int64
	stop      chan struct{} // closed: senders finish the message at hand
	stopOnce  sync.Once
	wg        sync.WaitGroup
	errs      chan error
	perSender [senders]uint64 // acknowledged; read after wg
	// What the receiver got, in order.
	received []*pb.Envelope
}

// TestKillUnderLoad kills the real program with SIGKILL again and again while
// clients send and receive. Clients repeat unanswered requests under their
// request ids. In the end every acknowledged message has arrived exactly once,
// in the order of its sender, and the log tells the same.
func TestKillUnderLoad(t *testing.T) {
	if kills() == 0 {
		return
	}
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d, %d kills", seed, kills())
	rng := rand.New(rand.NewPCG(seed, 1))
	dir := filepath.Join(t.TempDir(), "data")
	server := serverProcess(t, "--data-dir", dir, "--listen", lastingAddress(t), "--limits", "off")
	l := startLoad(t, server.address, dir)
	for n := range kills() {
		l.awaitProgress(server)
		time.Sleep(time.Duration(rng.IntN(20_000)) * time.Microsecond)
		if _, err := server.kill(); err != nil {
			t.Fatalf("kill %d: %v", n, err)
		}
		server = serverProcess(t, "--data-dir", dir, "--listen", server.address, "--limits", "off", "--no-create")
	}
	l.awaitProgress(server)
	l.finish()
	t.Logf("%d messages acknowledged, %d received", l.acked.Load(), len(l.received))
	if err := checkReceived(l.received, l.perSender); err != nil {
		t.Error(err)
	}
	stopCleanly(t, server)
	l.checkLog(dir)
	checkViewsRebuild(t, dir, server.address)
}

// startLoad registers the receiver and the senders, and sets them going.
func startLoad(t *testing.T, address, dataDir string) *load {
	t.Helper()
	l := &load{t: t, stop: make(chan struct{}), errs: make(chan error, senders+1)}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l.receiver = loadPerson(ctx, t, "receiver", address, dataDir)
	people := make([]*person, senders)
	for i := range people {
		people[i] = loadPerson(ctx, t, fmt.Sprintf("sender%d", i), address, dataDir)
	}
	l.wg.Add(1)
	go func() { defer l.wg.Done(); l.errs <- l.receive() }()
	for i, p := range people {
		l.wg.Add(1)
		go func() { defer l.wg.Done(); l.errs <- l.send(i, p) }()
	}
	t.Cleanup(l.end)
	return l
}

// loadPerson registers and logs in somebody whose client does not give up.
func loadPerson(ctx context.Context, t *testing.T, name, address, dataDir string) *person {
	t.Helper()
	p, err := newPerson(ctx, name, address, dataDir)
	if err != nil {
		t.Fatal(err)
	}
	p.close()
	ca, err := os.ReadFile(filepath.Join(dataDir, "ca-cert.der"))
	if err != nil {
		t.Fatal(err)
	}
	// A short idle time, so that a client whose request the dead server had
	// acknowledged, but not answered, soon asks whether it is still there.
	p.client, err = client.Dial(ctx, client.Config{
		Addr: address, CACert: ca, KSF: pake.InsecureKSF(),
		Attempts: 10_000, Timeout: 5 * time.Second, MaxIdle: 1500 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	if err := p.register(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.logIn(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// send sends one message after the other until the load is stopped. Each is
// repeated until it is acknowledged, by the SDK under one request id.
func (l *load) send(number int, p *person) error {
	recipient := &pb.EnqueueRequest_RecipientKey{RecipientKey: l.receiver.public()}
	for n := uint64(0); ; n++ {
		select {
		case <-l.stop:
			return nil
		default:
		}
		req := &pb.EnqueueRequest{Recipient: recipient, Payload: loadPayload(number, n)}
		if _, err := p.client.Enqueue(l.t.Context(), req); err != nil {
			return fmt.Errorf("sender %d, message %d: %w", number, n, err)
		}
		l.perSender[number] = n + 1
		l.acked.Add(1)
	}
}

// receive reads the queue as it fills, confirming what it has, until the load is
// stopped and the queue is empty.
func (l *load) receive() error {
	last := uint64(0)
	for {
		stopped := false
		select {
		case <-l.stop:
			stopped = true
		default:
		}
		page, err := l.receiver.client.FetchWait(l.t.Context(), &pb.FetchWaitRequest{AfterSeq: afterSeq(last), TimeoutMs: 300})
		if err != nil {
			return fmt.Errorf("receiver: %w", err)
		}
		if page.Gap != nil {
			return fmt.Errorf("receiver: %d messages lost", page.Gap.Count)
		}
		for _, e := range page.Envelopes {
			if e.Seq <= last {
				return fmt.Errorf("receiver: item %d after item %d", e.Seq, last)
			}
			last = e.Seq
			l.received = append(l.received, e)
		}
		if stopped && len(page.Envelopes) == 0 && l.sendersDone() {
			return nil
		}
	}
}

// sendersDone tells whether each sender has returned.
func (l *load) sendersDone() bool { return len(l.errs) == senders }

// awaitProgress waits until the server that was just started has acknowledged
// messages.
func (l *load) awaitProgress(server *child) {
	l.t.Helper()
	goal := l.acked.Load() + betweenKills
	deadline := time.Now().Add(time.Minute)
	for l.acked.Load() < goal {
		if len(l.errs) > 0 {
			l.t.Fatalf("%v\n%s", <-l.errs, server.log)
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("%d of %d messages within a minute of a start\n%s", l.acked.Load(), goal, server.log)
		}
		time.Sleep(time.Millisecond)
	}
}

func (l *load) end() { l.stopOnce.Do(func() { close(l.stop) }) }

// finish lets senders and receiver come to their ends.
func (l *load) finish() {
	l.t.Helper()
	l.end()
	l.wg.Wait()
	close(l.errs)
	for err := range l.errs {
		if err != nil {
			l.t.Fatal(err)
		}
	}
}

// loadPayload is message n of a sender.
func loadPayload(sender int, n uint64) []byte {
	payload := binary.BigEndian.AppendUint64([]byte{byte(sender)}, n)
	return append(payload, bytes.Repeat([]byte{byte(n)}, int(n%200))...)
}

// checkReceived holds what was received against what was acknowledged: each
// sender's messages are 0, 1, 2 … up to its last acknowledged one, in this
// order, and nothing else.
func checkReceived(received []*pb.Envelope, acknowledged [senders]uint64) error {
	next := [senders]uint64{}
	ids := map[string]bool{}
	for _, e := range received {
		if len(e.Payload) < 9 || int(e.Payload[0]) >= senders {
			return fmt.Errorf("received %x, which nobody sent", e.Payload)
		}
		sender, n := int(e.Payload[0]), binary.BigEndian.Uint64(e.Payload[1:])
		if n != next[sender] {
			return fmt.Errorf("sender %d: message %d came where %d was expected (missing, doubled or out of order)", sender, n, next[sender])
		}
		if !bytes.Equal(e.Payload, loadPayload(sender, n)) {
			return fmt.Errorf("sender %d: message %d has another content", sender, n)
		}
		if ids[string(e.MessageId)] {
			return fmt.Errorf("message id %x twice", e.MessageId)
		}
		ids[string(e.MessageId)] = true
		next[sender]++
	}
	for i, n := range next {
		if n != acknowledged[i] {
			return fmt.Errorf("sender %d: %d messages acknowledged, %d received", i, acknowledged[i], n)
		}
	}
	return nil
}

// TestCheckReceived: the check of the kill test finds what it is there for.
func TestCheckReceived(t *testing.T) {
	good := func() (received []*pb.Envelope, acknowledged [senders]uint64) {
		for n := range uint64(5) {
			for sender := range 2 {
				id := []byte{byte(sender), byte(n)}
				received = append(received, &pb.Envelope{MessageId: id, Payload: loadPayload(sender, n)})
				acknowledged[sender]++
			}
		}
		return received, acknowledged
	}
	received, acknowledged := good()
	if err := checkReceived(received, acknowledged); err != nil {
		t.Fatalf("a good run: %v", err)
	}
	for name, spoil := range map[string]func([]*pb.Envelope) []*pb.Envelope{
		"missing in the middle": func(r []*pb.Envelope) []*pb.Envelope { return append(r[:4], r[5:]...) },
		"missing at the end":    func(r []*pb.Envelope) []*pb.Envelope { return r[:9] },
		"doubled":               func(r []*pb.Envelope) []*pb.Envelope { return append(r[:5], r[4:]...) },
		"swapped":               func(r []*pb.Envelope) []*pb.Envelope { r[2], r[4] = r[4], r[2]; return r },
		"another content":       func(r []*pb.Envelope) []*pb.Envelope { r[8].Payload[9] ^= 1; return r },
		"same id": func(r []*pb.Envelope) []*pb.Envelope {
			r[5].MessageId = r[3].MessageId
			return r
		},
		"never sent": func(r []*pb.Envelope) []*pb.Envelope {
			return append(r, &pb.Envelope{Payload: loadPayload(0, 5), MessageId: []byte("x")})
		},
		"no sender": func(r []*pb.Envelope) []*pb.Envelope { r[0].Payload = []byte("hello there"); return r },
	} {
		received, acknowledged := good()
		if err := checkReceived(spoil(received), acknowledged); err == nil {
			t.Errorf("%s: not found", name)
		}
	}
}

// checkLog: the log tells of the same messages, once each, in the same order.
func (l *load) checkLog(dir string) {
	l.t.Helper()
	d, err := datadir.Open(context.Background(), vfs.Default, dir, datadir.Options{NoCreate: true})
	if err != nil {
		l.t.Fatal(err)
	}
	defer d.Close()
	opened, _, err := d.OpenLog(nil)
	if err != nil {
		l.t.Fatal(err)
	}
	defer opened.Close()
	n := 0
	err = opened.Iterate(0, opened.Size(), func(index uint64, r log.Record) error {
		var event pb.Event
		if err := proto.Unmarshal(r.Event, &event); err != nil {
			return err
		}
		id := event.GetMessageEnqueued().GetMessageId()
		if id == nil {
			return nil
		}
		if n >= len(l.received) || !bytes.Equal(l.received[n].MessageId, id) {
			return fmt.Errorf("record %d: message %x is not the one received as number %d", index, id, n)
		}
		n++
		return nil
	})
	if err != nil {
		l.t.Error(err)
	}
	if n != len(l.received) {
		l.t.Errorf("the log tells of %d messages, %d were received", n, len(l.received))
	}
}

// checkViewsRebuild: the views, folded live through all kills, and the views
// that a start makes of the log alone, are what the log folds to. The start adds
// a HEAD of its own.
func checkViewsRebuild(t *testing.T, dir, address string) {
	t.Helper()
	live := readViews(t, dir)
	if err := os.RemoveAll(filepath.Join(dir, "views")); err != nil {
		t.Fatal(err)
	}
	stopCleanly(t, serverProcess(t, "--data-dir", dir, "--listen", address))
	rebuilt := readViews(t, dir)
	if rebuilt.cursor != live.cursor+1 {
		t.Errorf("live views: %d events; rebuilt: %d, want one more", live.cursor, rebuilt.cursor)
	}
	for name, views := range map[string]viewsState{"live": live, "rebuilt": rebuilt} {
		if folded := foldViews(t, dir, views.cursor); folded != views {
			t.Errorf("%s views: %d events, digest %x; the log folds to %x", name, views.cursor, views.digest, folded.digest)
		}
	}
}
