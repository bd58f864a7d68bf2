package log

import (
	"context"
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/kt"
)

// Options configure Open.
type Options struct {
	StoreID    [16]byte     // from the FORMAT file; must be the anchor's
	Logger     *slog.Logger // nil: nothing is logged
	CacheBytes int64        // Pebble's block cache; 0: 64 MiB
}

// Log is an open log. All methods may be called concurrently, except that groups have one writer (see Group).
type Log struct{}

// Create makes an empty <dir>/log and <dir>/anchor with first as record 0 and makes all of it durable. <dir> must
// exist and hold neither. It does not write FORMAT: that is the caller's last step.
func Create(fs vfs.FS, dir string, storeID [16]byte, first Record) error { panic("not yet") }

// Open opens <dir>/log, recovers size and root from the segments, completes the tiles and checks the head anchor.
// A log longer than its anchor is normal; its recovered size is anchored before Open returns.
// Errors: ErrLocked, ErrNoAnchor, ErrShorterThanAnchor, ErrRootMismatch, ErrCorrupt.
func Open(fs vfs.FS, dir string, o Options) (*Log, error) { panic("not yet") }

// Close completes the tiles and closes the store. Groups must not be committed or waited for any more.
func (l *Log) Close() error { panic("not yet") }

// Size is the number of records committed so far; the newest of them may not be synced yet.
func (l *Log) Size() uint64 { panic("not yet") }

// Root is the RFC 6962 root over the first Size records.
func (l *Log) Root() kt.Hash { panic("not yet") }

// Anchored gives the newest anchored size and root.
func (l *Log) Anchored() (uint64, kt.Hash) { panic("not yet") }

// WriteAnchor writes the older slot of the head anchor and syncs it. size and root are those of a Pending whose Wait
// returned nil. An error is of unknown outcome and fails the log.
func (l *Log) WriteAnchor(size uint64, root kt.Hash) error { panic("not yet") }

// Err is nil, or the error with which the log failed.
func (l *Log) Err() error { panic("not yet") }

// Iterate calls fn for the records from ≤ index < to in order. The record's slices are only valid during the call.
// An error of fn ends the iteration and is returned as it is.
func (l *Log) Iterate(from, to uint64, fn func(index uint64, r Record) error) error { panic("not yet") }

// Record returns a copy of record i.
func (l *Log) Record(i uint64) (Record, error) { panic("not yet") }

// Payload returns a copy of a payload, false when there is none (released, or never put).
func (l *Log) Payload(k PayloadKey) ([]byte, bool, error) { panic("not yet") }

// Payloads calls fn for each key in order with the payload, nil when there is none; data is only valid during the
// call. Keys of one owner in ascending order are read with one forward scan.
func (l *Log) Payloads(keys []PayloadKey, fn func(i int, data []byte) error) error {
	panic("not yet")
}

// Erase blanks the bodies of the given records, which need not be sorted. It is idempotent: after a crash or a
// cancelled context, the same call goes on where it stopped. It returns how many bodies it blanked.
func (l *Log) Erase(ctx context.Context, indexes []uint64) (int, error) { panic("not yet") }

// Compact makes erasures and releases physical: it rewrites the stored files without what was deleted.
func (l *Log) Compact(ctx context.Context) error { panic("not yet") }

// Counters are totals since Open, for metrics and for the I/O budget.
type Counters struct {
	Batches      uint64 // group batches committed
	Records      uint64 // records in them
	SegmentBytes uint64 // bytes of their segments
	Payloads     uint64 // payloads put
	PayloadBytes uint64 // bytes of these payloads
	Released     uint64 // payloads released
	Syncs        uint64 // syncs of the store's write-ahead log asked for: one per group batch
	AnchorSyncs  uint64 // anchor slots written and synced
	TileBatches  uint64 // unsynced batches of full tiles and bundles
	EraseBatches uint64 // synced batches of the erasure pass
}

// Counters reads the counters.
func (l *Log) Counters() Counters { panic("not yet") }
