package commands_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"quicprochat/kt"
	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// oracle follows the log by itself: a Merkle tree of x/mod/sumdb/tlog over its
// leaves, and views in a memory of their own that its events are folded into.
type oracle struct {
	read   uint64 // records taken in
	hashes []tlog.Hash
	heads  []seenHead
	shadow *projections.Views
	law    *lawOfTheLog
	// receipts and payloads are those that were there at the last look.
	receipts map[receiptName]bool
	payloads map[*modelMessage]bool
	compared map[*modelMessage]bool            // huge payloads that were read once
	packages map[projections.ID]projections.ID // KeyPackages seen, with their account
}

// seenHead is a HEAD of the log.
type seenHead struct{ index, at uint64 }

func newOracle(w *world) *oracle {
	o := &oracle{}
	o.forget(w)
	w.t.Cleanup(func() { o.close(w) })
	return o
}

// forget has the oracle expect another log.
func (o *oracle) forget(w *world) {
	o.receipts, o.payloads, o.compared = map[receiptName]bool{}, map[*modelMessage]bool{}, map[*modelMessage]bool{}
	o.packages = map[projections.ID]projections.ID{}
	o.close(w)
	o.open(w)
}

// close ends the shadow: its store has timers that would fire through a pause.
func (o *oracle) close(w *world) {
	if o.shadow != nil {
		w.check(o.shadow.Close())
		o.shadow = nil
	}
}

// open begins to follow the log from its first record.
func (o *oracle) open(w *world) {
	o.read, o.hashes, o.heads, o.law = 0, nil, nil, newLaw()
	var err error
	o.shadow, err = projections.DropAndRecreate(vfs.NewMem(), "shadow", projections.Options{LogSize: 1 << 40, CacheBytes: 1 << 20})
	w.check(err)
}

// ReadHashes implements tlog.HashReader.
func (o *oracle) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		hashes[i] = o.hashes[index]
	}
	return hashes, nil
}

// catchUp takes in what the log got and returns its root and the digest of the
// views that come of it.
func (o *oracle) catchUp(w *world) (root kt.Hash, digest projections.Hash) {
	batch := o.shadow.NewBatch()
	w.check(w.log.Iterate(o.read, w.log.Size(), func(index uint64, r log.Record) error {
		stored, err := tlog.StoredHashes(int64(index), r.Leaf, o)
		if err != nil {
			return err
		}
		o.hashes = append(o.hashes, stored...)
		event, err := projections.DecodeEvent(r.Event)
		if err != nil {
			return err
		}
		if err := o.law.observe(event); err != nil {
			return fmt.Errorf("record %d: %w", index, err)
		}
		if event.GetHeadSealed() != nil {
			o.heads = append(o.heads, seenHead{index, event.GetTimeMs()})
		}
		return projections.Apply(batch, &projections.Entry{Index: index, Leaf: r.Leaf, Opening: r.Opening, Raw: r.Event, Event: event})
	}))
	batch.Released()
	w.check(batch.Commit())
	w.check(batch.Close())
	o.read = w.log.Size()
	hash, err := tlog.TreeHash(int64(o.read), o)
	w.check(err)
	snapshot := o.shadow.Snapshot()
	defer snapshot.Close()
	digest, err = projections.Digest(snapshot)
	w.check(err)
	return kt.Hash(hash), digest
}

// compare holds log and published views against the model.
func (m *machine) compare(t *rapid.T) {
	if size := m.log.Size(); size != m.model.events {
		t.Fatalf("the log has %d records, the model %d", size, m.model.events)
	}
	root, digest := m.oracle.catchUp(m.world)
	m.compareHeads(t)
	if root != m.log.Root() {
		t.Fatalf("the log's root is %x, tlog's %x", m.log.Root(), root)
	}
	if anchored, _ := m.log.Anchored(); anchored != m.log.Size() {
		t.Fatalf("%d records are anchored of %d", anchored, m.log.Size())
	}
	if views := m.digest(); views != digest {
		t.Fatalf("the views have digest %x, the events fold to %x", views, digest)
	}
	view := m.view()
	defer view.Release()
	for _, name := range people {
		account, found, err := projections.AccountByName(view.Reader, name)
		m.check(err)
		if a := m.model.accounts[name]; found != (a != nil) {
			t.Fatalf("account %s: there %v, in the model %v", name, found, a != nil)
		} else if found {
			m.compareAccount(t, view.Reader, &account, a)
		}
	}
	for _, device := range slices.SortedFunc(maps.Keys(m.model.queues), func(a, b projections.Key) int { return bytes.Compare(a[:], b[:]) }) {
		m.compareQueue(t, view.Reader, device, m.model.queues[device])
	}
	m.comparePayloads(t)
	m.comparePackages(t, view.Reader)
	m.compareKeys(t, view.Reader)
	m.compareBans(t, view.Reader)
	m.compareReports(t, view.Reader)
	m.compareReceipts(t, view.Reader)
}

