package log

import (
	"context"
	"fmt"
)

// maxSlices bounds how finely Reclaim divides the payloads: by the first byte of
// their owner, which is random.
const maxSlices = 256

// Reclaim makes releases of payloads physical on a disk with little room: it
// rewrites the stored payloads without those that were released, slice by slice,
// so that it needs about room bytes at a time beyond what is stored. Freed files
// are removed as it goes. ctx ends it between two slices.
func (l *Log) Reclaim(ctx context.Context, room uint64) error {
	if err := l.store.flush(); err != nil { // the releases themselves may be in memory
		return err
	}
	all := payloadRange()
	stored, err := l.store.db.EstimateDiskUsage(all.lower, all.upper)
	if err != nil {
		return fmt.Errorf("reclaim: %w", err)
	}
	return l.rewrite(ctx, sliced(all, min(maxSlices, 1+stored/max(room, 1)))...)
}

// rewrite compacts ranges of the store, one after the other.
func (l *Log) rewrite(ctx context.Context, ranges ...keyRange) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // a failed log's disk takes nothing, and Pebble would wait for it
		select {
		case <-l.fail.ch:
			cancel()
		case <-ctx.Done():
		}
	}()
	for _, r := range ranges {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.store.db.Compact(ctx, r.lower, r.upper, false); err != nil {
			return fmt.Errorf("compact the log: %w", err)
		}
	}
	return l.fail.get()
}

// sliced divides the range of a prefix into n parts by the byte that follows it.
func sliced(r keyRange, n uint64) []keyRange {
	var parts []keyRange
	lower := r.lower
	for i := uint64(1); i < n; i++ {
		upper := append(r.lower[:len(r.lower):len(r.lower)], byte(i*256/n))
		parts = append(parts, keyRange{lower, upper})
		lower = upper
	}
	return append(parts, keyRange{lower, r.upper})
}
