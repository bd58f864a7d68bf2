package projections

import (
	"encoding/binary"
	"fmt"

	pb "quicprochat/proto/qpcv1"
)

// Reports have an index by age, open and resolved ones apart: how long either kind is
// kept is decided, and stands in the event that ends them.

// applyReportsExpired forgets reports and releases their contents.
func applyReportsExpired(b *Batch, ev *pb.ReportsExpired, nowMS uint64) error {
	if len(ev.GetReportIds()) == 0 || max(ev.GetOpenBeforeMs(), ev.GetResolvedBeforeMs()) > nowMS {
		return invalid("%d reports expired, of before %d and %d", len(ev.GetReportIds()), ev.GetOpenBeforeMs(), ev.GetResolvedBeforeMs())
	}
	for _, reportID := range ev.GetReportIds() {
		id, err := fieldID(reportID, "report id")
		if err != nil {
			return err
		}
		r, found, err := ReportByID(b, id)
		if err != nil || !found {
			return orInvalid(err, "the report does not exist")
		}
		before := ev.GetOpenBeforeMs()
		if r.resolved() {
			before = ev.GetResolvedBeforeMs()
		}
		if r.touchedMS() >= before {
			return invalid("a report of %d expired, with those of before %d", r.touchedMS(), before)
		}
		if err := b.removeReport(&r); err != nil {
			return err
		}
	}
	return nil
}

func (b *Batch) removeReport(r *Report) error {
	if err := b.remove(reportAgeKey(b.scratch(), r.resolved(), r.touchedMS(), r.Number)); err != nil {
		return err
	}
	if err := b.remove(keyOfID(b.scratch(), prefixReportID, r.ID)); err != nil {
		return err
	}
	b.released = append(b.released, PayloadRef{Owner: r.Reporter, ID: r.ID})
	return b.remove(keyOfU64(b.scratch(), prefixReport, r.Number))
}

// ReportsBefore lists up to limit reports, open or resolved ones, that nobody has
// touched since beforeMS, Unix milliseconds; oldest first.
func ReportsBefore(r Reader, resolved bool, beforeMS uint64, limit int) (ids []ID, err error) {
	start, end := reportAgeKey(nil, resolved, 0, 0), reportAgeKey(nil, resolved, beforeMS, 0)
	err = scanRows(r, start, end, func(key, value []byte) (bool, error) {
		if len(ids) >= limit {
			return false, nil
		}
		if len(value) != len(ID{}) {
			return false, fmt.Errorf("%w of ages of reports: %d bytes for number %d", errRow, len(value), binary.BigEndian.Uint64(key[len(key)-8:]))
		}
		ids = append(ids, ID(value))
		return true, nil
	})
	return ids, err
}
