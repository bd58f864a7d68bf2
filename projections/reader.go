package projections

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Reader reads the views: a *Batch sees its own writes, a *Snapshot is frozen.
// Every read function of this package takes one. Their errors are failures of
// the store, never "not found".
type Reader interface {
	// scratch is an empty buffer for a key; on a Batch the next call reuses it.
	scratch() []byte
	// rowReader is for one row; on a Batch the next call reuses it.
	rowReader(value []byte) *rowReader
	// get reads a row. The value is valid until the row is written.
	get(key []byte) (value []byte, found bool, err error)
	// iter iterates over the keys in [lower, upper).
	iter(lower, upper []byte) (*pebble.Iterator, error)
	// fault notes that the store is damaged when err says so, and returns err as
	// a *RebuildError then.
	fault(err error) error
}

// readRow reads a row and decodes it.
func readRow[T any](r Reader, view string, key []byte, decode func(*rowReader) T) (row T, found bool, err error) {
	value, found, err := r.get(key)
	if err != nil || !found {
		return row, false, err
	}
	in := r.rowReader(value)
	row = decode(in)
	if err := in.end(view); err != nil {
		return row, false, r.fault(err)
	}
	return row, true, nil
}

// scanRows calls each with every row in [lower, upper), in order, until each
// returns false or an error. Key and value are valid during the call only.
func scanRows(r Reader, lower, upper []byte, each func(key, value []byte) (bool, error)) error {
	it, err := r.iter(lower, upper)
	if err != nil {
		return r.fault(err)
	}
	for valid := it.First(); valid; valid = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return r.fault(errors.Join(err, it.Close()))
		}
		more, err := each(it.Key(), value)
		if err != nil {
			return r.fault(errors.Join(err, it.Close()))
		}
		if !more {
			break
		}
	}
	return r.fault(it.Close())
}

// scanView is scanRows over all rows whose keys begin with start.
func scanView(r Reader, start []byte, each func(key, value []byte) (bool, error)) error {
	return scanRows(r, start, keyRangeEnd(start), each)
}

// isDamage tells damage of the store from other failures of reading.
func isDamage(err error) bool {
	return pebble.IsCorruptionError(err) || errors.Is(err, errRow)
}

// getFrom reads from Pebble; the value is a copy.
func getFrom(store pebble.Reader, key []byte) (value []byte, found bool, err error) {
	shared, closer, err := store.Get(key)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return nil, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("views: read: %w", err)
	}
	value = append([]byte(nil), shared...)
	return value, true, closer.Close()
}
