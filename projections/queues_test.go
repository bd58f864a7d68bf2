package projections

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	pb "quicprochat/proto/qpcv1"
)

// queueWorld has alice, who sends, and bob, who receives.
func queueWorld(t testT) *world {
	w := newWorld(t)
	w.register("alice", "bob")
	return w
}

func (w *world) wantSeqs(name string, want ...uint64) {
	w.t.Helper()
	if want == nil {
		want = []uint64{}
	}
	if diff := cmp.Diff(want, w.seqs(name, 0)); diff != "" {
		w.t.Fatalf("items of %s (-want +got):\n%s", name, diff)
	}
}

// wantReleased compares what was released since the last call.
func (w *world) wantReleased(owner string, messages ...int) {
	w.t.Helper()
	var want []PayloadRef
	for _, n := range messages {
		want = append(want, PayloadRef{Owner: accountID(owner), ID: messageID(n)})
	}
	if diff := cmp.Diff(want, w.reader().Released()); diff != "" {
		w.t.Fatalf("released payloads (-want +got):\n%s", diff)
	}
	if again := w.reader().Released(); again != nil {
		w.t.Fatalf("released payloads were told twice: %v", again)
	}
}

func TestNewDeviceHasAnEmptyQueue(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	q := w.queue("bob")
	want := QueueState{Owner: accountID("bob"), NextSeq: 1, Head: 1}
	if q != want || q.Tail() != 0 || q.Waiting() != 0 {
		t.Errorf("queue: got %+v, want %+v", q, want)
	}
	w.wantSeqs("bob")
	if _, found, err := Queue(w.reader(), deviceKey("nobody")); found || err != nil {
		t.Errorf("queue of an unknown device: found %v, %v", found, err)
	}
	if items, more, err := QueueItems(w.reader(), deviceKey("nobody"), 0, 10, 10); len(items) != 0 || more || err != nil {
		t.Errorf("items of an unknown device: %v, %v, %v", items, more, err)
	}
}

func TestEnqueueKeepsOrderAndCounts(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	for n := 1; n <= 3; n++ {
		w.now += 10
		if seq := w.send(n, "alice", "bob"); seq != uint64(n) {
			t.Fatalf("message %d got number %d", n, seq)
		}
	}
	w.wantSeqs("bob", 1, 2, 3)
	q := w.queue("bob")
	if q.Count != 3 || q.Bytes != 300 || q.NextSeq != 4 || q.Head != 1 {
		t.Errorf("queue: %+v", q)
	}
	share, err := SenderShare(w.reader(), deviceKey("bob"), accountID("alice"))
	if err != nil || share != (Share{Count: 3, Bytes: 300}) {
		t.Errorf("share of the sender: %+v, %v", share, err)
	}
	it, found, err := QueueItemAt(w.reader(), deviceKey("bob"), 2)
	want := QueueItem{
		Seq: 2, MessageID: messageID(2), Owner: accountID("bob"), Sender: accountID("alice"),
		Size: 100, EnqueuedMS: testStart + 20, ExpiresMS: testStart + 20 + dayMS,
	}
	if err != nil || !found || it != want {
		t.Errorf("item 2: got %+v, %v, %v, want %+v", it, found, err, want)
	}
	for _, seq := range []uint64{0, 4, 1 << 63} {
		if _, found, err := QueueItemAt(w.reader(), deviceKey("bob"), seq); found || err != nil {
			t.Errorf("item %d: found %v, %v", seq, found, err)
		}
	}
}

func TestPagesHoldAtLeastOneItem(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	for n := 1; n <= 5; n++ {
		w.send(n, "alice", "bob")
	}
	for _, c := range []struct {
		from     uint64
		maxItems int
		maxBytes uint64
		want     []uint64
		more     bool
	}{
		{0, 5, 500, []uint64{1, 2, 3, 4, 5}, false},
		{0, 4, 500, []uint64{1, 2, 3, 4}, true},
		{2, 10, 250, []uint64{2, 3}, true},
		{3, 10, 1, []uint64{3}, true},
		{5, 10, 1, []uint64{5}, false},
		{6, 10, 1, nil, false},
		{1 << 63, 10, 1, nil, false},
	} {
		items, more, err := QueueItems(w.reader(), deviceKey("bob"), c.from, c.maxItems, c.maxBytes)
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for _, it := range items {
			got = append(got, it.Seq)
		}
		if !cmp.Equal(got, c.want) || more != c.more {
			t.Errorf("from %d, %d items, %d bytes: got %v more %v, want %v more %v", c.from, c.maxItems, c.maxBytes, got, more, c.want, c.more)
		}
	}
}

