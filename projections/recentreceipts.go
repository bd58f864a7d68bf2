package projections

import (
	"encoding/binary"
	"maps"
	"slices"
)

// recentReceipts tells the writer without a read of the store that a request id
// is new, as almost all are. It may say "perhaps there" of one that is not, never
// "not there" of one that is: it stands before the look-up and decides nothing.
//
// A request id begins with its time and ends in random bits (UUIDv7). The tails
// of all receipts from a time on, the floor, are kept in sets, one for each span
// of time:
//
//	  floor                          now        a clock that is ahead
//	    │ ······ │ ······ │ ······ │ ··                 ·
//	────┼────────┴────────┴────────┴─────────────────────────▶ time of the id
//	    ask the store │ new unless its tail is in the set of its span
//
// When there are too many the oldest span is dropped and the floor rises. Sets
// are filled from the store when the first receipt is asked for and from then on
// with every receipt that is written. Receipts that expire stay: that only
// means a look-up. Only the writer uses it.
type recentReceipts struct {
	floor uint64 // first span that is known completely
	spans map[uint64]map[uint64]struct{}
	count int
}

const (
	// receiptSpanBits: a span is 2^13 ms, about 8 s.
	receiptSpanBits = 13
	// maxRecentReceipts bounds the sets. One takes about 20 bytes.
	maxRecentReceipts = 1 << 18
	// loadedReceipts is how many of the newest are read from the store.
	loadedReceipts = 1 << 14
)

// place reads span and tail from the key of a receipt.
func receiptPlace(key []byte) (span, tail uint64) {
	id := key[1:]
	ms := binary.BigEndian.Uint64(id) >> 16
	return ms >> receiptSpanBits, binary.BigEndian.Uint64(id[8:])
}

// absent tells that there is no receipt under key.
func (r *recentReceipts) absent(key []byte) bool {
	span, tail := receiptPlace(key)
	if span < r.floor {
		return false
	}
	_, there := r.spans[span][tail]
	return !there
}

// note must be told of every receipt that is written.
func (r *recentReceipts) note(key []byte) {
	span, tail := receiptPlace(key)
	if span < r.floor {
		return
	}
	set := r.spans[span]
	if set == nil {
		set = make(map[uint64]struct{})
		r.spans[span] = set
	}
	before := len(set)
	set[tail] = struct{}{}
	if r.count += len(set) - before; r.count > maxRecentReceipts {
		r.dropOldest()
	}
}

// dropOldest makes room for a while, so that it is rarely needed.
func (r *recentReceipts) dropOldest() {
	for _, span := range slices.Sorted(maps.Keys(r.spans)) {
		if r.count <= maxRecentReceipts/8*7 {
			return
		}
		r.count -= len(r.spans[span])
		delete(r.spans, span)
		r.floor = span + 1
	}
}

// loadRecentReceipts reads the newest receipts that the reader sees.
func loadRecentReceipts(r Reader) (*recentReceipts, error) {
	recent := &recentReceipts{spans: make(map[uint64]map[uint64]struct{})}
	it, err := r.iter([]byte{prefixReceipt}, keyRangeEnd([]byte{prefixReceipt}))
	if err != nil {
		return nil, err
	}
	for valid := it.Last(); valid; valid = it.Prev() {
		if recent.count == loadedReceipts {
			// This one and what is before it stays in the store alone.
			span, _ := receiptPlace(it.Key())
			recent.count -= len(recent.spans[span])
			delete(recent.spans, span)
			recent.floor = span + 1
			break
		}
		recent.note(it.Key())
	}
	return recent, it.Close()
}
