package projections

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	pb "quicprochat/proto/qpcv1"
)

// model is what the queues and sessions of the views should hold, in plain maps
// and slices, written without a look at how the views do it.
type model struct {
	queues   map[Key]*modelQueue
	sessions map[Hash]Session
	receipts map[ID]string
	// references are the queues that hold a message.
	references map[ID]int
	released   map[ID]int
}

type modelQueue struct {
	owner            ID
	items            []QueueItem
	tail, cursor     uint64
	gapCount, gapEnd uint64
}

// remove takes out the items for which gone holds, and returns them.
func (m *model) remove(q *modelQueue, gone func(QueueItem) bool) (out []QueueItem) {
	var kept []QueueItem
	for _, it := range q.items {
		if !gone(it) {
			kept = append(kept, it)
			continue
		}
		out = append(out, it)
		if m.references[it.MessageID]--; m.references[it.MessageID] == 0 {
			m.released[it.MessageID]++
		}
	}
	q.items = kept
	return out
}

// machine drives views and model with the same random events.
type machine struct {
	*world
	model     model
	everybody []string
	names     []string // who have a device
	devices   []Key
	messages  int
	requests  int
	got       map[ID]int // payloads that the views released
	snapshot  uint64
}

func newMachine(t *rapid.T) *machine {
	m := &machine{
		world: newWorld(t), names: []string{"alice", "bob", "carol"}, got: map[ID]int{},
		model: model{map[Key]*modelQueue{}, map[Hash]Session{}, map[ID]string{}, map[ID]int{}, map[ID]int{}},
	}
	m.register(m.names...)
	for _, name := range m.names {
		m.devices = append(m.devices, deviceKey(name))
		m.model.queues[deviceKey(name)] = &modelQueue{owner: accountID(name)}
	}
	m.everybody = slices.Clone(m.names)
	return m
}

func (m *machine) device(t *rapid.T) (Key, *modelQueue) {
	device := rapid.SampledFrom(m.devices).Draw(t, "device")
	return device, m.model.queues[device]
}

func (m *machine) enqueue(t *rapid.T) {
	to := rapid.SampledFrom(m.names).Draw(t, "to")
	from := rapid.SampledFrom(m.names).Draw(t, "from")
	m.messages++
	device := deviceKey(to)
	q := m.model.queues[device]
	ttl := uint64(rapid.IntRange(1, 40).Draw(t, "minutes")) * minuteMS / 2
	size := uint32(rapid.IntRange(1, 2000).Draw(t, "size"))
	q.tail++
	q.items = append(q.items, QueueItem{
		Seq: q.tail, MessageID: messageID(m.messages), Owner: q.owner, Sender: accountID(from),
		Size: size, EnqueuedMS: m.now, ExpiresMS: m.now + ttl,
	})
	m.model.references[messageID(m.messages)] = 1
	m.requests++
	id := requestID(m.now, m.requests)
	m.model.receipts[id] = fmt.Sprint("outcome ", m.requests)
	m.doWith(enqueued(m.messages, from, to, size, m.now+ttl, target(device, q.tail)), receiptOf(from, 200, id, m.model.receipts[id]))
}

func (m *machine) drain(t *rapid.T) {
	device, q := m.device(t)
	upTo := rapid.Uint64Range(q.cursor, q.tail).Draw(t, "up to")
	q.cursor, q.gapCount, q.gapEnd = upTo, 0, 0
	m.do(drained(device, upTo))
}

func (m *machine) confirm(t *rapid.T) {
	device, q := m.device(t)
	upTo := rapid.Uint64Range(0, q.tail).Draw(t, "up to")
	m.model.confirm(q, upTo)
	m.do(confirmed(device, upTo))
}

func (m *model) confirm(q *modelQueue, upTo uint64) {
	m.remove(q, func(it QueueItem) bool { return it.Seq <= upTo })
	q.cursor = max(q.cursor, upTo)
	if upTo >= q.gapEnd {
		q.gapCount, q.gapEnd = 0, 0
	}
}

