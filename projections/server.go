package projections

import (
	"encoding/binary"

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

// applyServerConfigured keeps who this log is.
func applyServerConfigured(b *Batch, ev *pb.ServerConfigured) error {
	if _, err := kt.ParseConfig(ev.GetConfig()); err != nil {
		return invalid("configuration: %v", err)
	}
	return b.put(keyOf(b.scratch(), prefixConfig), ev.GetConfig())
}

// ServerConfig is the CONFIG leaf's body (kt.ParseConfig reads it); not found
// before the first event.
func ServerConfig(r Reader) (config []byte, found bool, err error) {
	return r.get(keyOf(r.scratch(), prefixConfig))
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
