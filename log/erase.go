package log

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// eraseBatchBytes bounds the synced batches of an erasure pass; a larger segment goes alone.
const eraseBatchBytes = 4 << 20

// Erase blanks the bodies of the given records, which need not be sorted. Leaves, tiles, roots and proofs stay as
// they are. It is idempotent and works upwards in durable steps: after a crash or a cancelled context, the same call
// goes on where it stopped. It returns how many bodies it blanked durably. The old bytes leave the disk with Compact.
func (l *Log) Erase(ctx context.Context, indexes []uint64) (int, error) {
	indexes = slices.Clone(indexes)
	slices.Sort(indexes)
	indexes = slices.Compact(indexes)
	if len(indexes) == 0 {
		return 0, nil
	}
	if last := indexes[len(indexes)-1]; last >= l.Size() {
		return 0, fmt.Errorf("%w: erase record %d", ErrOutOfRange, last)
	}
	l.eraseMu.Lock()
	defer l.eraseMu.Unlock()
	total := 0
	for len(indexes) > 0 {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		done, blanked, err := l.eraseSome(indexes)
		total += blanked
		if err != nil {
			return total, err
		}
		indexes = indexes[done:]
	}
	return total, nil
}

// eraseSome handles as many of the sorted indexes as fit one batch. It gives how many it handled and how many of
// those were not blank before.
func (l *Log) eraseSome(indexes []uint64) (done, blanked int, err error) {
	r := segmentRange()
	it, err := l.store.db.NewIter(&pebble.IterOptions{LowerBound: r.lower, UpperBound: r.upper})
	if err != nil {
		return 0, 0, fmt.Errorf("erase: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	b := l.store.db.NewBatch()
	defer b.Close()
	var w segmentWriter
	for read := 0; done < len(indexes) && read < eraseBatchBytes; {
		if !it.SeekLT(appendSegmentKey(nil, indexes[done]+1)) {
			if err := it.Error(); err != nil {
				return 0, 0, corrupt(indexes[done], "read a segment: %w", err)
			}
			return 0, 0, corrupt(indexes[done], "its segment is missing")
		}
		s, err := readSegment(it)
		if err != nil {
			return 0, 0, err
		}
		if indexes[done] >= s.next() {
			return 0, 0, corrupt(indexes[done], "its segment is missing")
		}
		n, _ := slices.BinarySearch(indexes[done:], s.next())
		if k := s.blank(&w, indexes[done:done+n]); k > 0 {
			op := b.SetDeferred(segmentKeyLen, w.size())
			appendSegmentKey(op.Key[:0], s.first)
			w.encode(op.Value)
			mustFinish(op.Finish())
			blanked += k
		}
		done += n
		read += len(s.data)
	}
	if b.Empty() {
		return done, 0, nil
	}
	if err := l.store.apply(b, pebble.Sync); err != nil {
		return 0, 0, err
	}
	l.counters.eraseBatches.Add(1)
	return done, blanked, nil
}

// blank writes the segment to w without the bodies of the given records, all of which it holds, and tells how many
// of these had one.
func (s *segment) blank(w *segmentWriter, indexes []uint64) int {
	w.reset(s.first)
	blanked := 0
	for i := range s.count {
		r := s.record(i)
		if len(indexes) > 0 && indexes[0] == s.first+i {
			indexes = indexes[1:]
			if !r.Erased {
				r = Record{Leaf: r.Leaf, Erased: true}
				blanked++
			}
		}
		w.add(&r)
	}
	return blanked
}
