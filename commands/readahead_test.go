package commands

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// longLog is a log of n small records, of which broken ones hold no event.
func longLog(t *testing.T, n int, broken ...uint64) *log.Log {
	t.Helper()
	d := newBed(t, vfs.NewMem())
	d.close()
	l, err := log.Open(d.fs, bedDir, log.Options{StoreID: bedStore})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	raw, err := marshalEvent.Marshal(touched(1, projections.Hash{}, 1))
	if err != nil {
		t.Fatal(err)
	}
	g := l.NewGroup()
	for g.Next() < uint64(n) {
		record := log.Record{Event: raw}
		for _, index := range broken {
			if index == g.Next() {
				record.Event = []byte("no event")
			}
		}
		ev := &pb.Event{Body: &pb.Event_SessionTouched{SessionTouched: &pb.SessionTouched{}}}
		record.Leaf = projections.AppendLeaf(nil, ev, record.Event, record.Opening, [32]byte{})
		g.Append(record)
	}
	p, err := g.Commit()
	if err == nil {
		err = p.Wait()
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestReadAheadKeepsOrder(t *testing.T) {
	const n = 10*chunkEvents + 7
	l := longLog(t, n)
	for _, from := range []uint64{0, 1, chunkEvents, n - 1, n} {
		next := from
		err := readAhead(t.Context(), l, from, n, func(e *projections.Entry) error {
			if e.Index != next || e.Verify() != nil {
				t.Fatalf("got record %d, want %d as its leaf says", e.Index, next)
			}
			next++
			return nil
		})
		if err != nil || next != n {
			t.Errorf("read from %d up to %d of %d: %v", from, next, n, err)
		}
	}
}

// The first error in log order is the one that counts, although the reader is
// ahead: what stands before a record that can't be decoded is applied.
func TestReadAheadReturnsTheFirstError(t *testing.T) {
	const n, broken = 10 * chunkEvents, 3*chunkEvents + 5
	l := longLog(t, n, broken, broken+1)
	refused := errors.New("refused")
	for _, refusedAt := range []uint64{0, 1, chunkEvents, broken - 1, broken, n} {
		next := uint64(0)
		err := readAhead(t.Context(), l, 0, n, func(e *projections.Entry) error {
			if next++; e.Index == refusedAt {
				return refused
			}
			return nil
		})
		switch {
		case refusedAt < broken && (!errors.Is(err, refused) || next != refusedAt+1):
			t.Errorf("refused at %d: applied %d, %v", refusedAt, next, err)
		case refusedAt >= broken && (!errors.Is(err, projections.ErrInvalidEvent) || !strings.Contains(err.Error(), "record 773:") || next != broken):
			t.Errorf("record %d is broken: applied %d, %v", broken, next, err)
		}
	}
}

func TestReadAheadCanBeCancelled(t *testing.T) {
	const n = 20 * chunkEvents
	l := longLog(t, n)
	for _, at := range []uint64{0, chunkEvents, n / 2} {
		ctx, cancel := context.WithCancel(t.Context())
		applied := 0
		err := readAhead(ctx, l, 0, n, func(e *projections.Entry) error {
			if applied++; e.Index == at {
				cancel()
			}
			return nil
		})
		if !errors.Is(err, context.Canceled) || applied > int(at)+chunkEvents {
			t.Errorf("cancelled at %d: applied %d, %v", at, applied, err)
		}
	}
}
