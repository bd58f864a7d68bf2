package projections

// pointCache keeps rows of the point-cached views (keyspace.go) in memory for
// the writer: what it reads most is what it wrote a moment ago, and a row that
// many events of a group change, a queue's state say, is written to the batch
// once, at Commit.
//
// It never changes what is read: a cell is either dirty, then it is the newest
// value and stands in the batch's list of rows to write; or clean, then it
// equals the store. Only the writer uses it; snapshots read the store.
//
// Two generations bound it: lookups move cells into the young one, and when
// that is full the old one is dropped. That happens between batches only, so no
// dirty cell is ever dropped.
//
// last is the cell that find or add gave last: what is read is mostly written next.
type pointCache struct {
	young, old map[string]*cell
	last       *cell
}

// cell is one row in memory.
type cell struct {
	key   string
	value []byte
	// present is false for a row that is known not to exist.
	present bool
	dirty   bool
}

// pointCacheRows is the size of a generation. A row takes about 300 bytes.
const pointCacheRows = 16 << 10

func newPointCache() *pointCache {
	return &pointCache{young: make(map[string]*cell), old: make(map[string]*cell)}
}

// find returns the row's cell, or nil when the store must be asked.
func (c *pointCache) find(key []byte) *cell {
	if c.last != nil && c.last.key == string(key) {
		return c.last
	}
	row := c.young[string(key)]
	if row == nil {
		if row = c.old[string(key)]; row == nil {
			return nil
		}
		c.young[row.key] = row
	}
	c.last = row
	return row
}

// add makes a cell for a row that find did not have.
func (c *pointCache) add(key []byte) *cell {
	row := &cell{key: string(key)}
	c.young[row.key] = row
	c.last = row
	return row
}

// age drops the old generation when the young one is full. No cell may be dirty.
func (c *pointCache) age() {
	if len(c.young) >= pointCacheRows {
		c.old, c.young, c.last = c.young, make(map[string]*cell, pointCacheRows), nil
	}
}

// drop forgets everything: after a batch that was not committed.
func (c *pointCache) drop() { *c = *newPointCache() }
