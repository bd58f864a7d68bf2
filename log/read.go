package log

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// segments calls fn for each segment that holds records of from ≤ index < to, with the part from..to, counted from
// the segment's first record, that is asked for. A gap, a segment that cannot be read, or an early end is a
// *CorruptError. It reads one consistent state of the store.
func (l *Log) segments(from, to uint64, fn func(s *segment, from, to uint64) error) (err error) {
	if from >= to {
		return nil
	}
	it, err := l.store.db.NewIter(&pebble.IterOptions{
		LowerBound: segmentRange().lower,
		UpperBound: appendSegmentKey(nil, to),
	})
	if err != nil {
		return fmt.Errorf("read segments: %w", err)
	}
	defer func() {
		if e := it.Close(); err == nil && e != nil {
			err = corrupt(from, "read segments: %w", e)
		}
	}()
	next := from
	for ok := it.SeekLT(appendSegmentKey(nil, from+1)); ok && next < to; ok = it.Next() {
		s, err := readSegment(it)
		if err != nil {
			return err
		}
		if next < s.first || next >= s.next() || (next != s.first && next != from) {
			return corrupt(next, "the segment at index %d does not continue the one before", s.first)
		}
		end := min(s.next(), to)
		if err := fn(&s, next-s.first, end-s.first); err != nil {
			return err
		}
		next = end
	}
	if err := it.Error(); err != nil {
		return corrupt(next, "read segments: %w", err)
	}
	if next < to {
		return corrupt(next, "its segment is missing")
	}
	return nil
}

// readSegment parses the segment under the iterator.
func readSegment(it *pebble.Iterator) (segment, error) {
	first, ok := segmentKeyFirst(it.Key())
	if !ok {
		return segment{}, corrupt(0, "key %x is no segment's", it.Key())
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return segment{}, corrupt(first, "read a segment: %w", err)
	}
	s, err := parseSegment(first, value)
	if err != nil {
		return segment{}, &CorruptError{Index: first, Cause: err}
	}
	return s, nil
}

func (l *Log) checkRange(from, to uint64) error {
	if size := l.Size(); from > to || to > size {
		return fmt.Errorf("%w: records %d to %d of %d", ErrOutOfRange, from, to, size)
	}
	return nil
}

// Iterate calls fn for the records from ≤ index < to in order. The record's slices are only valid during the call.
// An error of fn ends the iteration and is returned as it is. Damage is a *CorruptError with the index.
func (l *Log) Iterate(from, to uint64, fn func(index uint64, r Record) error) error {
	if err := l.checkRange(from, to); err != nil {
		return err
	}
	return l.segments(from, to, func(s *segment, from, to uint64) error {
		for i := from; i < to; i++ {
			if err := fn(s.first+i, s.record(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Record returns a copy of record i.
func (l *Log) Record(i uint64) (Record, error) {
	var out Record
	if i >= l.Size() {
		return out, fmt.Errorf("%w: record %d", ErrOutOfRange, i)
	}
	err := l.segments(i, i+1, func(s *segment, from, _ uint64) error {
		out = s.record(from)
		out.Leaf, out.Event = slices.Clone(out.Leaf), slices.Clone(out.Event)
		return nil
	})
	return out, err
}

// Payload returns a copy of a payload, false when there is none (released, or never put).
func (l *Log) Payload(k PayloadKey) ([]byte, bool, error) {
	var key [payloadKeyLen]byte
	value, closer, err := l.store.db.Get(appendPayloadKey(key[:0], k))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("read a payload: %w", err)
	}
	data := append([]byte{}, value...)
	return data, true, closer.Close()
}

// Payloads calls fn for each key in order with the payload, nil when there is none; data is only valid during the
// call. An error of fn ends the reading and is returned as it is. Keys in ascending order are read in one forward
// scan that starts at the first of them, behind whatever was released before it.
func (l *Log) Payloads(keys []PayloadKey, fn func(i int, data []byte) error) (err error) {
	if len(keys) == 0 {
		return nil
	}
	r := payloadRange()
	it, err := l.store.db.NewIter(&pebble.IterOptions{LowerBound: r.lower, UpperBound: r.upper})
	if err != nil {
		return fmt.Errorf("read payloads: %w", err)
	}
	defer func() {
		if e := it.Close(); err == nil && e != nil {
			err = fmt.Errorf("read payloads: %w", e)
		}
	}()
	var key [payloadKeyLen]byte
	for i, k := range keys {
		appendPayloadKey(key[:0], k)
		var data []byte
		if it.SeekPrefixGE(key[:]) {
			if data, err = it.ValueAndErr(); err == nil && data == nil {
				data = []byte{}
			}
		} else {
			err = it.Error()
		}
		if err != nil {
			return fmt.Errorf("read a payload: %w", err)
		}
		if err := fn(i, data); err != nil {
			return err
		}
	}
	return nil
}