func TestConfirmRemovesAPrefixOnce(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	for n := 1; n <= 5; n++ {
		w.send(n, "alice", "bob")
	}
	w.do(confirmed(deviceKey("bob"), 3))
	w.wantReleased("bob", 1, 2, 3)
	w.wantSeqs("bob", 4, 5)
	w.do(confirmed(deviceKey("bob"), 3))
	w.wantReleased("bob")
	w.do(confirmed(deviceKey("bob"), 4))
	w.wantReleased("bob", 4)
	if q := w.queue("bob"); q.Head != 5 || q.Cursor != 4 || q.Count != 1 || q.Bytes != 100 {
		t.Errorf("queue: %+v", q)
	}
	w.do(confirmed(deviceKey("bob"), 5))
	if q := w.queue("bob"); q.Head != 6 || q.Count != 0 || q.Bytes != 0 {
		t.Errorf("empty queue: %+v", q)
	}
	if share, err := SenderShare(w.reader(), deviceKey("bob"), accountID("alice")); share != (Share{}) || err != nil {
		t.Errorf("share of an empty queue: %+v, %v", share, err)
	}
	w.refuse(confirmed(deviceKey("bob"), 6), "tail is 5")
	w.refuse(confirmed(deviceKey("nobody"), 1), "no queue")
	w.refuse(&pb.MessagesConfirmed{DeviceKey: []byte{1}, UpTo: 1}, "device key of 1 bytes")
}

func TestAckRemovesSingleItems(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	for n := 1; n <= 8; n++ {
		w.send(n, "alice", "bob")
	}
	w.do(acked(deviceKey("bob"), 0, 3, 2))
	w.wantReleased("bob", 3, 2)
	w.wantSeqs("bob", 1, 4, 5, 6, 7, 8)
	if q := w.queue("bob"); q.Head != 1 {
		t.Errorf("head: %+v", q)
	}
	w.do(acked(deviceKey("bob"), 0, 1))
	if q := w.queue("bob"); q.Head != 4 || q.Cursor != 0 {
		t.Errorf("head: %+v", q)
	}
	w.do(acked(deviceKey("bob"), 5, 4, 7))
	w.wantReleased("bob", 1, 4, 7, 5)
	w.wantSeqs("bob", 6, 8)
	w.refuse(acked(deviceKey("bob"), 0, 7), "not in the queue")
	w.refuse(acked(deviceKey("bob"), 0, 6, 6), "not in the queue")
	w.refuse(acked(deviceKey("bob"), 0, 9), "not in the queue")
	w.refuse(acked(deviceKey("bob"), 0, 0), "not in the queue")
	w.refuse(acked(deviceKey("bob"), 9), "tail is 8")
	w.do(acked(deviceKey("bob"), 8))
	w.wantSeqs("bob")
	w.do(acked(deviceKey("bob"), 8))
	w.wantReleased("bob", 6, 8)
}

func TestDrainMovesTheCursorAndKeepsItems(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	for n := 1; n <= 4; n++ {
		w.send(n, "alice", "bob")
	}
	w.do(drained(deviceKey("bob"), 3))
	q := w.queue("bob")
	if q.Cursor != 3 || q.Count != 4 || q.DrainedCount != 3 || q.DrainedBytes != 300 || q.Waiting() != 1 {
		t.Errorf("queue: %+v", q)
	}
	items, _, err := QueueItems(w.reader(), deviceKey("bob"), 3, 9, 999)
	if err != nil || len(items) != 2 || !items[0].Drained || items[1].Drained {
		t.Errorf("items: %+v, %v", items, err)
	}
	w.wantReleased("bob")
	w.refuse(drained(deviceKey("bob"), 2), "cursor 3")
	w.refuse(drained(deviceKey("bob"), 5), "tail 4")
	w.refuse(released(deviceKey("bob"), 4), "cursor is 3")
	// A drained item can still be acked; what counts it follows.
	w.do(acked(deviceKey("bob"), 0, 2))
	if q := w.queue("bob"); q.DrainedCount != 2 || q.DrainedBytes != 200 || q.Count != 3 {
		t.Errorf("queue: %+v", q)
	}
	w.do(released(deviceKey("bob"), 3))
	w.wantReleased("bob", 2, 1, 3)
	w.wantSeqs("bob", 4)
}

