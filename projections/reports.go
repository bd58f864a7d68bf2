package projections

import (
	"encoding/binary"
	"math"

	pb "quicprochat/proto/qpcv1"
)

// Report is one report to the moderators. Note, evidence and message are a payload
// under the reporter's account and the report's id.
type Report struct {
	ID ID
	// Number rises with each report, from 1.
	Number   uint64
	TimeMS   uint64
	Reporter ID
	// Account is who is reported.
	Account  ID
	Category pb.ReportCategory
	// Proved tells that the server's tag shows who sent the reported message.
	Proved bool
	// Size of the payload in bytes.
	Size  uint32
	State pb.ReportState
	// With another state than OPEN: the moderator's note, and who and when.
	Resolution string
	By         pb.Actor_Way
	ByAccount  ID
	ResolvedMS uint64
}

// ResolvedBy is who set the state; nil while it is OPEN.
func (r Report) ResolvedBy() *pb.Actor {
	if r.By == pb.Actor_UNSPECIFIED {
		return nil
	}
	return actorOf(r.By, r.ByAccount)
}

// resolved tells whether a moderator is done with it.
func (r *Report) resolved() bool { return r.State != pb.ReportState_OPEN }

// touchedMS is when it came, or when a moderator last set its state.
func (r *Report) touchedMS() uint64 { return max(r.TimeMS, r.ResolvedMS) }

// maxReportNote is the longest note of a moderator in bytes.
const maxReportNote = 4 << 10

func applyMessageReported(b *Batch, ev *pb.MessageReported, nowMS uint64) error {
	r := Report{TimeMS: nowMS, Category: ev.GetCategory(), Proved: ev.GetProved(), Size: ev.GetContentSize(), State: pb.ReportState_OPEN}
	for _, field := range [...]struct {
		into *ID
		from []byte
		name string
	}{{&r.ID, ev.GetReportId(), "report id"}, {&r.Reporter, ev.GetReporterId(), "reporter id"}, {&r.Account, ev.GetAccountId(), "account id"}} {
		var err error
		if *field.into, err = fieldID(field.from, field.name); err != nil {
			return err
		}
	}
	if _, err := field32(ev.GetContentSha256(), "content hash"); err != nil {
		return err
	}
	if !knownCategory(r.Category) {
		return invalid("a report of category %d", r.Category)
	}
	for _, account := range [...]ID{r.Reporter, r.Account} {
		if _, found, err := b.get(keyOfID(b.scratch(), prefixAccount, account)); err != nil || !found {
			return orInvalid(err, "the account does not exist")
		}
	}
	if _, found, err := b.get(keyOfID(b.scratch(), prefixReportID, r.ID)); err != nil || found {
		return orInvalid(err, "the report exists")
	}
	next, _, err := readRow(b, "report numbers", keyOf(b.scratch(), prefixReportCount), (*rowReader).u64)
	if err != nil {
		return err
	}
	r.Number = next + 1
	b.row = binary.BigEndian.AppendUint64(b.row[:0], r.Number)
	if err := b.put(keyOf(b.scratch(), prefixReportCount), b.row); err != nil {
		return err
	}
	if err := b.put(keyOfID(b.scratch(), prefixReportID, r.ID), b.row); err != nil {
		return err
	}
	if err := b.put(reportAgeKey(b.scratch(), r.resolved(), r.touchedMS(), r.Number), r.ID[:]); err != nil {
		return err
	}
	return b.putReport(&r)
}

func knownCategory(c pb.ReportCategory) bool {
	return c != pb.ReportCategory_REPORT_CATEGORY_UNSPECIFIED && c.Descriptor().Values().ByNumber(c.Number()) != nil
}

func applyReportResolved(b *Batch, ev *pb.ReportResolved, nowMS uint64) error {
	id, err := fieldID(ev.GetReportId(), "report id")
	if err != nil {
		return err
	}
	r, found, err := ReportByID(b, id)
	if err != nil || !found {
		return orInvalid(err, "the report does not exist")
	}
	if len(ev.GetNote()) > maxReportNote {
		return invalid("a note of %d bytes", len(ev.GetNote()))
	}
	if err := checkActor(b, ev.GetActor()); err != nil {
		return err
	}
	switch ev.GetState() {
	case pb.ReportState_OPEN, pb.ReportState_ACTED, pb.ReportState_DISMISSED:
	default:
		return invalid("a report of state %d", ev.GetState())
	}
	if err := b.remove(reportAgeKey(b.scratch(), r.resolved(), r.touchedMS(), r.Number)); err != nil {
		return err
	}
	r.State, r.Resolution, r.By, r.ResolvedMS = ev.GetState(), ev.GetNote(), ev.GetActor().GetWay(), nowMS
	r.ByAccount = ID{}
	copy(r.ByAccount[:], ev.GetActor().GetAccountId())
	if err := b.put(reportAgeKey(b.scratch(), r.resolved(), r.touchedMS(), r.Number), r.ID[:]); err != nil {
		return err
	}
	return b.putReport(&r)
}

func (b *Batch) putReport(r *Report) error {
	row := append(b.row[:0], r.ID[:]...)
	row = binary.BigEndian.AppendUint64(row, r.TimeMS)
	row = append(append(row, r.Reporter[:]...), r.Account[:]...)
	row = append(row, byte(r.Category), byte(r.State), boolByte(r.Proved))
	row = binary.BigEndian.AppendUint32(row, r.Size)
	row = append(append(row, byte(r.By)), r.ByAccount[:]...)
	row = binary.BigEndian.AppendUint64(row, r.ResolvedMS)
	b.row = appendBytes(row, r.Resolution)
	return b.put(keyOfU64(b.scratch(), prefixReport, r.Number), b.row)
}

func boolByte(set bool) byte {
	if set {
		return 1
	}
	return 0
}

func decodeReport(in *rowReader) Report {
	return Report{
		ID: in.id(), TimeMS: in.u64(), Reporter: in.id(), Account: in.id(),
		Category: pb.ReportCategory(in.u8()), State: pb.ReportState(in.u8()), Proved: in.u8() != 0, Size: in.u32(),
		By: pb.Actor_Way(in.u8()), ByAccount: in.id(), ResolvedMS: in.u64(), Resolution: string(in.bytes()),
	}
}

// ReportByID finds a report.
func ReportByID(r Reader, id ID) (Report, bool, error) {
	number, found, err := readRow(r, "report ids", keyOfID(r.scratch(), prefixReportID, id), (*rowReader).u64)
	if err != nil || !found {
		return Report{}, false, err
	}
	report, found, err := readRow(r, "reports", keyOfU64(r.scratch(), prefixReport, number), decodeReport)
	report.Number = number
	return report, found, err
}

// Reports calls each with the reports of a number below before, 0 for all, newest
// first, until it returns false or an error.
func Reports(r Reader, before uint64, each func(*Report) (bool, error)) error {
	if before == 0 {
		before = math.MaxUint64
	}
	it, err := r.iter(keyOf(nil, prefixReport), keyOfU64(nil, prefixReport, before))
	if err != nil {
		return r.fault(err)
	}
	for valid := it.Last(); valid; valid = it.Prev() {
		in := rowReader{rest: it.Value()}
		report := decodeReport(&in)
		report.Number = binary.BigEndian.Uint64(it.Key()[1:])
		more, err := true, in.end("reports")
		if err == nil {
			more, err = each(&report)
		}
		if err != nil {
			_ = it.Close()
			return r.fault(err)
		}
		if !more {
			break
		}
	}
	return r.fault(it.Close())
}
