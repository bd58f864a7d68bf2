package projections

import "sync"

// syncMark holds how far the log is durable against what the views' files may
// contain. Everything is a number of log records.
//
//	applied: highest cursor that a batch was or is being committed with
//	synced:  the log is durable up to here
//
// A file that Pebble begins to write holds rows of batches up to the applied
// mark at that moment, and becomes durable only when synced has reached it.
// It is the synced mark, not the published one: publishing waits for the
// writer's batch, which may wait for the flush that would wait here.
type syncMark struct {
	mu      sync.Mutex
	changed *sync.Cond
	applied uint64
	synced  uint64
	failed  error
}

func newSyncMark(synced uint64) *syncMark {
	m := &syncMark{synced: synced}
	m.changed = sync.NewCond(&m.mu)
	return m
}

func (m *syncMark) applying(cursor uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied = max(m.applied, cursor)
}

func (m *syncMark) inFiles() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applied
}

func (m *syncMark) raise(synced uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if synced > m.synced {
		m.synced = synced
		m.changed.Broadcast()
	}
}

func (m *syncMark) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed == nil {
		m.failed = err
		m.changed.Broadcast()
	}
}

// wait returns nil once the log is durable up to size, or the error of fail.
func (m *syncMark) wait(size uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.synced < size {
		if m.failed != nil {
			return m.failed
		}
		m.changed.Wait()
	}
	return nil
}

// healthy tells whether wait would return nil at once and nothing has failed.
func (m *syncMark) healthy(size uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failed == nil && m.synced >= size
}
