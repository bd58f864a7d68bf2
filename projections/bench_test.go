package projections

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// benchEntries makes n one-device messages with receipts, to queues in turn.
func benchEntries(b *testing.B, w *world, n, queues int) []*Entry {
	b.Helper()
	var entries []*Entry
	next := map[int]uint64{}
	for i := range n {
		q := i % queues
		next[q]++
		name := fmt.Sprint("person", q)
		ev := enqueued(i, "person0", name, 1024, w.now+dayMS, target(deviceKey(name), next[q]))
		entries = append(entries, makeEntry(b, uint64(len(w.entries)+i), w.now, ev, receiptOf("person0", 200, requestID(w.now, i), "0123456789abcdef01234567")))
	}
	return entries
}

// BenchmarkApplyEnqueue is the views' part of one durable Enqueue, in groups of
// 64, commits included.
func BenchmarkApplyEnqueue(b *testing.B) {
	w := newWorld(b)
	const queues = 16
	for q := range queues {
		w.register(fmt.Sprint("person", q))
	}
	w.commit()
	const round = 1 << 14
	entries := benchEntries(b, w, round, queues)
	first := uint64(len(w.entries))
	b.ReportAllocs()
	b.ResetTimer()
	batch, done := w.views.NewBatch(), 0
	for i := 0; i < b.N; i++ {
		e := entries[i%round]
		if i >= round { // the same messages again, at the next numbers
			b.StopTimer()
			e.Index = first + uint64(i)
			e.Event.GetMessageEnqueued().Targets[0].Seq += round / queues
			b.StartTimer()
		}
		if err := Apply(batch, e); err != nil {
			b.Fatal(err)
		}
		if done++; done%64 == 0 {
			if err := batch.Commit(); err != nil {
				b.Fatal(err)
			}
			w.views.MarkSynced(w.views.Cursor())
			batch = w.views.NewBatch()
		}
	}
	b.StopTimer()
	if err := batch.Commit(); err != nil {
		b.Fatal(err)
	}
	w.views.MarkSynced(w.views.Cursor())
	if err := w.views.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkDecodeEvent is what replay adds for each event.
func BenchmarkDecodeEvent(b *testing.B) {
	e := makeEntry(b, 1, testStart, enqueued(1, "alice", "bob", 1024, testStart+dayMS, target(deviceKey("bob"), 1)), receiptOf("alice", 200, requestID(1, 1), "0123456789abcdef"))
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeEvent(e.Raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("unmarshal only", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := proto.Unmarshal(e.Raw, new(pb.Event)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := e.Verify(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkReads are the point reads of a query and of the writer.
func BenchmarkReads(b *testing.B) {
	w := newWorld(b)
	w.register("alice", "bob")
	for n := range 1000 {
		w.send(n, "alice", "bob")
	}
	w.do(sessionStarted("alice", 1, w.now+dayMS))
	w.commit()
	s := w.views.Snapshot()
	batch := w.views.NewBatch()
	for name, r := range map[string]Reader{"snapshot": s, "batch": batch} {
		b.Run(name+"/session", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, found, err := SessionByToken(r, tokenOf("alice", 1)); !found || err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/queue", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, found, err := Queue(r, deviceKey("bob")); !found || err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/100 items", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if items, _, err := QueueItems(r, deviceKey("bob"), 100, 100, 1<<30); len(items) != 100 || err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	if err := batch.Close(); err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	w.close()
}