// compareHeads: the log has each HEAD that it must have, where and of when it must
// be, and no other.
func (m *machine) compareHeads(t *rapid.T) {
	if len(m.oracle.heads) != len(m.model.seals) {
		t.Fatalf("the log has %d HEADs, the model %d", len(m.oracle.heads), len(m.model.seals))
	}
	for i, want := range m.model.seals {
		if got := m.oracle.heads[i]; got.index < want.from || got.index >= want.before || got.at != want.at {
			t.Fatalf("HEAD %d is %+v, in the model %+v", i, got, want)
		}
	}
}

func (m *machine) compareAccount(t *rapid.T, view projections.Reader, got *projections.Account, a *modelAccount) {
	if a.id == (projections.ID{}) {
		a.id = got.ID // drawn by the server
	}
	record, _, err := projections.OpaqueRecord(view, got.ID)
	m.check(err)
	keySet, _, err := projections.KeySet(view, a.identity)
	m.check(err)
	newest, _, err := projections.KTNewest(view, kt.KindIdentity, a.identity[:])
	m.check(err)
	switch {
	case got.ID != a.id || got.IdentityKey != a.identity || !slices.Equal(got.Devices, a.devices):
		t.Fatalf("account %s: %+v", a.name, got)
	case record.GetVersion() != a.record || !bytes.Equal(record.GetUpload(), a.upload) || !bytes.Equal(record.GetCredentialId(), a.credential[:]):
		t.Fatalf("password of %s: version %d, in the model %d", a.name, record.GetVersion(), a.record)
	case !proto.Equal(keySet, a.keySet()) || newest != a.keySet().GetVersion():
		t.Fatalf("KeySet of %s: version %d (%d in key transparency), in the model %d", a.name, keySet.GetVersion(), newest, a.keySet().GetVersion())
	}
	sessions, err := projections.SessionsOf(view, got.ID)
	m.check(err)
	var want []projections.Session
	for _, s := range m.model.sessions {
		if s.account == a.name {
			want = append(want, s.row(a.id))
		}
	}
	byToken := func(a, b projections.Session) int { return bytes.Compare(a.TokenHash[:], b.TokenHash[:]) }
	slices.SortFunc(sessions, byToken)
	slices.SortFunc(want, byToken)
	if !slices.Equal(sessions, want) {
		t.Fatalf("sessions of %s: %+v\nmodel %+v", a.name, sessions, want)
	}
}

