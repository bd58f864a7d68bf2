package log

import (
	"cmp"
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
	payloads, err := l.payloadSlices(room)
	if err != nil {
		return err
	}
	return l.rewrite(ctx, payloads...)
}

// Compact makes erasures and releases physical: it rewrites the stored segments and payloads without what was deleted,
// slice by slice as Reclaim does. What was not written since the last time and had nothing deleted stays as it is.
func (l *Log) Compact(ctx context.Context, room uint64) error {
	if err := l.store.flush(); err != nil {
		return err
	}
	segments, err := l.segmentSlices(room)
	if err != nil {
		return err
	}
	payloads, err := l.payloadSlices(room)
	if err != nil {
		return err
	}
	return l.rewrite(ctx, append(segments, payloads...)...)
}

// slices is in how many parts a range has to be rewritten so that each takes about room bytes.
func (l *Log) slices(r keyRange, room uint64) (uint64, error) {
	stored, err := l.store.db.EstimateDiskUsage(r.lower, r.upper)
	if err != nil {
		return 0, fmt.Errorf("measure the log: %w", err)
	}
	return min(maxSlices, 1+stored/max(room, 1)), nil
}

func (l *Log) payloadSlices(room uint64) ([]keyRange, error) {
	all := payloadRange()
	n, err := l.slices(all, room)
	if err != nil {
		return nil, err
	}
	return sliced(all, n), nil
}

// segmentSlices divides the segments by their index.
func (l *Log) segmentSlices(room uint64) ([]keyRange, error) {
	all := segmentRange()
	n, err := l.slices(all, room)
	if err != nil {
		return nil, err
	}
	return slicedByIndex(all, n, l.Size()), nil
}

// slicedByIndex divides the range of the segments into n parts at most.
func slicedByIndex(r keyRange, n, size uint64) (parts []keyRange) {
	lower, step := r.lower, max(1, size/n)
	for index := step; uint64(len(parts)) < n-1 && index < size; index += step {
		upper := appendSegmentKey(nil, index)
		parts = append(parts, keyRange{lower, upper})
		lower = upper
	}
	return append(parts, keyRange{lower, r.upper})
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
			return fmt.Errorf("compact the log: %w", cmp.Or(l.fail.get(), err))
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
