package commands

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// inBubble runs a test with an engine on a file system in memory and the fake
// clock of testing/synctest, which stands still while anything runs.
func inBubble(t *testing.T, test func(t *testing.T, b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, vfs.NewMem())
		defer b.close()
		test(t, b)
	})
}

// away stops the engine for so long and lets housekeeping run after the start.
// Sleeping with an open store would run through every tick of its timers.
func (b *bed) away(d time.Duration) {
	b.t.Helper()
	b.close()
	time.Sleep(d)
	b.open(Options{AcceptTime: true})
	time.Sleep(housekeepingEvery + time.Second)
}

// kinds counts the events of the log by their type.
func (b *bed) kinds() map[string]int {
	b.t.Helper()
	count := make(map[string]int)
	err := b.log.Iterate(0, b.log.Size(), func(_ uint64, r log.Record) error {
		m := mustDecode(b.t, r.Event).ProtoReflect()
		count[string(m.WhichOneof(m.Descriptor().Oneofs().ByName("body")).Name())]++
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return count
}

func TestHousekeepingExpiresMessagesAndReceipts(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bed) {
		alice, bob := b.register(1), b.register(2)
		command := sending(alice, bob, requestID(b.engine.Now(), 1), []byte("x"))
		resp, err := b.engine.Do(t.Context(), command)
		if err != nil {
			t.Fatal(err)
		}
		id := projections.ID(resp.(*pb.EnqueueResponse).GetMessageId())
		b.away(23 * time.Hour)
		if n := len(b.items(bob)); n != 1 {
			t.Fatalf("%d messages before their end, want 1", n)
		}
		if again, err := b.engine.Do(t.Context(), command); err != nil || !proto.Equal(resp, again) {
			t.Errorf("retry after 23 hours: %v, %v", again, err)
		}
		b.away(2 * time.Hour) // the message lives for a day, its receipt for a day after its id's time
		if n := len(b.items(bob)); n != 0 {
			t.Errorf("%d messages after their end", n)
		}
		if _, found, err := b.engine.Payload(bob.account, id); found || err != nil {
			t.Errorf("payload after its end: %v, %v", found, err)
		}
		v, err := b.engine.View()
		if err != nil {
			t.Fatal(err)
		}
		defer v.Release()
		if due, err := projections.ExpiredReceipts(v.Reader, v.Now); due || err != nil {
			t.Errorf("receipts after their end: %v, %v", due, err)
		}
		if k := b.kinds(); k["messages_expired"] == 0 || k["receipts_expired"] == 0 || k["receipts_expired"] > 3 {
			t.Errorf("events %v", k)
		}
	})
}

func TestHousekeepingReleasesWhatWasDrained(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bed) {
		alice, bob := b.register(1), b.register(2)
		id := projections.ID(b.mustSend(alice, bob, 1, "x"))
		if _, err := b.do(bob.token, pb.Auth_SESSION, func(tx *Tx) (proto.Message, error) {
			return nil, tx.Emit(&pb.Event{Body: &pb.Event_MessagesDrained{
				MessagesDrained: &pb.MessagesDrained{DeviceKey: bob.device[:], UpTo: 1},
			}})
		}); err != nil {
			t.Fatal(err)
		}
		b.away(23 * time.Hour)
		if _, found, err := b.engine.Payload(bob.account, id); !found || err != nil {
			t.Fatalf("payload within the grace: %v, %v", found, err)
		}
		b.away(2 * time.Hour)
		if _, found, err := b.engine.Payload(bob.account, id); found || err != nil {
			t.Errorf("payload after the grace: %v, %v", found, err)
		}
	})
}

func TestSessionsEndWhenIdleOrOld(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bed) {
		alice, bob := b.register(1), b.register(2)
		for range 6 { // alice comes every 29 days, bob never
			b.away(29 * 24 * time.Hour)
			if _, err := b.do(alice.token, pb.Auth_SESSION, nothing); err != nil {
				t.Fatalf("a session in use: %v", err)
			}
		}
		_, err := b.do(bob.token, pb.Auth_SESSION, nothing)
		wantRefusal(t, err, pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID)
		if k := b.kinds(); k["sessions_ended"] != 1 {
			t.Errorf("events %v, want the end of bob's session", k)
		}
		b.away(7 * 24 * time.Hour)
		_, err = b.do(alice.token, pb.Auth_SESSION, nothing)
		wantRefusal(t, err, pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID)
		if k := b.kinds(); k["sessions_ended"] != 2 || k["session_touched"] != 6 {
			t.Errorf("events %v", k)
		}
	})
}

