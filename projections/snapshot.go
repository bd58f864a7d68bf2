package projections

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Snapshot is the views frozen at one size. Any number of goroutines may read
// it. An open Snapshot keeps older rows from being dropped by compactions.
type Snapshot struct {
	views *Views
	store *pebble.Snapshot
	size  uint64
	memo  memo
	once  sync.Once
	err   error
}

// Size is the number of events that the snapshot has seen.
func (s *Snapshot) Size() uint64 { return s.size }

// Close frees the snapshot; no reader may use it any more. Closing it again does
// nothing.
func (s *Snapshot) Close() error {
	s.once.Do(func() { s.err = s.store.Close() })
	return s.err
}

func (s *Snapshot) scratch() []byte { return make([]byte, 0, maxKeySize) }

func (s *Snapshot) rowReader(value []byte) *rowReader { return &rowReader{rest: value} }

func (s *Snapshot) fault(err error) error { return s.views.fault(err) }

func (s *Snapshot) get(key []byte) ([]byte, bool, error) {
	if !memorable(key[0]) {
		value, found, err := getFrom(s.store, key)
		return value, found, s.fault(err)
	}
	if row, known := s.memo.find(key); known {
		return row.value, row.present, nil
	}
	value, found, err := getFrom(s.store, key)
	if err == nil {
		s.memo.keep(key, memoRow{value, found})
	}
	return value, found, s.fault(err)
}

func (s *Snapshot) iter(lower, upper []byte) (*pebble.Iterator, error) {
	return s.store.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
}
