package projections

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// LastEventTime is the time of the last event applied, Unix milliseconds; 0
// before the first.
func LastEventTime(r Reader) (uint64, error) {
	_, timeMS, err := readMeta(r)
	return timeMS, err
}

func lastEventTime(b *Batch) (uint64, error) {
	_, timeMS, err := readMeta(b)
	return timeMS, err
}

// readMeta reads the row that every event writes.
func readMeta(r Reader) (cursor, timeMS uint64, err error) {
	type meta struct{ cursor, timeMS uint64 }
	row, _, err := readRow(r, "meta", keyOf(r.scratch(), prefixMeta), func(in *rowReader) meta {
		in.u32()
		return meta{in.u64(), in.u64()}
	})
	return row.cursor, row.timeMS, err
}

// applyServerConfigured keeps who this log is. The first configuration stands at
// index 0; each later one names the one before and is signed by its log key.
func applyServerConfigured(b *Batch, e *Entry, ev *pb.ServerConfigured) error {
	config, err := kt.ParseConfig(ev.GetConfig())
	if err != nil {
		return invalid("configuration: %v", err)
	}
	if config.FormatVersion == 0 {
		return invalid("configuration of format 0, which has no heads")
	}
	state, err := TransparencyState(b)
	if err != nil {
		return err
	}
	if e.Index == 0 {
		if config.Previous != nil {
			return invalid("the first configuration names one before it")
		}
	} else if err := checkConfigLink(b, config, state.NewestConfig); err != nil {
		return err
	}
	state.NewestConfig = e.Index
	if err := putTransparency(b, state); err != nil {
		return err
	}
	if err := b.put(keyOfU64(b.scratch(), prefixConfigAt, e.Index), ev.GetConfig()); err != nil {
		return err
	}
	return b.put(keyOf(b.scratch(), prefixConfig), ev.GetConfig())
}

func checkConfigLink(b *Batch, config kt.Config, newest uint64) error {
	body, found, err := ServerConfig(b)
	if err != nil || !found {
		return orInvalid(err, "a later configuration without a first one")
	}
	before, err := kt.ParseConfig(body)
	if err != nil {
		return b.fault(fmt.Errorf("%w of configuration: %w", errRow, err))
	}
	if err := config.VerifyLink(before, newest); err != nil {
		return invalid("configuration: %v", err)
	}
	return nil
}

// ServerConfig is the newest CONFIG leaf's body (kt.ParseConfig reads it); not
// found before the first event.
func ServerConfig(r Reader) (config []byte, found bool, err error) {
	return r.get(keyOf(r.scratch(), prefixConfig))
}

// ConfigRef is one CONFIG leaf of the log.
type ConfigRef struct {
	// Index is the leaf's log index.
	Index uint64
	// Body is the leaf without its class byte.
	Body []byte
}

// ConfigsFrom lists the CONFIG leaves with at least a log index, oldest first.
func ConfigsFrom(r Reader, index uint64) ([]ConfigRef, error) {
	var refs []ConfigRef
	lower := keyOfU64(nil, prefixConfigAt, index)
	err := scanRows(r, lower, keyRangeEnd(lower[:1]), func(key, value []byte) (bool, error) {
		in := rowReader{rest: key[1:]}
		refs = append(refs, ConfigRef{Index: in.u64(), Body: bytes.Clone(value)})
		return true, in.end("configurations")
	})
	return refs, err
}

// SnapshotRecord is what the log says about a snapshot of the views.
type SnapshotRecord struct {
	// Size is the number of log records that the snapshot covers.
	Size uint64
	// Digest is that of the views at this size.
	Digest Hash
}

func applySnapshotTaken(b *Batch, ev *pb.SnapshotTaken) error {
	digest, err := field32(ev.GetDigest(), "digest")
	if err != nil {
		return err
	}
	if ev.GetSize() > b.cursor {
		return invalid("a snapshot of %d events at index %d", ev.GetSize(), b.cursor)
	}
	last, found, err := LastSnapshot(b)
	if err != nil {
		return err
	}
	if found && ev.GetSize() < last.Size {
		return invalid("a snapshot of %d events after one of %d", ev.GetSize(), last.Size)
	}
	b.row = binary.BigEndian.AppendUint64(b.row[:0], ev.GetSize())
	b.row = append(b.row, digest[:]...)
	return b.put(keyOf(b.scratch(), prefixSnapshot), b.row)
}

// LastSnapshot is the newest snapshot that the log records.
func LastSnapshot(r Reader) (SnapshotRecord, bool, error) {
	return readRow(r, "snapshot", keyOf(r.scratch(), prefixSnapshot), func(in *rowReader) SnapshotRecord {
		return SnapshotRecord{Size: in.u64(), Digest: in.array32()}
	})
}
