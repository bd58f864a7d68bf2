package projections

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Batch collects what the events of one group change. It belongs to one
// goroutine. As a Reader it sees its own writes.
type Batch struct {
	views *Views
	store *pebble.Batch
	// dirty are the point-cached rows to write at Commit, in order of their
	// first change.
	dirty    []*cell
	cursor   uint64
	timeMS   uint64
	released []PayloadRef
	// failed is the first error of Apply: the batch is half of an event then.
	failed error
	key    [maxKeySize + 64]byte
	row    []byte
	in     rowReader
}

var errBatchClosed = errors.New("views: the batch was committed or closed")

// Cursor is the index that the next event must have.
func (b *Batch) Cursor() uint64 { return b.cursor }

// Released tells which payloads lost their last reference since the last call,
// each once, in the order in which that happened.
func (b *Batch) Released() []PayloadRef {
	released := b.released
	b.released = nil
	return released
}

// Commit makes the batch part of the views, visible to snapshots taken from now
// on; the Batch can't be used any more. The log must already have been asked to
// make the batch's events durable: with the store's memory full, Commit waits
// for a flush, and the flush waits for the log (MarkSynced). An error is fatal
// for the views: which part of them is in memory is not known.
func (b *Batch) Commit() error {
	if b.store == nil {
		return errBatchClosed
	}
	if b.failed != nil {
		return fmt.Errorf("views: commit after a failed Apply: %w", b.failed)
	}
	if err := b.spill(); err != nil {
		return err
	}
	v := b.views
	v.mark.applying(b.cursor)
	v.commit.Lock()
	defer v.commit.Unlock()
	rows := uint64(b.store.Count())
	if err := b.store.Commit(pebble.NoSync); err != nil {
		return v.fault(fmt.Errorf("views: commit: %w", err))
	}
	v.cursor.Store(b.cursor)
	v.rows.Add(rows)
	for _, row := range b.dirty {
		row.dirty = false
	}
	v.cache.age()
	return b.end()
}

// Close drops the batch; after Commit it does nothing.
func (b *Batch) Close() error {
	if b.store == nil {
		return nil
	}
	b.views.cache.drop()
	return b.end()
}

func (b *Batch) end() error {
	err := b.store.Close()
	b.store, b.dirty = nil, nil
	b.views.batch = nil
	return err
}

// spill writes the changed point-cached rows to the Pebble batch, so that
// iterators see them. They stay in the list: a later change is written again.
func (b *Batch) spill() error {
	for _, row := range b.dirty {
		var err error
		if row.present {
			err = b.store.Set([]byte(row.key), row.value, nil)
		} else {
			err = b.store.Delete([]byte(row.key), nil)
		}
		if err != nil {
			return fmt.Errorf("views: batch: %w", err)
		}
	}
	return nil
}

func (b *Batch) scratch() []byte { return b.key[:0] }

func (b *Batch) rowReader(value []byte) *rowReader {
	b.in = rowReader{rest: value}
	return &b.in
}

func (b *Batch) fault(err error) error { return b.views.fault(err) }

func (b *Batch) get(key []byte) ([]byte, bool, error) {
	if b.store == nil {
		return nil, false, errBatchClosed
	}
	if key[0] == prefixReceipt {
		if absent, err := b.receiptAbsent(key); absent || err != nil {
			return nil, false, b.fault(err)
		}
	}
	if !pointCached(key[0]) {
		value, found, err := getFrom(b.store, key)
		return value, found, b.fault(err)
	}
	row, err := b.cell(key)
	if err != nil {
		return nil, false, err
	}
	return row.value, row.present, nil
}

// receiptAbsent tells without a look-up, where it can, that a receipt does not
// exist.
func (b *Batch) receiptAbsent(key []byte) (bool, error) {
	if b.views.receipts == nil {
		recent, err := loadRecentReceipts(b)
		if err != nil {
			return false, err
		}
		b.views.receipts = recent
	}
	return b.views.receipts.absent(key), nil
}

// cell finds or loads the cell of a point-cached row.
func (b *Batch) cell(key []byte) (*cell, error) {
	if row := b.views.cache.find(key); row != nil {
		return row, nil
	}
	// A row that this batch changed is in the cache, so the store is right.
	value, found, err := getFrom(b.views.db, key)
	if err != nil {
		return nil, b.fault(err)
	}
	row := b.views.cache.add(key)
	row.value, row.present = value, found
	return row, nil
}

func (b *Batch) iter(lower, upper []byte) (*pebble.Iterator, error) {
	if b.store == nil {
		return nil, errBatchClosed
	}
	if len(lower) == 0 || pointCached(lower[0]) {
		if err := b.spill(); err != nil {
			return nil, err
		}
	}
	return b.store.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
}

// put writes a row. It keeps neither key nor value.
func (b *Batch) put(key, value []byte) error {
	if b.store == nil {
		return errBatchClosed
	}
	if key[0] == prefixReceipt && b.views.receipts != nil {
		b.views.receipts.note(key)
	}
	if !pointCached(key[0]) {
		return b.store.Set(key, value, nil)
	}
	row := b.views.cache.find(key)
	if row == nil {
		row = b.views.cache.add(key)
	}
	row.value, row.present = append(row.value[:0], value...), true
	b.touch(row)
	return nil
}

// remove deletes a row; one that does not exist is no error.
func (b *Batch) remove(key []byte) error {
	if b.store == nil {
		return errBatchClosed
	}
	if !pointCached(key[0]) {
		return b.store.Delete(key, nil)
	}
	row := b.views.cache.find(key)
	if row == nil {
		row = b.views.cache.add(key)
	}
	row.value, row.present = row.value[:0], false
	b.touch(row)
	return nil
}

func (b *Batch) touch(row *cell) {
	if !row.dirty {
		row.dirty = true
		b.dirty = append(b.dirty, row)
	}
}

// advance moves the cursor over one event.
func (b *Batch) advance(timeMS uint64) error {
	b.cursor++
	b.timeMS = timeMS
	b.row = appendMeta(b.row[:0], b.cursor, timeMS)
	return b.put(keyOf(b.scratch(), prefixMeta), b.row)
}

func appendMeta(dst []byte, cursor, timeMS uint64) []byte {
	dst = binary.BigEndian.AppendUint32(dst, viewsFormat)
	dst = binary.BigEndian.AppendUint64(dst, cursor)
	return binary.BigEndian.AppendUint64(dst, timeMS)
}