func (m *machine) compareQueue(t *rapid.T, view projections.Reader, device projections.Key, q *deviceQueue) {
	state, found, err := projections.Queue(view, device)
	m.check(err)
	want := projections.QueueState{Owner: m.model.accounts[q.owner].id, NextSeq: q.next, Cursor: q.cursor,
		Head: q.next, Count: uint64(len(q.items)), GapCount: q.lost, GapUpTo: q.lostUpTo}
	shares := map[string]projections.Share{}
	for i, it := range q.items {
		size := uint64(len(it.payload))
		want.Head, want.Bytes = q.items[0].seq, want.Bytes+size
		if it.seq <= q.cursor {
			want.DrainedCount, want.DrainedBytes = want.DrainedCount+1, want.DrainedBytes+size
		}
		share := shares[it.sender]
		shares[it.sender] = projections.Share{Count: share.Count + 1, Bytes: share.Bytes + size}
		if i > 0 && (it.seq <= q.items[i-1].seq || it.enqueued < q.items[i-1].enqueued) {
			t.Fatalf("the model's queue of %s is out of order", q.owner)
		}
	}
	if got := summary(state); !found || got != summary(want) {
		t.Fatalf("queue of %s: %+v\nmodel %+v", q.owner, got, summary(want))
	}
	items, _, err := projections.QueueItems(view, device, 1, 1<<20, 1<<40)
	m.check(err)
	for i, it := range items { // as many as in the model, by the summary
		w := q.items[i]
		if w.control != nil && w.id == (projections.ID{}) {
			w.id = it.MessageID // drawn by the server, and told nobody before
		}
		var sender projections.ID // zero: the server
		if a := m.model.accounts[w.sender]; a != nil {
			sender = a.id
		}
		if it.Seq != w.seq || it.MessageID != w.id || it.Sender != sender || it.Owner != m.ownerOf(w.modelMessage) ||
			it.Size != uint32(len(w.payload)) || it.EnqueuedMS != w.enqueued || it.ExpiresMS != w.expires || it.Drained != (w.seq <= q.cursor) {
			t.Fatalf("item %d of %s's queue: %+v\nmodel %d %x drained %v", i, q.owner, it, w.seq, w.id, w.seq <= q.cursor)
		}
		m.oracle.payloads[w.modelMessage] = true
	}
	for name, a := range m.model.accounts {
		share, err := projections.SenderShare(view, device, a.id)
		m.check(err)
		if share != shares[name] {
			t.Fatalf("share of %s in %s's queue: %+v, in the model %+v", name, q.owner, share, shares[name])
		}
	}
}

// summary leaves out what the views note for themselves.
func summary(q projections.QueueState) [12]uint64 {
	return [12]uint64{q.NextSeq, q.Cursor, q.Head, q.Count, q.Bytes, q.DrainedCount, q.DrainedBytes, q.GapCount, q.GapUpTo,
		uint64(q.Owner[0]), uint64(q.Owner[1]), uint64(q.Owner[15])}
}

// ownerOf is what a payload is stored under: the channel of a post, else an
// account.
func (m *machine) ownerOf(message *modelMessage) projections.ID {
	if message.post > 0 {
		return message.channel.id
	}
	return m.model.accounts[message.owner].id
}

// comparePayloads: what waits is there, and what left is gone. Huge ones are
// looked at when they came and when they left.
func (m *machine) comparePayloads(t *rapid.T) {
	waiting := map[*modelMessage]bool{}
	for _, q := range m.model.queues {
		for _, it := range q.items {
			waiting[it.modelMessage] = true
		}
	}
	for message := range m.oracle.payloads {
		waits := waiting[message]
		if waits && m.oracle.compared[message] {
			continue
		}
		m.oracle.compared[message] = len(message.payload) == len(huge)
		data, found, err := m.engine.Payload(m.ownerOf(message), message.id)
		m.check(err)
		if found != waits || found && string(data) != message.payload {
			t.Fatalf("message %x: payload there %v, waits %v", message.id, found, waits)
		}
		if !waits {
			delete(m.oracle.payloads, message)
		}
	}
}

// compareReceipts: each request that was decided is known, and none that was
// forgotten.
func (m *machine) compareReceipts(t *rapid.T, view projections.Reader) {
	for name := range m.model.receipts {
		m.oracle.receipts[name] = true
	}
	for name := range m.oracle.receipts {
		got, found, err := projections.Receipt(view, name.device, name.method, name.id)
		m.check(err)
		want := m.model.receipts[name]
		if found != (want != nil) || found && got.TimeMS != want.at {
			t.Fatalf("receipt of method %d: there %v, in the model %v", name.method, found, want != nil)
		}
		if want == nil {
			delete(m.oracle.receipts, name)
		}
	}
}

// row is the session as the views have it.
func (s *modelSession) row(account projections.ID) projections.Session {
	row := projections.Session{
		TokenHash: sha256.Sum256(s.token), AccountID: account, DeviceKey: s.device, Scope: pb.SessionScope_ENROLL_ONLY,
		LoginMS: s.began, ExpiresMS: s.expires, LastDay: uint32(s.day),
	}
	if s.isDevice() {
		row.Scope = pb.SessionScope_DEVICE
	}
	return row
}
