package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quicprochat/commands/datadir"
	"quicprochat/kt"
	"quicprochat/log"
	pb "quicprochat/proto/qpcv1"
)

// logWith makes a stopped server's log with events of the given messages, each
// leaf as the server makes it, spoiled by change.
func logWith(t *testing.T, ids [][]byte, change func(i int, r *log.Record)) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	d, err := datadir.Open(context.Background(), vfs.Default, dir, datadir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := d.OpenLog(nil)
	if err != nil {
		t.Fatal(err)
	}
	group := l.NewGroup()
	for i, id := range ids {
		event, err := proto.Marshal(&pb.Event{TimeMs: 1, Body: &pb.Event_MessageEnqueued{MessageEnqueued: &pb.MessageEnqueued{MessageId: id}}})
		if err != nil {
			t.Fatal(err)
		}
		r := log.Record{Event: event}
		rand.Read(r.Opening[:])
		ctx := kt.OpaqueContext(eventTypeMessageEnqueued)
		r.Leaf = kt.AppendOpaqueLeaf(nil, kt.Commit(r.Opening, ctx[:], event))
		change(i, &r)
		group.Append(r)
	}
	pending, err := group.Commit()
	if err != nil {
		t.Fatal(err)
	}
	if err := pending.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := l.WriteAnchor(pending.Size(), pending.Root()); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestProof: the demonstration's check accepts what is right and nothing else.
func TestProof(t *testing.T) {
	ids := [][]byte{bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 16), bytes.Repeat([]byte{3}, 16), bytes.Repeat([]byte{4}, 16)}
	keep := func(int, *log.Record) {}
	dir := logWith(t, ids, keep)
	for i, id := range ids {
		p, err := proveMessage(t.Context(), dir, id)
		if err != nil || p.index != uint64(i+1) || p.size != 5 {
			t.Fatalf("message %d: %+v, %v", i, p, err)
		}
		// A proof is for one record of one log.
		record := log.Record{Opening: kt.Opening{}, Event: []byte("other")}
		if p.verify(record.Opening, record.Event) == nil {
			t.Error("the proof holds for another record")
		}
	}
	if _, err := proveMessage(t.Context(), dir, []byte("never sent")); err == nil || !strings.Contains(err.Error(), "no record") {
		t.Errorf("a message that was never sent: %v", err)
	}
	for name, change := range map[string]func(int, *log.Record){
		"another opening": func(i int, r *log.Record) { r.Opening[0] ^= 1 },
		"another leaf":    func(i int, r *log.Record) { r.Leaf[5] ^= 1 },
		"another event":   func(i int, r *log.Record) { r.Event = append(r.Event, 0x08, 0x02) },
	} {
		dir := logWith(t, ids, change)
		if _, err := proveMessage(t.Context(), dir, ids[2]); err == nil || !strings.Contains(err.Error(), "does not hold") {
			t.Errorf("%s: %v", name, err)
		}
	}
	twice := [][]byte{ids[0], ids[1], ids[0]}
	if _, err := proveMessage(t.Context(), logWith(t, twice, keep), ids[0]); err == nil || !strings.Contains(err.Error(), "both") {
		t.Errorf("a message that is there twice: %v", err)
	}
}

func TestCheckPayloadHash(t *testing.T) {
	if checkPayloadHash([]byte("abc"), make([]byte, 32)) == nil || checkPayloadHash([]byte("abc"), nil) == nil {
		t.Error("a wrong hash passes")
	}
}

func TestNewRequestID(t *testing.T) {
	at := time.UnixMilli(0x0123456789ab)
	a, b := newRequestID(at), newRequestID(at)
	for _, id := range [][]byte{a, b} {
		if len(id) != 16 || !bytes.Equal(id[:6], []byte{0x01, 0x23, 0x45, 0x67, 0x89, 0xab}) || id[6]>>4 != 7 || id[8]>>6 != 2 {
			t.Errorf("no UUIDv7 of that time: %x", id)
		}
	}
	if bytes.Equal(a, b) {
		t.Error("the same id twice")
	}
}

// TestDemoInterrupted: the end of the context ends the demonstration, and
// nothing stays behind.
func TestDemoInterrupted(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	if code := Run(ctx, []string{"demo"}, nil, &stdout, &stderr); code != exitFailure || !strings.Contains(stderr.String(), "step 1") {
		t.Errorf("code %d, %s", code, &stderr)
	}
	left, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestTail(t *testing.T) {
	var log tail
	for i := range 10_000 {
		if n, err := log.Write([]byte(strings.Repeat("x", i%50) + "\n")); err != nil || n != i%50+1 {
			t.Fatalf("write %d: %d, %v", i, n, err)
		}
	}
	if text := log.String(); len(text) > tailSize || !strings.HasSuffix(text, strings.Repeat("x", 49)) {
		t.Errorf("kept %d bytes", len(text))
	}
}

func TestWithoutSettings(t *testing.T) {
	got := withoutSettings([]string{"PATH=/bin", "QPC_LISTEN=x", "RUST_LOG=debug", "QPC=1", "HOME=/"})
	if strings.Join(got, " ") != "PATH=/bin QPC=1 HOME=/" {
		t.Errorf("kept %v", got)
	}
}