func (m *machine) ack(t *rapid.T) {
	device, q := m.device(t)
	var seqs []uint64
	for _, it := range q.items {
		if rapid.IntRange(0, 3).Draw(t, "ack") == 0 {
			seqs = append(seqs, it.Seq)
		}
	}
	seqs = rapid.Permutation(seqs).Draw(t, "order")
	m.model.remove(q, func(it QueueItem) bool { return slices.Contains(seqs, it.Seq) })
	upTo := uint64(0)
	if q.tail > 0 && rapid.Bool().Draw(t, "with a prefix") {
		upTo = rapid.Uint64Range(1, q.tail).Draw(t, "up to")
		m.model.confirm(q, upTo)
	}
	m.do(acked(device, upTo, seqs...))
}

// expire does what housekeeping does, and knows which items it must find.
func (m *machine) expire(t *rapid.T) {
	m.now += uint64(rapid.IntRange(0, 10).Draw(t, "minutes later")) * minuteMS
	limit := rapid.IntRange(1, 20).Draw(t, "limit")
	due, err := ExpiredMessages(m.reader(), m.now, limit)
	if err != nil {
		t.Fatalf("expired messages: %v", err)
	}
	for _, expiry := range due {
		q := m.model.queues[expiry.Device]
		gone := m.model.remove(q, func(it QueueItem) bool { return slices.Contains(expiry.Seqs, it.Seq) })
		for _, it := range gone {
			if it.ExpiresMS > m.now {
				t.Fatalf("item %d expires at %d, listed at %d", it.Seq, it.ExpiresMS, m.now)
			}
			if it.Seq > q.cursor {
				q.gapCount++
				q.gapEnd = max(q.gapEnd, it.Seq)
			}
		}
		if len(gone) != len(expiry.Seqs) {
			t.Fatalf("%d items listed, %d in the queue", len(expiry.Seqs), len(gone))
		}
		m.do(expired(expiry.Device, expiry.Seqs...))
	}
	if len(due) == 0 {
		for _, q := range m.model.queues {
			for _, it := range q.items {
				if it.ExpiresMS+minuteMS <= m.now {
					t.Fatalf("item %d expired at %d and is not found at %d", it.Seq, it.ExpiresMS, m.now)
				}
			}
		}
	}
}

func (m *machine) release(t *rapid.T) {
	m.now += uint64(rapid.IntRange(0, 20).Draw(t, "hours later")) * hourMS
	due, err := DrainedDue(m.reader(), m.now, dayMS, rapid.IntRange(1, 20).Draw(t, "limit"))
	if err != nil {
		t.Fatalf("drained: %v", err)
	}
	for _, r := range due {
		q := m.model.queues[r.Device]
		if r.UpTo > q.cursor {
			t.Fatalf("release up to %d, the cursor is %d", r.UpTo, q.cursor)
		}
		gone := m.model.remove(q, func(it QueueItem) bool { return it.Seq <= r.UpTo })
		if len(gone) == 0 {
			t.Fatalf("a release that removes nothing")
		}
		m.do(released(r.Device, r.UpTo))
	}
}

// revoke revokes a device key; one device stays.
func (m *machine) revoke(t *rapid.T) {
	if len(m.devices) < 2 || rapid.IntRange(0, 9).Draw(t, "revoke") > 0 {
		return
	}
	name := rapid.SampledFrom(m.names).Draw(t, "whose")
	device := deviceKey(name)
	m.model.remove(m.model.queues[device], func(QueueItem) bool { return true })
	delete(m.model.queues, device)
	maps.DeleteFunc(m.model.sessions, func(_ Hash, s Session) bool { return s.DeviceKey == device })
	m.devices = slices.DeleteFunc(m.devices, func(d Key) bool { return d == device })
	m.names = slices.DeleteFunc(slices.Clone(m.names), func(n string) bool { return n == name })
	m.do(revoked(device, m.now, pb.Authority_ADMINISTRATOR))
}

