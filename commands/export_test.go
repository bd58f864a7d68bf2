package commands

import (
	"bytes"
	"errors"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/log"
	"quicprochat/projections"
)

// PretendRevoked makes the registration meet p where it looks for the revocation
// of its first key.
func (r *Registration) PretendRevoked(p *PreparedKT) { r.revocations[0].label = p.Label }

// DigestOf folds the first size records of a log into views in memory and gives
// their digest: what stored views of that size must have.
func DigestOf(l *log.Log, size uint64) (projections.Hash, error) {
	records, err := recordsOf(l, size)
	if err != nil {
		return projections.Hash{}, err
	}
	return digestOfRecords(records)
}

// recordsOf copies the first size records of a log.
func recordsOf(l *log.Log, size uint64) (records []log.Record, err error) {
	err = l.Iterate(0, size, func(_ uint64, r log.Record) error {
		records = append(records, log.Record{Leaf: bytes.Clone(r.Leaf), Opening: r.Opening, Event: bytes.Clone(r.Event)})
		return nil
	})
	return records, err
}

func digestOfRecords(records []log.Record) (digest projections.Hash, err error) {
	size := uint64(len(records))
	views, err := projections.DropAndRecreate(vfs.NewMem(), "folded", projections.Options{LogSize: size, CacheBytes: 1 << 20})
	if err != nil {
		return digest, err
	}
	defer func() { err = errors.Join(err, views.Close()) }()
	batch := views.NewBatch()
	for i, r := range records {
		ev, err := projections.DecodeEvent(r.Event)
		if err == nil {
			err = projections.Apply(batch, &projections.Entry{Index: uint64(i), Leaf: r.Leaf, Opening: r.Opening, Raw: r.Event, Event: ev})
		}
		if err != nil {
			return digest, errors.Join(err, batch.Close())
		}
	}
	if err := batch.Commit(); err != nil {
		return digest, err
	}
	snap := views.Snapshot()
	digest, err = projections.Digest(snap)
	return digest, errors.Join(err, snap.Close())
}
