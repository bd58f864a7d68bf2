package projections

import (
	"sync"
	"sync/atomic"
)

// memo keeps rows that a Snapshot read. A snapshot never changes, so neither do
// they, and nothing has to be forgotten; but most snapshots do not live for longer
// than the next group of events. So it keeps nothing until the snapshot was asked
// often, and then only the rows that nearly every call reads: who calls, and whom
// they name.
//
//	get ──▶ the first memoAfter times: the store
//	        later: rows, else the store and into rows while there is room
type memo struct {
	asked atomic.Uint32
	mu    sync.RWMutex
	rows  map[string]memoRow
}

// memoRow is a row as the store had it; present is false when it had none.
type memoRow struct {
	value   []byte
	present bool
}

const (
	// memoAfter is how many reads a snapshot must have had: those of some ten calls.
	memoAfter = 64
	// memoRows bounds the rows of one snapshot. One takes about 300 bytes.
	memoRows = 8192
)

// find returns what is known of a row.
func (m *memo) find(key []byte) (row memoRow, known bool) {
	if m.asked.Load() < memoAfter {
		m.asked.Add(1)
		return row, false
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	row, known = m.rows[string(key)]
	return row, known
}

// keep adds a row that the store was asked for.
func (m *memo) keep(key []byte, row memoRow) {
	if m.asked.Load() < memoAfter {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows == nil {
		m.rows = make(map[string]memoRow)
	}
	if len(m.rows) < memoRows {
		m.rows[string(key)] = row
	}
}
