package log

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// ioCount counts what reaches the disk.
type ioCount struct {
	walSyncs, anchorSyncs, anchorWrites atomic.Int64
}

func (c *ioCount) observe(op errorfs.Op) error {
	sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
	switch {
	case strings.HasSuffix(op.Path, ".log") && sync:
		c.walSyncs.Add(1)
	case strings.HasSuffix(op.Path, AnchorFile) && sync:
		c.anchorSyncs.Add(1)
	case strings.HasSuffix(op.Path, AnchorFile) && op.Kind == errorfs.OpFileWriteAt:
		c.anchorWrites.Add(1)
	}
	return nil
}

// One group is one batch and one sync of the write-ahead log; an anchor is one write and one sync; tiles add no sync.
func TestIOBudget(t *testing.T) {
	fs := vfs.NewMem()
	createLog(t, fs)
	var c ioCount
	counting := errorfs.Wrap(fs, errorfs.InjectorFunc(c.observe))
	l, err := Open(counting, testDir, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	c.walSyncs.Store(0)
	const groups, perGroup, anchorEvery = 40, 20, 4 // less than a memory table, whose end costs a sync too
	var payloadBytes int
	var anchors int64
	for i := range groups {
		g := l.NewGroup()
		for range perGroup {
			index := g.Append(testRecord(g.Next()))
			k, data := testPayload(index)
			g.PutPayload(k, data)
			payloadBytes += len(data)
		}
		k, _ := testPayload(uint64(i))
		g.ReleasePayload(k)
		p := mustCommit(t, g)
		if i%anchorEvery == 0 {
			if err := l.WriteAnchor(p.Size(), p.Root()); err != nil {
				t.Fatal(err)
			}
			anchors++
		}
	}
	if got := c.walSyncs.Load(); got != groups {
		t.Errorf("%d syncs of the write-ahead log for %d groups", got, groups)
	}
	if w, s := c.anchorWrites.Load(), c.anchorSyncs.Load(); w != anchors || s != anchors {
		t.Errorf("%d writes and %d syncs for %d anchors", w, s, anchors)
	}
	mustClose(t, l) // tiles are stored beside the groups, at the latest by now
	got := l.Counters()
	if got.TileBatches == 0 || got.TileBatches > groups*perGroup/tileWidth+1 {
		t.Errorf("%d tile batches", got.TileBatches)
	}
	want := Counters{
		Batches: groups, Records: groups * perGroup, Syncs: groups, Payloads: groups * perGroup,
		PayloadBytes: uint64(payloadBytes), Released: groups, AnchorSyncs: uint64(anchors),
		SegmentBytes: got.SegmentBytes, TileBatches: got.TileBatches,
	}
	if got != want {
		t.Errorf("counters %+v, want %+v", got, want)
	}
}

// What a record costs beyond its own bytes stays small.
func TestSegmentOverhead(t *testing.T) {
	l := newLogForTest(t)
	g := l.NewGroup()
	content := 0
	for range 500 {
		r := testRecord(g.Next())
		content += len(r.Leaf) + len(r.Opening) + len(r.Event)
		g.Append(r)
	}
	mustCommit(t, g)
	overhead := int(l.Counters().SegmentBytes) - content
	if limit := 500*(recordHead+endLen) + segmentHead + segmentFoot; overhead > limit {
		t.Errorf("%d bytes around 500 records, more than %d", overhead, limit)
	}
}

// Appending allocates nothing per record once the buffers have grown, and a payload nothing but the batch's growth.
func TestAppendAllocations(t *testing.T) {
	l := newLogForTest(t)
	r := testRecord(1)
	k, data := testPayload(1)
	run := func() {
		g := l.NewGroup()
		for range 200 {
			g.Append(r)
			g.PutPayload(k, data)
			g.ReleasePayload(k)
		}
		g.Discard()
	}
	run()
	if n := testing.AllocsPerRun(50, run); n > 10 {
		t.Errorf("%.1f allocations for a group of 200 records, payloads and releases", n)
	}
}