// The first use of a day is noted once, by a command or by a query.
func TestFirstUseOfADayIsNoted(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bed) {
		alice := b.register(1)
		use := map[string]func(){
			"query": func() {
				v, err := b.engine.Query(alice.token, pb.Auth_SESSION)
				if err != nil {
					t.Fatal(err)
				}
				v.Release()
			},
			"command": func() {
				if _, err := b.do(alice.token, pb.Auth_SESSION, nothing); err != nil {
					t.Fatal(err)
				}
			},
			"refused command": func() {
				_, err := b.do(alice.token, pb.Auth_SESSION, func(*Tx) (proto.Message, error) { return nil, errScope })
				wantRefusal(t, err, pb.Status_Forbidden, pb.Reason_SCOPE)
			},
		}
		want := 0
		for name, do := range use {
			b.away(24 * time.Hour)
			for range 5 {
				do()
			}
			synctest.Wait()
			want++
			if n := b.kinds()["session_touched"]; n != want {
				t.Errorf("%s: %d touches, want %d", name, n, want)
			}
		}
	})
}

func TestSnapshotsAreTakenRecordedAndDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bed{t: t, fs: vfs.NewMem()}
		b.vrf = createLog(t, b.fs, bedDir)
		b.open(Options{SnapshotEvery: 10})
		defer func() { b.close() }()
		alice, bob := b.register(1), b.register(2)
		for i := range 50 {
			b.mustSend(alice, bob, uint64(i), "x")
			if i%10 == 0 {
				time.Sleep(2 * time.Minute)
			}
		}
		time.Sleep(2 * time.Minute)
		sizes, err := projections.ListSnapshots(b.fs, bedDir)
		if err != nil || len(sizes) != snapshotsKept {
			t.Fatalf("snapshots %v, %v; want %d", sizes, err, snapshotsKept)
		}
		taken := b.kinds()["snapshot_taken"]
		if taken < 4 || taken > 6 {
			t.Errorf("%d snapshots were recorded", taken)
		}
		time.Sleep(5 * time.Minute) // too short for ten HEADs
		if n := b.kinds()["snapshot_taken"]; n != taken {
			t.Errorf("%d snapshots although nothing happened", n-taken)
		}
		v, err := b.engine.View()
		if err != nil {
			t.Fatal(err)
		}
		last, found, err := projections.LastSnapshot(v.Reader)
		v.Release()
		if err != nil || !found || last.Size != sizes[len(sizes)-1] {
			t.Errorf("recorded %+v, %v, %v; newest is %v", last, found, err, sizes)
		}
		digest, err := projections.VerifySnapshot(b.fs, bedDir, last.Size)
		if err != nil || digest != last.Digest {
			t.Errorf("snapshot verifies as %x, %v; recorded %x", digest, err, last.Digest)
		}
	})
}

func TestViewsAreFlushedOnATimer(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bed) {
		b.register(1)
		if b.engine.views.Unflushed() == 0 {
			t.Fatal("nothing to flush")
		}
		time.Sleep(flushEvery + time.Second)
		if n := b.engine.views.Unflushed(); n != 0 {
			t.Errorf("%d events are unflushed after the timer", n)
		}
	})
}

