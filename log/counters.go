package log

import "sync/atomic"

// Counters are totals since Open, for metrics and for the I/O budget.
type Counters struct {
	Batches      uint64 // group batches committed
	Records      uint64 // records in them
	SegmentBytes uint64 // bytes of their segments
	Payloads     uint64 // payloads put
	PayloadBytes uint64 // bytes of these payloads
	Released     uint64 // payloads released one by one
	Syncs        uint64 // syncs of the store's write-ahead log asked for: one per group batch
	AnchorSyncs  uint64 // anchor slots written and synced
	TileBatches  uint64 // unsynced batches of full tiles and bundles
	EraseBatches uint64 // synced batches of the erasure pass
}

type counters struct {
	batches, records, segmentBytes, payloads, payloadBytes, released,
	syncs, anchorSyncs, tileBatches, eraseBatches atomic.Uint64
}

// Counters reads the counters.
func (l *Log) Counters() Counters {
	c := &l.counters
	return Counters{
		Batches:      c.batches.Load(),
		Records:      c.records.Load(),
		SegmentBytes: c.segmentBytes.Load(),
		Payloads:     c.payloads.Load(),
		PayloadBytes: c.payloadBytes.Load(),
		Released:     c.released.Load(),
		Syncs:        c.syncs.Load(),
		AnchorSyncs:  c.anchorSyncs.Load(),
		TileBatches:  c.tileBatches.Load(),
		EraseBatches: c.eraseBatches.Load(),
	}
}
