package log

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"quicprochat/kt"
)

// Group collects the records and payload operations that become durable together. One goroutine at a time makes
// and commits groups, one after the other: a new group starts at the index where the one committed before it ended.
// A group that is not wanted any more is dropped with Discard.
type Group struct {
	groupBuffers
	l     *Log
	batch *pebble.Batch // payload operations; the segment joins them at the commit
	first uint64

	payloads, payloadBytes, released uint64
}

// groupBuffers is the memory that one group hands on to the next.
type groupBuffers struct {
	seg   segmentWriter
	head  compactRange // of the log with the group's records
	nodes newNodes
}

// NewGroup starts an empty group behind the last committed one.
func (l *Log) NewGroup() *Group {
	g := &Group{groupBuffers: l.spare, l: l, batch: l.store.db.NewBatch()}
	l.spare = groupBuffers{}
	l.mu.RLock()
	g.head.set(&l.head)
	l.mu.RUnlock()
	g.first = g.head.size
	g.seg.reset(g.first)
	g.nodes.reset()
	return g
}

// First is the index of the group's first record.
func (g *Group) First() uint64 { return g.first }

// Next is the index that the next appended record gets.
func (g *Group) Next() uint64 { return g.head.size }

// Empty tells that the group would write nothing.
func (g *Group) Empty() bool { return g.head.size == g.first && g.batch.Empty() }

// Bytes is the number of bytes that the group would write.
func (g *Group) Bytes() int { return g.seg.size() + g.batch.Len() }

// Append adds a record, copying its bytes, and returns its index. It panics on a leaf that is empty or longer than
// MaxLeafLen.
func (g *Group) Append(r Record) uint64 {
	index := g.head.size
	g.seg.add(&r)
	g.head.add(kt.LeafHash(r.Leaf), &g.nodes)
	return index
}

// PutPayload stores a payload, copying its bytes.
func (g *Group) PutPayload(k PayloadKey, data []byte) {
	op := g.batch.SetDeferred(payloadKeyLen, len(data))
	appendPayloadKey(op.Key[:0], k)
	copy(op.Value, data)
	mustFinish(op.Finish())
	g.payloads++
	g.payloadBytes += uint64(len(data))
}

// ReleasePayload deletes one payload; one that does not exist is no error.
func (g *Group) ReleasePayload(k PayloadKey) {
	op := g.batch.DeleteDeferred(payloadKeyLen)
	appendPayloadKey(op.Key[:0], k)
	mustFinish(op.Finish())
	g.released++
}

// DeletePayloads deletes all payloads of an owner, those that this group put before included. It costs every later
// reader of that key range: releasing is for everyday use, this for an owner who is gone.
func (g *Group) DeletePayloads(owner [16]byte) {
	r := ownerRange(owner)
	mustFinish(g.batch.DeleteRange(r.lower, r.upper, nil))
}

// mustFinish: operations on a batch without index cannot fail.
func mustFinish(err error) {
	if err != nil {
		panic(fmt.Sprintf("log: batch operation failed: %v", err))
	}
}

// Root is the RFC 6962 root of the log with the group's records.
func (g *Group) Root() kt.Hash { return g.head.root() }

// Discard drops the group without a trace. After Commit, also a failed one, it does nothing.
func (g *Group) Discard() {
	if g.batch != nil {
		g.l.spare = g.groupBuffers
		_ = g.batch.Close() // memory only
		g.batch = nil
	}
}

// Commit writes the group as one batch and returns before its sync. The records are readable at once, though not yet
// durable. After an error the outcome is unknown: the log has failed and the process must restart. The group must not
// be used afterwards. A group that does not start where the log ends is refused with ErrGroupOrder.
func (g *Group) Commit() (*Pending, error) {
	l := g.l
	if g.batch == nil || g.first != l.Size() {
		return nil, fmt.Errorf("%w: commit of records from %d on at size %d", ErrGroupOrder, g.first, l.Size())
	}
	p := &Pending{l: l, head: head{g.head.size, g.head.root()}}
	segmentBytes := 0
	if g.head.size > g.first {
		segmentBytes = g.seg.size()
		op := g.batch.SetDeferred(segmentKeyLen, segmentBytes)
		appendSegmentKey(op.Key[:0], g.first)
		g.seg.encode(op.Value)
		mustFinish(op.Finish())
	}
	if !g.batch.Empty() {
		batch := g.batch
		g.batch = nil // from here on Pebble's: its write-ahead log may refer to the batch also after an error
		if err := l.store.applyNoSyncWait(batch); err != nil {
			return nil, err
		}
		p.batch = batch
		l.count(g, segmentBytes)
	}
	full := l.publish(g, p.head.root)
	g.batch, l.spare = nil, g.groupBuffers
	if full {
		l.wakeTiles()
	}
	return p, nil
}

// publish makes the group's records part of size, root and edge; it tells whether a bundle is full.
func (l *Log) publish(g *Group, root kt.Hash) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.head.set(&g.head)
	l.root = root
	l.edge.appendNodes(&g.nodes)
	g.seg.eachLeaf(l.edge.appendEntry)
	return l.edge.full() > 0
}

func (l *Log) count(g *Group, segmentBytes int) {
	c := &l.counters
	c.batches.Add(1)
	c.syncs.Add(1)
	c.records.Add(g.head.size - g.first)
	c.segmentBytes.Add(uint64(segmentBytes))
	c.payloads.Add(g.payloads)
	c.payloadBytes.Add(g.payloadBytes)
	c.released.Add(g.released)
}

// Pending is a committed group whose sync may not have returned yet.
type Pending struct {
	l     *Log
	batch *pebble.Batch // nil: the group was empty
	head  head
}

// Wait returns when the group is durable. An error is of unknown outcome and fails the log. Wait is called exactly
// once for each Pending, in commit order.
func (p *Pending) Wait() error {
	if p.batch != nil {
		err := p.batch.SyncWait()
		if err != nil {
			return p.l.fail.set(fmt.Errorf("sync the log: %w", err))
		}
		_ = p.batch.Close() // memory only
		p.batch = nil
	}
	if err := p.l.fail.get(); err != nil {
		return err
	}
	p.l.synced.Store(p.head.size)
	return nil
}

// Size is the size of the log with the group.
func (p *Pending) Size() uint64 { return p.head.size }

// Root is the RFC 6962 root at Size.
func (p *Pending) Root() kt.Hash { return p.head.root }