func TestDrainedItemsAreDueAfterTheirGrace(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	w.now -= w.now % hourMS
	w.now += hourMS
	due := func(nowMS uint64, limit int) []QueueRelease {
		t.Helper()
		got, err := DrainedDue(w.reader(), nowMS, dayMS, limit)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for n := 1; n <= 4; n++ {
		w.send(n, "alice", "bob")
	}
	w.send(9, "bob", "alice")
	first := w.now
	w.do(drained(deviceKey("bob"), 1))
	w.now += hourMS - 1
	w.do(drained(deviceKey("bob"), 2)) // the same hour
	w.now++
	w.do(drained(deviceKey("bob"), 3)) // the next one
	w.do(drained(deviceKey("alice"), 1))

	if got := due(first+hourMS+dayMS-1, 9); got != nil {
		t.Errorf("due before the grace: %+v", got)
	}
	bob2 := []QueueRelease{{deviceKey("bob"), 2}}
	if got := due(first+hourMS+dayMS, 9); !cmp.Equal(got, bob2) {
		t.Errorf("due after the first hour: %+v", got)
	}
	later := first + 2*hourMS + dayMS
	if got := due(later, 9); len(got) != 2 || got[0].UpTo+got[1].UpTo != 3+1 {
		t.Errorf("due after the second hour: %+v", got)
	}
	if got := due(later, 1); !cmp.Equal(got, []QueueRelease{{deviceKey("bob"), 1}}) {
		t.Errorf("due with a limit of one item: %+v", got)
	}
	w.now = later
	w.do(released(deviceKey("bob"), 1))
	if got := due(later, 1); !cmp.Equal(got, bob2) {
		t.Errorf("due with a limit of one item: %+v", got)
	}
	w.do(released(deviceKey("bob"), 3))
	if got := due(later, 9); !cmp.Equal(got, []QueueRelease{{deviceKey("alice"), 1}}) {
		t.Errorf("due after the release: %+v", got)
	}
	w.do(acked(deviceKey("alice"), 1)) // acked within the grace: nothing is left to do
	if got := due(later, 9); got != nil {
		t.Errorf("due after an ack: %+v", got)
	}
	if rows := w.rows(prefixDrain) + w.rows(prefixDrainDue); rows != 0 {
		t.Errorf("%d rows of drains are left", rows)
	}
}

// rows counts the rows of a view.
func (w *world) rows(prefix byte) int {
	w.t.Helper()
	n := 0
	err := scanView(w.reader(), []byte{prefix}, func(_, _ []byte) (bool, error) {
		n++
		return true, nil
	})
	if err != nil {
		w.t.Fatalf("rows: %v", err)
	}
	return n
}

func TestStrictEnqueue(t *testing.T) {
	w := queueWorld(t)
	defer w.close()
	bob, expires := deviceKey("bob"), w.now+dayMS
	good := func() *pb.MessageEnqueued { return enqueued(1, "alice", "bob", 100, expires, target(bob, 1)) }
	for _, c := range []struct {
		reason string
		spoil  func(*pb.MessageEnqueued)
	}{
		{"the next is 1", func(m *pb.MessageEnqueued) { m.Targets[0].Seq = 2 }},
		{"the next is 1", func(m *pb.MessageEnqueued) { m.Targets[0].Seq = 0 }},
		{"no queue", func(m *pb.MessageEnqueued) { m.Targets[0] = target(deviceKey("nobody"), 1) }},
		{"no device of the payload's owner", func(m *pb.MessageEnqueued) { m.Targets[0] = target(deviceKey("alice"), 1) }},
		{"to 0 devices", func(m *pb.MessageEnqueued) { m.Targets = nil }},
		{"of 0 bytes", func(m *pb.MessageEnqueued) { m.PayloadSize = 0 }},
		{"expires at", func(m *pb.MessageEnqueued) { m.ExpiresMs = w.now }},
		{"expires at", func(m *pb.MessageEnqueued) { m.ExpiresMs = 1 << 63 }},
		{"message id of 15 bytes", func(m *pb.MessageEnqueued) { m.MessageId = m.MessageId[1:] }},
		{"account id of 0 bytes", func(m *pb.MessageEnqueued) { m.AccountId = nil }},
		{"sender id of 17 bytes", func(m *pb.MessageEnqueued) { m.SenderId = append(m.SenderId, 0) }},
		{"payload hash of 31 bytes", func(m *pb.MessageEnqueued) { m.PayloadSha256 = m.PayloadSha256[1:] }},
		{"skipped device is none", func(m *pb.MessageEnqueued) { key := deviceKey("alice"); m.Skipped = [][]byte{key[:]} }},
		{"no queue", func(m *pb.MessageEnqueued) { m.Skipped = [][]byte{bytesOf("nobody")} }},
	} {
		ev := good()
		c.spoil(ev)
		w.refuse(ev, c.reason)
	}
	w.do(good())
	w.wantSeqs("bob", 1)
}
