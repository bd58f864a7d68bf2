package commands

import (
	"context"
	"fmt"

	"quicprochat/log"
	"quicprochat/projections"
)

// A replay has two halves that cost about the same: a record must be read,
// decoded and compared with its leaf, and its event must be applied. Each has a
// goroutine; chunks of entries pass between them in log order, and come back to
// be filled again:
//
//	log ──▶ reader: decode, verify ──▶ ready ──▶ caller: apply
//	             ▲                                  │
//	             └────────────── spare ◀────────────┘
//
// Applying stays on one goroutine, in order: the views are the same as ever.
const (
	// chunkEvents and chunkBytes say when a chunk is handed over: often enough
	// that neither half waits for long, rarely enough that it costs nothing.
	chunkEvents = 256
	chunkBytes  = 256 << 10
	// chunksAhead is how many chunks there are.
	chunksAhead = 4
)

// chunk is a run of decoded records.
type chunk struct {
	entries []projections.Entry
	bytes   []byte // what leaves and raw events of the entries refer to
	// failed is why the log cannot be read on behind these entries; nil: it can,
	// or it was read to its end.
	failed error
}

// readAhead calls apply for the records from ≤ index < to in order, each decoded
// and found to be what its leaf commits to. An entry is valid during the call
// only. The first error in log order ends it, whichever half it comes from; so
// does the end of ctx. Nothing of it runs any more when it returns.
func readAhead(ctx context.Context, l *log.Log, from, to uint64, apply func(*projections.Entry) error) error {
	reading, stop := context.WithCancel(ctx)
	r := &reader{ctx: reading, ready: make(chan *chunk, chunksAhead), spare: make(chan *chunk, chunksAhead)}
	for range chunksAhead {
		r.spare <- new(chunk)
	}
	go r.run(l, from, to)
	defer func() {
		stop()
		for range r.ready { // until the reader has ended
		}
	}()
	for c := range r.ready {
		if ctx.Err() != nil { // asked for here: the reader may be chunks ahead
			return ctx.Err()
		}
		for i := range c.entries {
			if err := apply(&c.entries[i]); err != nil {
				return err
			}
		}
		if c.failed != nil {
			return c.failed
		}
		r.spare <- c
	}
	return ctx.Err() // why the reader ended before the end, if it did
}

// reader is the half that reads and decodes.
type reader struct {
	ctx          context.Context
	ready, spare chan *chunk
	filling      *chunk
}

func (r *reader) run(l *log.Log, from, to uint64) {
	defer close(r.ready)
	if !r.next() {
		return
	}
	r.filling.failed = l.Iterate(from, to, r.add)
	r.hand()
}

// next takes an empty chunk; false when the replay has ended.
func (r *reader) next() bool {
	select {
	case c := <-r.spare:
		c.entries, c.bytes = c.entries[:0], c.bytes[:0]
		r.filling = c
		return true
	case <-r.ctx.Done():
		return false
	}
}

// hand gives the chunk to the applier. There is room: ready holds all chunks.
func (r *reader) hand() { r.ready <- r.filling }

// add decodes one record into the chunk.
func (r *reader) add(index uint64, rec log.Record) error {
	c := r.filling
	if len(c.entries) == chunkEvents || len(c.bytes) >= chunkBytes {
		r.hand()
		r.filling = new(chunk) // for the error, should none come back
		if !r.next() {
			return context.Cause(r.ctx)
		}
		c = r.filling
	}
	if rec.Erased {
		return fmt.Errorf("record %d: %w", index, errErased)
	}
	ev, err := projections.DecodeEvent(rec.Event)
	if err != nil {
		return fmt.Errorf("record %d: %w: run the version that wrote it, or a newer one", index, err)
	}
	entry := projections.Entry{Index: index, Leaf: c.keep(rec.Leaf), Opening: rec.Opening, Raw: c.keep(rec.Event), Event: ev}
	if err := entry.Verify(); err != nil {
		return fmt.Errorf("record %d does not match its leaf (%w): restore the data directory from a backup", index, err)
	}
	c.entries = append(c.entries, entry)
	return nil
}

// keep copies what the log gives for the length of a call only. What was kept
// before stays where it is when the buffer grows into a larger one.
func (c *chunk) keep(b []byte) []byte {
	at := len(c.bytes)
	c.bytes = append(c.bytes, b...)
	return c.bytes[at:len(c.bytes):len(c.bytes)]
}
