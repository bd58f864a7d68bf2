package projections

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	pb "quicprochat/proto/qpcv1"
)

// skip enqueues a message for alice's and bob's account holder with bob's queue
// skipped: a second device of the same account would take it.
func (w *world) skip(n int) {
	w.t.Helper()
	second := w.secondDevice("bob")
	bob := deviceKey("bob")
	q, _, err := Queue(w.reader(), second)
	if err != nil {
		w.t.Fatalf("queue: %v", err)
	}
	ev := enqueued(n, "alice", "bob", 100, w.now+dayMS, target(second, q.NextSeq))
	ev.Skipped = [][]byte{bob[:]}
	w.do(ev)
}

// secondDevice gives a person another device, beside the events: those of this
// format register one only.
func (w *world) secondDevice(name string) Key {
	w.t.Helper()
	key := keyOfName("second device", name)
	if _, found, err := DeviceByKey(w.reader(), key); err != nil || found {
		return key
	}
	if err := w.reader().addDevice(Device{Key: key, AccountID: accountID(name), AddedMS: w.now}); err != nil {
		w.t.Fatalf("device: %v", err)
	}
	return key
}

func (w *world) wantGap(name string, count, upTo uint64) {
	w.t.Helper()
	if q := w.queue(name); q.GapCount != count || q.GapUpTo != upTo {
		w.t.Fatalf("gap of %s: %d up to %d, want %d up to %d", name, q.GapCount, q.GapUpTo, count, upTo)
	}
}

func TestASkippedMessageTakesANumber(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	w.send(1, "alice", "bob")
	w.send(2, "alice", "bob")
	w.skip(3)
	w.wantGap("bob", 1, 3)
	// A device that had read up to 2 before the loss confirms 2: the gap stays.
	w.do(confirmed(deviceKey("bob"), 2))
	w.wantGap("bob", 1, 3)
	if q := w.queue("bob"); q.Count != 0 || q.Head != 4 {
		t.Errorf("queue: %+v", q)
	}
	w.skip(4)
	w.wantGap("bob", 2, 4)
	w.do(confirmed(deviceKey("bob"), 3))
	w.wantGap("bob", 2, 4)
	w.send(5, "alice", "bob")
	w.wantSeqs("bob", 5)
	w.do(confirmed(deviceKey("bob"), 4))
	w.wantGap("bob", 0, 0)
	w.wantSeqs("bob", 5)
}

func TestDrainEndsAGap(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	w.send(1, "alice", "bob")
	w.skip(2)
	w.do(drained(deviceKey("bob"), 1))
	w.wantGap("bob", 0, 0)
	w.skip(3)
	w.do(drained(deviceKey("bob"), 3)) // only the gap is handed out
	w.wantGap("bob", 0, 0)
	if q := w.queue("bob"); q.Cursor != 3 || q.DrainedCount != 1 {
		t.Errorf("queue: %+v", q)
	}
}

func TestAnAckedPrefixEndsAGapButSingleItemsDoNot(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	w.send(1, "alice", "bob")
	w.send(2, "alice", "bob")
	w.skip(3)
	w.do(acked(deviceKey("bob"), 0, 1, 2))
	w.wantGap("bob", 1, 3)
	w.do(acked(deviceKey("bob"), 3))
	w.wantGap("bob", 0, 0)
}

func TestExpiryMakesAGapOfWhatWasNotHandedOut(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	for n := 1; n <= 4; n++ {
		w.send(n, "alice", "bob")
		w.now += 1000
	}
	w.do(drained(deviceKey("bob"), 1))
	w.refuse(expired(deviceKey("bob"), 1), "has not expired")
	w.now = testStart + 2*dayMS
	w.do(expired(deviceKey("bob"), 1, 2, 4))
	w.wantGap("bob", 2, 4)
	w.wantReleased("bob", 1, 2, 4)
	w.wantSeqs("bob", 3)
	w.refuse(expired(deviceKey("bob"), 4), "not in the queue")
	w.do(confirmed(deviceKey("bob"), 3))
	w.wantGap("bob", 2, 4)
	w.do(confirmed(deviceKey("bob"), 4))
	w.wantGap("bob", 0, 0)
}

func (w *world) wantExpired(nowMS uint64, limit int, want ...QueueExpiry) {
	w.t.Helper()
	got, err := ExpiredMessages(w.reader(), nowMS, limit)
	if err != nil {
		w.t.Fatalf("expired messages: %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Fatalf("expired messages at %d (-want +got):\n%s", nowMS, diff)
	}
}

func TestExpiryRowFollowsTheEarliestItem(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	w.now += minuteMS - w.now%minuteMS
	bob, base := deviceKey("bob"), w.now
	send := func(n int, ttl uint64) {
		t.Helper()
		w.do(enqueued(n, "alice", "bob", 100, w.now+ttl, target(bob, w.queue("bob").NextSeq)))
	}
	send(1, 10*minuteMS)
	send(2, 5*minuteMS-1)
	send(3, 20*minuteMS)
	if rows := w.rows(prefixQueueExpiry); rows != 1 {
		t.Fatalf("%d expiry rows, want 1", rows)
	}
	w.wantExpired(base+5*minuteMS-1, 9)
	w.wantExpired(base+5*minuteMS, 9, QueueExpiry{bob, []uint64{2}})
	w.wantExpired(base+30*minuteMS, 9, QueueExpiry{bob, []uint64{1, 2, 3}})
	w.wantExpired(base+30*minuteMS, 2, QueueExpiry{bob, []uint64{1, 2}})

	w.now = base + 12*minuteMS
	w.do(expired(bob, 2)) // a bounded run: 1 has expired too
	w.wantExpired(w.now, 9, QueueExpiry{bob, []uint64{1}})
	w.do(expired(bob, 1))
	w.wantExpired(w.now, 9)
	w.wantExpired(base+20*minuteMS, 9, QueueExpiry{bob, []uint64{3}})

	// Acked before its time: the row stays, and an empty event drops it.
	w.do(acked(bob, 3))
	w.wantExpired(base+20*minuteMS, 9, QueueExpiry{Device: bob})
	w.now = base + 20*minuteMS
	w.do(expired(bob))
	w.wantExpired(base+99*minuteMS, 9)
	if rows := w.rows(prefixQueueExpiry); rows != 0 {
		t.Errorf("%d expiry rows are left", rows)
	}
}

func TestSharedPayloadIsReleasedWithItsLastReference(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	first, second := deviceKey("bob"), w.secondDevice("bob")
	both := func(n int, seq uint64) *pb.MessageEnqueued {
		return enqueued(n, "alice", "bob", 100, w.now+dayMS, target(first, seq), target(second, seq))
	}
	w.do(both(1, 1))
	w.do(both(2, 2))
	if rows := w.rows(prefixPayload); rows != 2 {
		t.Fatalf("%d rows of shared payloads, want 2", rows)
	}
	w.do(confirmed(first, 2))
	w.wantReleased("bob")
	w.do(acked(second, 0, 2))
	w.wantReleased("bob", 2)
	w.do(drained(second, 2))
	w.do(released(second, 2))
	w.wantReleased("bob", 1)
	if rows := w.rows(prefixPayload) + w.rows(prefixShare) + w.rows(prefixQueueItem); rows != 0 {
		t.Errorf("%d rows of payloads, shares and items are left", rows)
	}
}