func (m *machine) login(t *rapid.T) {
	name := rapid.SampledFrom(m.names).Draw(t, "who")
	n := len(m.entries)
	expires := m.now + uint64(rapid.IntRange(1, 60).Draw(t, "days"))*dayMS
	m.model.sessions[tokenOf(name, n)] = Session{
		TokenHash: tokenOf(name, n), AccountID: accountID(name), DeviceKey: deviceKey(name),
		Scope: pb.SessionScope_DEVICE, LoginMS: m.now, ExpiresMS: expires, LastDay: dayOf(m.now),
	}
	m.do(sessionStarted(name, n, expires))
}

func (m *machine) touch(t *rapid.T) {
	for _, token := range sortedTokens(m.model.sessions) {
		s := m.model.sessions[token]
		if s.LastDay < dayOf(m.now) && rapid.Bool().Draw(t, "touch") {
			s.LastDay = dayOf(m.now)
			m.model.sessions[token] = s
			m.do(&pb.SessionTouched{TokenHash: token[:], Day: s.LastDay})
		}
	}
}

func (m *machine) endSessions(t *rapid.T) {
	m.now += uint64(rapid.IntRange(0, 15).Draw(t, "days later")) * dayMS
	ended, err := ExpiredSessions(m.reader(), m.now, 30*dayMS, 1000)
	if err != nil {
		t.Fatalf("expired sessions: %v", err)
	}
	var tokens []Hash
	for _, s := range ended {
		tokens = append(tokens, s.TokenHash)
		delete(m.model.sessions, s.TokenHash)
	}
	for _, s := range m.model.sessions {
		if s.ExpiredAt(m.now, 30*dayMS) {
			t.Fatalf("an expired session is not found")
		}
	}
	m.do(sessionsEnded(tokens...))
}

func (m *machine) dropReceipts(t *rapid.T) {
	before := m.now - uint64(rapid.IntRange(0, 120).Draw(t, "minutes ago"))*minuteMS
	maps.DeleteFunc(m.model.receipts, func(id ID, _ string) bool {
		return string(id[:6]) < string(receiptBound(nil, before)[1:])
	})
	m.do(&pb.ReceiptsExpired{BeforeMs: before})
}

func (m *machine) takeSnapshot(t *rapid.T) {
	m.commit()
	m.views.MarkSynced(uint64(len(m.entries)))
	size, digest, err := m.views.WriteSnapshot(m.fs, "data")
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	m.snapshot = size
	m.do(&pb.SnapshotTaken{Size: size, Digest: digest[:]})
}

func sortedTokens(sessions map[Hash]Session) []Hash {
	return slices.SortedFunc(maps.Keys(sessions), func(a, b Hash) int { return slices.Compare(a[:], b[:]) })
}

// check compares everything with the model.
func (m *machine) check(t *rapid.T) {
	for _, ref := range m.reader().Released() {
		m.got[ref.ID]++
	}
	if diff := cmp.Diff(m.model.released, m.got); diff != "" {
		t.Fatalf("released payloads (-want +got):\n%s", diff)
	}
	for device, want := range m.model.queues {
		m.checkQueue(t, device, want)
	}
	m.checkSessions(t)
	for id, outcome := range m.model.receipts {
		found := false
		for _, name := range m.everybody {
			if r, ok, err := Receipt(m.reader(), deviceKey(name), 200, id); err == nil && ok && string(r.Outcome) == outcome {
				found = true
			}
		}
		if !found {
			t.Fatalf("a receipt is missing")
		}
	}
	if rows := m.rows(prefixReceipt); rows != len(m.model.receipts) {
		t.Fatalf("%d receipts, want %d", rows, len(m.model.receipts))
	}
}