// TestViewsAreFlushedAfterManyRows: a start has never much more to apply again,
// however few events it stands in.
func TestViewsAreFlushedAfterManyRows(t *testing.T) {
	if os.Getenv("QPC_TEST_SCALE") == "race" {
		return // its number can't be smaller, and other tests do the same at once
	}
	b := newBed(t, vfs.NewMem())
	alice, bob := b.register(1), b.register(2)
	var senders sync.WaitGroup
	const groups, each = 64, flushAfterRows / 2 / 64
	for g := range groups {
		senders.Go(func() {
			for i := range each {
				c := sending(alice, bob, requestID(b.engine.Now(), uint64(g*each+i)), []byte("x"))
				if _, err := b.engine.Do(t.Context(), c); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	senders.Wait()
	events, rows := b.engine.views.Cursor(), b.engine.views.UnflushedRows()
	if events >= flushAfterEvents || rows >= flushAfterRows {
		t.Errorf("%d rows are unflushed after %d events", rows, events)
	}
	b.close()
}

func TestClockJumpStopsChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bed) {
		var jump atomic.Int64
		b.close()
		b.open(Options{WallClock: func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }})
		alice, bob := b.register(1), b.register(2)
		b.mustSend(alice, bob, 1, "x")
		for _, by := range []time.Duration{2 * maxDrift, -2 * maxDrift, 60 * 24 * time.Hour} {
			jump.Store(int64(by))
			_, err := b.send(alice, bob, 2, "x")
			wantRefusal(t, err, pb.Status_Unavailable, pb.Reason_CLOCK)
			wantRefusal(t, b.engine.Ready(), pb.Status_Unavailable, pb.Reason_CLOCK)
			if now := time.UnixMilli(int64(b.engine.Now())); time.Since(now).Abs() > time.Second {
				t.Errorf("a clock that jumped by %v is believed: %v", by, now)
			}
			time.Sleep(5 * housekeepingEvery)
			if n := len(b.items(bob)); n != 1 {
				t.Errorf("housekeeping ran on a wrong clock: %d messages", n)
			}
		}
		jump.Store(int64(maxDrift / 2)) // within what is slewed
		b.mustSend(alice, bob, 3, "x")
		jump.Store(0)
		before := b.engine.Now()
		b.mustSend(alice, bob, 4, "x") // and time does not run back
		if b.engine.Now() < before {
			t.Error("time ran back")
		}
		if err := b.engine.Ready(); err != nil {
			t.Error(err)
		}
	})
}

func TestStartChecksTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, vfs.NewMem())
		b.register(1)
		b.close()
		time.Sleep(maxGap + time.Hour)
		err := b.tryOpen(Options{})
		var wrong *ClockError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "--accept-time") {
			t.Fatalf("start after a gap of more than 7 days: %v", err)
		}
		b.open(Options{AcceptTime: true})
		b.register(2)
		b.close()
		b.open(Options{}) // the gap is in the log now
		b.close()
	})
	ahead := func(d time.Duration) uint64 { return uint64(time.Now().Add(d).UnixMilli()) }
	for _, c := range []struct {
		last   uint64
		accept bool
		ok     bool
	}{
		{ahead(maxAhead + time.Minute), false, false},
		{ahead(maxAhead + time.Minute), true, true},
		{ahead(maxAhead - time.Minute), false, true},
		{ahead(-maxGap + time.Minute), false, true},
		{ahead(-maxGap - time.Minute), false, false},
		{ahead(-maxGap - time.Minute), true, true},
	} {
		k := newClock(nil)
		err := k.checkStart(c.last, c.accept)
		if (err == nil) != c.ok {
			t.Errorf("last event %d, accept %v: %v", c.last, c.accept, err)
		}
		if k.nowMS() < c.last {
			t.Errorf("Now lies before the last event %d", c.last)
		}
	}
}

// What housekeeping removes at a time is bounded, and requests pass between.
func TestHousekeepingIsBoundedPerRun(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bed) {
		alice := b.register(1)
		const sessions = 2*expiryLimit + 10
		if _, err := b.do([32]byte{}, pb.Auth_NONE, func(tx *Tx) (proto.Message, error) {
			for i := range sessions {
				if err := startPersona(tx, alice, [32]byte{1, byte(i), byte(i >> 8)}); err != nil {
					return nil, err
				}
			}
			return nil, nil
		}); err != nil {
			t.Fatal(err)
		}
		b.away(35 * 24 * time.Hour)
		largest, total := 0, 0
		err := b.log.Iterate(0, b.log.Size(), func(_ uint64, r log.Record) error {
			n := len(mustDecode(t, r.Event).GetSessionsEnded().GetTokenHashes())
			largest, total = max(largest, n), total+n
			return nil
		})
		if err != nil || largest != expiryLimit || total != sessions+1 {
			t.Errorf("%v: largest event ends %d sessions, all end %d; want %d and %d", err, largest, total, expiryLimit, sessions+1)
		}
	})
}

func TestHousekeepingEndsWithTheEngine(t *testing.T) {
	b := newBed(t, vfs.NewMem())
	b.close()
	if err := b.engine.TakeSnapshot(context.Background()); AsRefusal(err) == nil {
		t.Errorf("snapshot of a stopped engine: %v", err)
	}
}
