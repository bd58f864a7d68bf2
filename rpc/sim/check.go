package sim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/mod/sumdb/tlog"

	"quicprochat/log"
	"quicprochat/projections"
	"quicprochat/rpc/server"
)

// probe looks at a running node, each time something is published.
type probe struct {
	world *World
	node  *server.Node
	disk  *Disk
	dead  atomic.Bool
	looks int // by the node's acker only
}

func (p *probe) look() {
	v, err := p.node.Engine().View()
	if err != nil {
		return
	}
	defer v.Release()
	if p.dead.Load() {
		return
	}
	h := p.world.History
	published := v.Reader.(*projections.Snapshot).Size()
	anchored, root := p.node.Log().Anchored()
	if published > anchored {
		h.Wrong(fmt.Sprintf("%d events are published and %d anchored", published, anchored))
	}
	if p.looks++; p.looks%8 == 0 {
		if durable := anchorSize(p.disk.Durable()); published > durable {
			h.Wrong(fmt.Sprintf("%d events are published, the anchor on disk says %d", published, durable))
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if old, ok := h.marks[anchored]; ok && old != root {
		h.wrong = append(h.wrong, fmt.Sprintf("two roots for size %d", anchored))
	}
	h.marks[anchored] = root
}

// anchorSize reads the newest valid slot of an anchor file by itself: magic, store
// id, size, root, checksum, twice.
func anchorSize(fs *vfs.MemFS) (size uint64) {
	content, err := readAll(fs, DataDir+"/anchor")
	if err != nil {
		return 0
	}
	const stride, at = 4096, 16 + 16
	for i := 0; i+stride <= len(content); i += stride {
		slot := content[i : i+at+8+32+32]
		if sum := hashOf(slot[:at+8+32]); bytes.Equal(sum[:], slot[at+8+32:]) {
			size = max(size, binary.BigEndian.Uint64(slot[at:]))
		}
	}
	return size
}

// checkStart looks at a server that came back.
func (w *World) checkStart(end ending) error {
	if w.logs.has("views are built anew", "ahead") {
		return errors.New("the views were ahead of the log after a crash")
	}
	if size := w.node.Log().Size(); size < w.History.lives[len(w.History.lives)-1].Anchored {
		return fmt.Errorf("%d events came back, the anchor said %d", size, w.History.lives[len(w.History.lives)-1].Anchored)
	}
	if err := w.checkRunning(); err != nil {
		return fmt.Errorf("after the start: %w", err)
	}
	return nil
}

// check judges the whole history over what is on the disk in the end.
func (w *World) check() error {
	return CheckDisk(w.disk.fs, w.History)
}

// CheckDisk opens what a stopped server left and holds it against the model and,
// if there is one, against what people were told.
func CheckDisk(fs *vfs.MemFS, h *History) error {
	format, err := log.ReadFormat(fs, DataDir)
	if err != nil {
		return err
	}
	l, err := log.Open(fs, DataDir, log.Options{StoreID: format.StoreID, CacheBytes: 1 << 20})
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	m := NewModel()
	err = replay(l, l.Size(), m)
	if err == nil {
		err = checkPayloads(l, m)
	}
	if err == nil {
		err = checkViews(fs, l, m)
	}
	if err == nil && h != nil {
		err = h.check(l, m)
	}
	return errors.Join(err, l.Close())
}

// checkRunning holds what a running server shows against the model and against
// views that are built from nothing, while queues are full and sessions alive.
func (w *World) checkRunning() error {
	v, err := w.node.Engine().View()
	if err != nil {
		return err
	}
	defer v.Release()
	snap, l, m := v.Reader.(*projections.Snapshot), w.node.Log(), NewModel()
	if err := replay(l, snap.Size(), m); err != nil {
		return err
	}
	if err := compareWithRebuilt(snap, l, snap.Size()); err != nil {
		return err
	}
	return CompareViews(snap, m)
}

// replay feeds the first events of the log to the model and computes the root a
// second way.
func replay(l *log.Log, size uint64, m *Model) error {
	tree, heads := &leafHashes{}, &headChecker{}
	err := l.Iterate(0, size, func(index uint64, r log.Record) error {
		ev, err := projections.DecodeEvent(r.Event)
		if err != nil {
			return err
		}
		if err := m.Apply(ev); err != nil {
			return fmt.Errorf("event %d: %w", index, err)
		}
		if err := heads.add(index, r.Leaf, ev.TimeMs); err != nil {
			return err
		}
		return tree.add(r.Leaf)
	})
	if err == nil {
		err = heads.end()
	}
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	root, err := tlog.TreeHash(int64(size), tree)
	if err != nil {
		return err
	}
	if got, err := l.RootAt(size); err != nil || root != tlog.Hash(got) {
		return fmt.Errorf("the log's root is %x, tlog's is %x (%w)", got, root, err)
	}
	if got := l.Root(); size == l.Size() && root != tlog.Hash(got) {
		return fmt.Errorf("the log's root is %x, tlog's is %x", got, root)
	}
	return nil
}

// leafHashes is a tree as x/mod/sumdb/tlog has it.
type leafHashes struct {
	n      int64
	hashes []tlog.Hash
}

func (t *leafHashes) add(leaf []byte) error {
	stored, err := tlog.StoredHashes(t.n, leaf, t)
	t.n++
	t.hashes = append(t.hashes, stored...)
	return err
}

// ReadHashes implements tlog.HashReader.
func (t *leafHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		out[i] = t.hashes[index]
	}
	return out, nil
}

// checkPayloads: what waits is there, and what was released is gone.
func checkPayloads(l *log.Log, m *Model) error {
	for k, want := range m.Payloads {
		data, found, err := l.Payload(log.PayloadKey{Owner: k.Owner, ID: k.ID})
		if err != nil || !found || hashOf(data) != want {
			return fmt.Errorf("payload %x of an item that waits: found %v, %v", k.ID, found, err)
		}
	}
	for k := range m.Gone {
		if _, found, err := l.Payload(log.PayloadKey{Owner: k.Owner, ID: k.ID}); err != nil || found {
			return fmt.Errorf("payload %x was released and is still there (%v)", k.ID, err)
		}
	}
	return nil
}

// check holds what people were told against the final log.
func (h *History) check(l *log.Log, m *Model) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var wrong []error
	add := func(format string, args ...any) {
		if len(wrong) < 8 {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	for _, w := range h.wrong {
		add("%s", w)
	}
	for size, root := range h.marks {
		if got, err := l.RootAt(size); err != nil || got != root {
			add("history was rewritten below %d, which was anchored (%v)", size, err)
		}
	}
	for _, f := range h.facts {
		if err := f.Check(m); err != nil {
			add("%s: %w", f.What, err)
		}
	}
	h.checkSent(m, add)
	h.checkReads(m, add)
	h.checkAcks(m, add)
	h.checkPackages(m, add)
	h.checkRooms(m, add)
	h.checkBans(m, add)
	h.checkRemoved(add)
	return errors.Join(wrong...)
}

type adder func(format string, args ...any)

// checkSent: acknowledged is stored once, unknown at most once, refused never;
// anchored before it was told; in the order of time.
func (h *History) checkSent(m *Model, add adder) {
	byHash := map[[32]byte][]ID{}
	for id, msg := range m.Messages {
		if msg.Control {
			continue // the server's own word
		}
		byHash[msg.SHA256] = append(byHash[msg.SHA256], id)
	}
	known := map[[32]byte]bool{}
	for _, s := range h.sent {
		known[s.Hash] = true
		stored := byHash[s.Hash]
		switch {
		case len(stored) > 1:
			add("a message of %s is stored %d times", s.By.name, len(stored))
		case s.Outcome == Done && len(stored) == 0:
			add("a message of %s was acknowledged and is lost", s.By.name)
		case s.Outcome == Refused && len(stored) > 0:
			add("a message of %s was refused and is stored", s.By.name)
		case s.Outcome == Done && stored[0] != s.Message:
			add("a message of %s was acknowledged as %x and is stored as %x", s.By.name, s.Message, stored[0])
		case s.Outcome == Done && s.Channel != (ID{}):
			h.checkPost(s, m, add)
		case s.Outcome == Done:
			h.checkDelivery(s, m, add)
		}
	}
	for hash := range byHash {
		if !known[hash] {
			add("a message is stored that nobody sent")
		}
	}
	h.checkOrder(m, add)
}

func (h *History) checkDelivery(s *Sent, m *Model, add adder) {
	msg := m.Messages[s.Message]
	seq, there := msg.Targets[s.To]
	if sender := m.Accounts[s.By.name]; sender == nil || msg.Sender != sender.ID || !there {
		add("a message of %s is stored as another's or for another", s.By.name)
	}
	h.checkStored(s, msg, add)
	if r, gone := m.queueOf(s.To).Removed[seq]; gone && r.TimeMS < s.start {
		add("item %d went before it came", seq)
	}
}

// checkStored: it was decided while it was sent, and anchored before it was
// acknowledged.
func (h *History) checkStored(s *Sent, msg *Message, add adder) {
	h.checkTime(s, msg, add)
	if size := h.anchoredBy(s.end); msg.Index >= size {
		add("a message of %s was acknowledged and lay beyond the anchor (%d ≥ %d)", s.By.name, msg.Index, size)
	}
	for _, life := range h.lives {
		if s.end < life.end && s.start >= life.start && msg.Index >= life.Anchored {
			add("a message of %s was acknowledged and lay beyond the anchor (%d ≥ %d) at the %s", s.By.name, msg.Index, life.Anchored, life.Cause)
		}
	}
}

// clockGrace is how long a group may still be open that was begun before the
// clock went wrong, in milliseconds: longer than syncs hang.
const clockGrace = 2000

// checkTime: a message is decided while it is sent, by the true time, and not
// while the server's clock is wrong.
func (h *History) checkTime(s *Sent, msg *Message, add adder) {
	if msg.TimeMS < s.start || msg.TimeMS > s.end {
		add("a message of %s was sent from %d to %d and is said to be of %d", s.By.name, s.start, s.end, msg.TimeMS)
	}
	for _, wrong := range h.clock {
		if s.start > wrong.start+clockGrace && s.end < wrong.end {
			add("a message of %s was accepted while the server's clock was wrong", s.By.name)
		}
	}
}

// checkOrder: of two acknowledged messages to one device, of which one was
// acknowledged before the other was sent, it has the smaller number.
func (h *History) checkOrder(m *Model, add adder) {
	for i, a := range h.sent {
		for _, b := range h.sent[i+1:] {
			if a.Outcome != Done || b.Outcome != Done || a.To != b.To || a.Channel != (ID{}) || b.Channel != (ID{}) {
				continue
			}
			first, second := a, b
			if b.before(a.span) {
				first, second = b, a
			} else if !a.before(b.span) {
				continue
			}
			if x, y := m.Messages[first.Message], m.Messages[second.Message]; x != nil && y != nil && x.Targets[a.To] >= y.Targets[a.To] {
				add("item %d was acknowledged before item %d was sent", x.Targets[a.To], y.Targets[a.To])
			}
		}
	}
}

// checkAcks: what was acknowledged is gone, and nothing goes without a reason.
func (h *History) checkAcks(m *Model, add adder) {
	for _, a := range h.acks {
		if a.Outcome != Done {
			continue
		}
		for seq := range m.queueOf(a.Device).Assigned {
			r, gone := m.queueOf(a.Device).Removed[seq]
			if (seq <= a.UpTo || slices.Contains(a.Seqs, seq)) && (!gone || r.TimeMS > a.end) {
				add("item %d was acked and stayed", seq)
			}
		}
	}
	for device, q := range m.Queues {
		for seq, r := range q.Removed {
			if (r.Cause == "acked" || r.Cause == "confirmed") && !h.wanted(m, device, seq, r.TimeMS) {
				add("item %d was %s, and nobody asked for it", seq, r.Cause)
			}
		}
	}
}

// wanted tells whether somebody asked for an item to go, at a time or before.
func (h *History) wanted(m *Model, device Key, seq, at uint64) bool {
	for _, a := range h.acks {
		if m.heir(a.Device) == device && a.start <= at && (seq <= a.UpTo || slices.Contains(a.Seqs, seq)) {
			return true
		}
	}
	for _, r := range h.reads {
		if m.heir(r.Device) == device && r.Confirm && r.start <= at && seq <= r.After {
			return true
		}
	}
	return false
}