func (m *machine) checkQueue(t *rapid.T, device Key, want *modelQueue) {
	items, more, err := QueueItems(m.reader(), device, 0, 1<<20, 1<<40)
	if err != nil || more {
		t.Fatalf("items: %v", err)
	}
	got, _, err := Queue(m.reader(), device)
	if err != nil {
		t.Fatalf("queue: %v", err)
	}
	state := QueueState{
		Owner: want.owner, NextSeq: want.tail + 1, Cursor: want.cursor, Head: want.tail + 1,
		GapCount: want.gapCount, GapUpTo: want.gapEnd, expiryMark: got.expiryMark, drainMark: got.drainMark,
	}
	shares := map[ID]Share{}
	var wantItems []QueueItem
	for i, it := range want.items {
		if i == 0 {
			state.Head = it.Seq
		}
		state.Count++
		state.Bytes += uint64(it.Size)
		if it.Drained = it.Seq <= want.cursor; it.Drained {
			state.DrainedCount++
			state.DrainedBytes += uint64(it.Size)
		}
		share := shares[it.Sender]
		shares[it.Sender] = Share{share.Count + 1, share.Bytes + uint64(it.Size)}
		wantItems = append(wantItems, it)
	}
	if got != state {
		t.Fatalf("queue: got %+v, want %+v", got, state)
	}
	if !slices.Equal(items, wantItems) {
		t.Fatalf("items: got %+v, want %+v", items, wantItems)
	}
	for _, name := range m.everybody {
		if share, err := SenderShare(m.reader(), device, accountID(name)); err != nil || share != shares[accountID(name)] {
			t.Fatalf("share: got %+v, want %+v, %v", share, shares[accountID(name)], err)
		}
	}
}

func (m *machine) checkSessions(t *rapid.T) {
	got := map[Hash]Session{}
	for _, name := range m.everybody {
		sessions, err := SessionsOf(m.reader(), accountID(name))
		if err != nil {
			t.Fatalf("sessions: %v", err)
		}
		for _, s := range sessions {
			got[s.TokenHash] = s
		}
	}
	if !maps.Equal(got, m.model.sessions) {
		t.Fatalf("sessions: got %v, want %v", got, m.model.sessions)
	}
}

// rebuild makes the views again in two ways; both must have the live digest.
func (m *machine) rebuild(t *rapid.T) {
	live := m.digest()
	size := uint64(len(m.entries))
	for _, dir := range []string{"data", "copy"} { // with and without a snapshot
		if dir == "data" {
			m.views.MarkSynced(size)
			if err := m.views.Close(); err != nil {
				t.Fatalf("close: %v", err)
			}
		}
		v, err := DropAndRecreate(m.fs, dir, Options{LogSize: size})
		if err != nil {
			t.Fatalf("recreate: %v", err)
		}
		if dir == "data" && v.Cursor() != m.snapshot {
			t.Fatalf("restored to %d, want %d", v.Cursor(), m.snapshot)
		}
		m.replayInto(v, v.Cursor(), rapid.IntRange(1, 50).Draw(t, "group"))
		if got := digestOf(t, v); got != live {
			t.Fatalf("%s: rebuilt views have another digest", dir)
		}
		if dir == "data" {
			m.views = v
		} else if err := v.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
}

// TestViewsEqualAModel is the property that holds all of this together.
func TestViewsEqualAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		actions := map[string]func(*rapid.T){
			"enqueue 1": m.enqueue, "enqueue 2": m.enqueue, "enqueue 3": m.enqueue, "drain": m.drain, "confirm": m.confirm,
			"ack": m.ack, "expire": m.expire, "release": m.release, "revoke": m.revoke, "login": m.login, "touch": m.touch,
			"end sessions": m.endSessions, "drop receipts": m.dropReceipts, "snapshot": m.takeSnapshot,
			"commit": func(*rapid.T) { m.commit() }, "": m.check,
		}
		t.Repeat(actions)
		for _, ref := range m.reader().Released() {
			m.got[ref.ID]++
		}
		m.rebuild(t)
		m.check(t)
		m.close()
	})
}
