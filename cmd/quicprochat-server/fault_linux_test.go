package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/pake"
)

// forbidWrites makes every write of a running process to a file fail (EFBIG):
// its files may have no bytes at all from now on. What is written stays.
func forbidWrites(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 0, Max: unix.RLIM_INFINITY}, nil); err != nil {
		t.Fatalf("prlimit: %v", err)
	}
}

// TestFailedWriteEndsTheProcess: when the log can't be written any more, the real
// program acknowledges nothing, ends within a second with code 1 and one sentence,
// and the next start has all that was acknowledged.
func TestFailedWriteEndsTheProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	c := serverProcess(t, "--data-dir", dir, "--listen", lastingAddress(t), "--limits", "off")
	alice := loadPerson(t.Context(), t, "alice", c.address, dir)
	to := &pb.EnqueueRequest_RecipientKey{RecipientKey: alice.public()}
	acked := map[string]bool{}
	for i := range 20 {
		resp, err := alice.client.Enqueue(t.Context(), &pb.EnqueueRequest{Recipient: to, Payload: fmt.Append(nil, "message ", i)})
		if err != nil {
			t.Fatal(err)
		}
		acked[string(resp.GetMessageId())] = true
	}
	impatient := impatientOf(t, alice, c.address, dir)
	forbidWrites(t, c.pid())
	var late sync.WaitGroup
	for i := range 5 {
		late.Go(func() {
			_, err := impatient.Enqueue(t.Context(), &pb.EnqueueRequest{Recipient: to, Payload: fmt.Append(nil, "too late ", i)})
			if err == nil {
				t.Error("a message was acknowledged that can't be stored")
			}
		})
	}
	if !endedInTime(c, time.Second) {
		t.Errorf("the process lives a second after the failure: %s", c.log)
		c.kill()
	}
	late.Wait()
	words := c.lastWords()
	last := words[strings.LastIndexByte(words, '\n')+1:]
	if code := c.command.ProcessState.ExitCode(); code != exitFailure || !strings.HasPrefix(last, "quicprochat-server: ") || !strings.Contains(last, "file too large") || !strings.Contains(last, "start it again") {
		t.Errorf("code %d, last words %q", code, last)
	}

	again := serverProcess(t, "--data-dir", dir, "--listen", c.address, "--limits", "off", "--no-create")
	page, err := alice.client.Fetch(t.Context(), &pb.FetchRequest{AfterSeq: afterSeq(0)})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.GetEnvelopes() {
		delete(acked, string(e.GetMessageId()))
		// One of unknown outcome may have reached the disk, here it did not: not a byte
		// could be written.
		if strings.HasPrefix(string(e.GetPayload()), "too late") {
			t.Errorf("%q was stored", e.GetPayload())
		}
	}
	if len(acked) > 0 {
		t.Errorf("%d acknowledged messages are lost", len(acked))
	}
	stopCleanly(t, again)
}

// endedInTime waits for the end of a program, for a time of a machine that does
// nothing else: it is counted in short sleeps, and one that takes longer because
// others have the cores counts as the time that was meant.
func endedInTime(c *child, bound time.Duration) bool {
	const step = 5 * time.Millisecond
	for range bound / step {
		select {
		case <-c.ended:
			return true
		default:
			time.Sleep(step)
		}
	}
	return false
}

// impatientOf is a second client with the session of a person, which tries
// everything once and gives up soon.
func impatientOf(t *testing.T, p *person, address, dataDir string) *client.Client {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(dataDir, "ca-cert.der"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(context.Background(), client.Config{Addr: address, CACert: ca, KSF: pake.InsecureKSF(), Attempts: 1, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	session, ok := p.client.Session()
	if !ok {
		t.Fatal("no session")
	}
	c.SetSession(session)
	return c
}
