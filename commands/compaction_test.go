package commands

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	pb "quicprochat/proto/qpcv1"
)

// Once a day, at a quiet moment, or late in the day if there is none.
func TestWhenCompactionIsDue(t *testing.T) {
	const hour, minute = 3_600_000, 60_000
	var c compaction
	busy := uint64(0)
	look := func(want bool, now, fresh uint64) {
		t.Helper()
		busy += fresh
		now += dayMS * 10_000 // in 1997
		if got := c.due(now, busy); got != want {
			t.Errorf("at minute %d with %d events: %v", now%dayMS/minute, fresh, got)
		}
	}
	look(false, 10*hour, 10_000)
	look(true, 10*hour+minute, quietEvents)
	c.ended(10_000*dayMS+10*hour+minute, nil)
	look(false, 11*hour, 0) // that day has had it
	look(false, 23*hour, 0)
	look(false, 24*hour, quietEvents+1)
	look(true, 24*hour+minute, 3)
	c.ended(10_000*dayMS+24*hour+minute, errors.New("no room"))
	look(false, 24*hour+2*minute, 0)
	look(true, 25*hour+2*minute, 0)
	c.ended(10_000*dayMS+25*hour+2*minute, nil)
	look(false, 48*hour, 10_000)
	look(false, 69*hour, 10_000)
	look(true, 70*hour, 10_000) // at 22:00 of a day without a quiet moment
}

// inTables tells in how many table files of the log a text stands.
func inTables(t *testing.T, fs vfs.FS, text string) (found int) {
	t.Helper()
	dir := fs.PathJoin(bedDir, "log")
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		f, err := fs.Open(fs.PathJoin(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte(text)) {
			found++
		}
	}
	return found
}

// What was released leaves the disk with the compaction of the day, which runs
// once, and an engine that stops does not wait for the next.
func TestDailyCompaction(t *testing.T) {
	const compacted, secret = "compacted the log", "the payload that must leave the disk"
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		b := newBed(t, mem)
		b.close()
		time.Sleep(24*time.Hour - 10*time.Minute - time.Duration(time.Now().UnixNano())%(24*time.Hour))
		logged := &syncedBuffer{}
		b.open(Options{Logger: slog.New(slog.NewTextHandler(logged, nil))})
		defer b.close()
		alice, bob := b.register(1), b.register(2)
		b.mustSend(alice, bob, 1, secret)
		time.Sleep(3 * compactCheckEvery)
		if n := logged.count(compacted); n != 1 {
			t.Fatalf("%d compactions in the first minutes", n)
		}
		if inTables(t, mem, secret) == 0 {
			t.Fatal("the message is in no table yet: the test proves nothing")
		}
		if _, err := b.do(bob.token, pb.Auth_SESSION, ackFake(bob, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * compactCheckEvery)
		if n := logged.count(compacted); n != 1 {
			t.Fatalf("%d compactions within a day", n)
		}
		time.Sleep(10 * time.Minute) // past midnight
		synctest.Wait()
		if n := logged.count(compacted); n != 2 {
			t.Errorf("%d compactions in two days", n)
		}
		if n := inTables(t, mem, secret); n != 0 {
			t.Errorf("%d tables still hold a message that was acknowledged before the compaction", n)
		}
	})
}
