package commands

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// Sizes of reports in bytes.
const (
	// MaxReportNote is the longest note, of a reporter or a moderator.
	MaxReportNote = 4 << 10
	// MaxReportEvidence is the longest evidence.
	MaxReportEvidence = 64 << 10
	// MaxReportEntries is the most reports in one answer, and what a max_entries of
	// 0 stands for. Their evidence bounds an answer further (maxReportBytes).
	MaxReportEntries = 64
	maxReportBytes   = 512 << 10
	// reportScan is how many reports one filtered page looks at.
	reportScan = 4096
)

// PreparedReport is a ReportMessageRequest, checked outside the writer. Only
// PrepareReport makes one.
type PreparedReport struct {
	username string
	category pb.ReportCategory
	content  []byte // a ReportContent
	proved   bool
}

// PrepareReport checks a report, and its tag with the server's key as far as view,
// the published state, tells who is reported. Refusals, all BadRequest:
// MISSING_FIELD, INVALID_FIELD, USERNAME_INVALID, NOT_SUPPORTED.
func PrepareReport(v *View, frank *FrankKey, serverName string, req *pb.ReportMessageRequest) (*PreparedReport, error) {
	name, err := localName(req.GetUsername())
	if err != nil {
		return nil, err
	}
	switch c := req.GetCategory(); {
	case c == pb.ReportCategory_REPORT_CATEGORY_UNSPECIFIED:
		return nil, missing("category")
	case c.Descriptor().Values().ByNumber(c.Number()) == nil:
		return nil, invalid("category %d is unknown", c)
	case len(req.GetNote()) > MaxReportNote || !utf8.ValidString(req.GetNote()):
		return nil, invalid("a note of %d bytes, at most %d of UTF-8 are allowed", len(req.GetNote()), MaxReportNote)
	case len(req.GetEvidence()) > MaxReportEvidence:
		return nil, invalid("evidence of %d bytes, at most %d are allowed", len(req.GetEvidence()), MaxReportEvidence)
	}
	if err := checkReported(req.GetMessage()); err != nil {
		return nil, err
	}
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pb.ReportContent{
		Note: req.GetNote(), Evidence: req.GetEvidence(), Message: req.GetMessage(),
	})
	if err != nil {
		return nil, fmt.Errorf("commands: encoding a report: %w", err)
	}
	p := &PreparedReport{username: name, category: req.GetCategory(), content: content}
	p.proved, err = provesSender(v, frank, serverName, name, req.GetMessage())
	return p, err
}

// checkReported holds the sizes of what a tag is made over.
func checkReported(m *pb.ReportedMessage) error {
	switch {
	case m == nil:
		return nil
	case len(m.GetMessageId()) != MessageIDSize:
		return invalid("message.message_id has %d bytes, not %d", len(m.GetMessageId()), MessageIDSize)
	case len(m.GetPayloadSha256()) != sha256.Size:
		return invalid("message.payload_sha256 has %d bytes, not %d", len(m.GetPayloadSha256()), sha256.Size)
	case len(m.GetChannelId()) != 0 && len(m.GetChannelId()) != 16:
		return invalid("message.channel_id has %d bytes, not 16", len(m.GetChannelId()))
	case len(m.GetFrank().GetTag()) != 0 && len(m.GetFrank().GetTag()) != frankTagSize:
		return invalid("message.frank.tag has %d bytes, not %d", len(m.GetFrank().GetTag()), frankTagSize)
	case m.GetTimeMs() > maxBanEndMS || len(m.ProtoReflect().GetUnknown())+len(m.GetFrank().ProtoReflect().GetUnknown()) > 0:
		return invalid("message has a field out of range")
	}
	return nil
}

// provesSender recomputes a tag with the reporter as the recipient.
func provesSender(v *View, frank *FrankKey, serverName, sender string, m *pb.ReportedMessage) (bool, error) {
	if m.GetFrank() == nil {
		return false, nil
	}
	reporter, found, err := projections.AccountByID(v.Reader, v.Caller.Account)
	if err != nil || !found {
		return false, err
	}
	return frank.verify(m.GetFrank(), franked{
		serverName: serverName, sender: sender, recipient: reporter.IdentityKey, channel: m.GetChannelId(),
		message: projections.ID(m.GetMessageId()), payload: [32]byte(m.GetPayloadSha256()), timeMS: m.GetTimeMs(),
	}), nil
}

// ReportMessage decides a report. Its answer does not tell whether the tag was
// right. Refusal: NotFound NO_SUCH_USER.
func ReportMessage(tx *Tx, p *PreparedReport) (*pb.ReportMessageResponse, error) {
	account, found, err := projections.AccountByName(tx.View(), p.username)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, errNoSuchUser
	}
	id, reporter, digest := tx.NewID(), tx.Caller().Account, sha256.Sum256(p.content)
	tx.PutPayload(reporter, id, p.content)
	err = tx.Emit(&pb.Event{Body: &pb.Event_MessageReported{MessageReported: &pb.MessageReported{
		ReportId: id[:], ReporterId: reporter[:], AccountId: account.ID[:], Category: p.category, Proved: p.proved,
		ContentSize: uint32(len(p.content)), ContentSha256: digest[:],
	}}})
	if err != nil {
		return nil, err
	}
	return &pb.ReportMessageResponse{ReportId: id[:], ServerTimeMs: tx.Now()}, nil
}

// NewReportMessage makes the command of a ReportMessage from what PrepareReport made
// of the same request.
func NewReportMessage(rule *pb.Rule, req *pb.ReportMessageRequest, p *PreparedReport) (*Command, error) {
	return NewCommand(rule, req, func(tx *Tx) (*pb.ReportMessageResponse, error) { return ReportMessage(tx, p) })
}

// verdictOf is a ResolveReport, whichever way it came.
type verdictOf struct {
	moderation
	report projections.ID
	state  pb.ReportState
	note   string
}

func newVerdict(way pb.Actor_Way, id []byte, state pb.ReportState, note string) (*verdictOf, error) {
	v := &verdictOf{moderation: moderation{way}, state: state, note: note}
	switch n := len(id); {
	case n == 0:
		return nil, missing("report_id")
	case n != len(v.report):
		return nil, invalid("report_id has %d bytes, not %d", n, len(v.report))
	case len(note) > MaxReportNote:
		return nil, invalid("a note of %d bytes, at most %d are allowed", len(note), MaxReportNote)
	}
	switch state {
	case pb.ReportState_OPEN, pb.ReportState_ACTED, pb.ReportState_DISMISSED:
	case pb.ReportState_REPORT_STATE_UNSPECIFIED:
		return nil, missing("state")
	default:
		return nil, invalid("state %d is unknown", state)
	}
	v.report = projections.ID(id)
	return v, nil
}

// decide sets the state of a report. The same again changes nothing.
func (v *verdictOf) decide(tx *Tx) error {
	actor, _, err := v.actor(tx)
	if err != nil {
		return err
	}
	report, found, err := projections.ReportByID(tx.View(), v.report)
	switch {
	case err != nil:
		return err
	case !found:
		return Refuse(pb.Status_NotFound, pb.Reason_NO_SUCH_REPORT, "there is no such report")
	case report.State == v.state && report.Resolution == v.note:
		return nil
	}
	return tx.Emit(&pb.Event{Body: &pb.Event_ReportResolved{ReportResolved: &pb.ReportResolved{
		ReportId: v.report[:], State: v.state, Note: v.note, Actor: actor,
	}}})
}

// NewResolveReport makes the command of a ResolveReport. Refusals: BadRequest
// MISSING_FIELD, INVALID_FIELD; Forbidden ROLE; NotFound NO_SUCH_REPORT.
func NewResolveReport(rule *pb.Rule, req *pb.ResolveReportRequest) (*Command, error) {
	v, err := newVerdict(pb.Actor_SESSION, req.GetReportId(), req.GetState(), req.GetNote())
	if err != nil {
		return nil, err
	}
	return NewCommand(rule, req, func(tx *Tx) (*pb.ResolveReportResponse, error) {
		if err := v.decide(tx); err != nil {
			return nil, err
		}
		return &pb.ResolveReportResponse{ServerTimeMs: tx.Now()}, nil
	})
}

// NewResolveAnyReport is NewResolveReport for whoever runs the server.
func NewResolveAnyReport(rule *pb.Rule, req *pb.ResolveAnyReportRequest, by pb.Actor_Way) (*Command, error) {
	v, err := newVerdict(by, req.GetReportId(), req.GetState(), req.GetNote())
	if err != nil {
		return nil, err
	}
	return NewCommand(rule, req, func(tx *Tx) (*pb.ResolveAnyReportResponse, error) {
		if err := v.decide(tx); err != nil {
			return nil, err
		}
		return &pb.ResolveAnyReportResponse{ServerTimeMs: tx.Now()}, nil
	})
}

// Reports are kept no longer than moderators need them: evidence is what people wrote
// to each other (docs/decisions/0014-reports-expire.md).
const (
	// OpenReportMS is how long a report is kept that nobody resolves, in milliseconds
	// since it came or was taken up again: 365 days.
	OpenReportMS = 365 * dayMS
	// ResolvedReportMS is how long a resolved one is kept for appeals, in milliseconds:
	// 90 days.
	ResolvedReportMS = 90 * dayMS
)

// expireReports forgets reports that were kept long enough.
func expireReports(tx *Tx) (more bool, err error) {
	expired := &pb.ReportsExpired{OpenBeforeMs: ago(tx.Now(), OpenReportMS), ResolvedBeforeMs: ago(tx.Now(), ResolvedReportMS)}
	open, err := projections.ReportsBefore(tx.View(), false, expired.GetOpenBeforeMs(), expiryLimit)
	if err != nil {
		return false, err
	}
	resolved, err := projections.ReportsBefore(tx.View(), true, expired.GetResolvedBeforeMs(), expiryLimit-len(open))
	if err != nil || len(open)+len(resolved) == 0 {
		return false, err
	}
	for _, id := range append(open, resolved...) {
		expired.ReportIds = append(expired.ReportIds, bytes.Clone(id[:]))
	}
	return len(expired.GetReportIds()) >= expiryLimit, tx.Emit(&pb.Event{Body: &pb.Event_ReportsExpired{ReportsExpired: expired}})
}

// ago is a time that lies so many milliseconds back.
func ago(nowMS, ageMS uint64) uint64 { return nowMS - min(nowMS, ageMS) }

// reportFilter is what ListReportsRequest and ListAllReportsRequest have in common.
type reportFilter interface {
	GetState() pb.ReportState
	GetUsername() string
	GetBefore() uint64
	GetMaxEntries() uint32
}

// ListReports answers with reports, newest first, from the published view. Refusals,
// all BadRequest: TOO_MANY_ITEMS, USERNAME_INVALID, NOT_SUPPORTED.
func ListReports(v *View, req *pb.ListReportsRequest) (*pb.ListReportsResponse, error) {
	reports, next, err := listReports(v, req)
	return &pb.ListReportsResponse{Reports: reports, Next: next}, err
}

// ListAllReports is ListReports for whoever runs the server.
func ListAllReports(v *View, req *pb.ListAllReportsRequest) (*pb.ListAllReportsResponse, error) {
	reports, next, err := listReports(v, req)
	return &pb.ListAllReportsResponse{Reports: reports, Next: next}, err
}

func listReports(v *View, req reportFilter) (entries []*pb.Report, next uint64, err error) {
	limit, err := pageLimit("max_entries", req.GetMaxEntries(), MaxReportEntries)
	if err != nil {
		return nil, 0, err
	}
	var about *projections.ID
	if req.GetUsername() != "" {
		name, err := localName(req.GetUsername())
		if err != nil {
			return nil, 0, err
		}
		account, found, err := projections.AccountByName(v.Reader, name)
		if err != nil || !found {
			return nil, 0, err
		}
		about = &account.ID
	}
	var found []projections.Report
	scanned, size := 0, 0
	err = projections.Reports(v.Reader, req.GetBefore(), func(r *projections.Report) (bool, error) {
		wanted := (about == nil || r.Account == *about) && (req.GetState() == pb.ReportState_REPORT_STATE_UNSPECIFIED || r.State == req.GetState())
		if scanned++; scanned > reportScan || wanted && (len(found) >= limit || len(found) > 0 && size+int(r.Size) > maxReportBytes) {
			next = r.Number + 1
			return false, nil
		}
		if wanted {
			found = append(found, *r)
			size += int(r.Size)
		}
		return true, nil
	})
	for i := range found {
		if err != nil {
			break
		}
		var entry *pb.Report
		entry, err = reportEntry(v, &found[i])
		entries = append(entries, entry)
	}
	return entries, next, err
}

// reportEntry adds names and content. Content that is gone leaves its fields empty.
func reportEntry(v *View, r *projections.Report) (*pb.Report, error) {
	entry := &pb.Report{
		ReportId: r.ID[:], Number: r.Number, TimeMs: r.TimeMS, Category: r.Category, Proved: r.Proved, State: r.State,
		Resolution: r.Resolution, ResolvedBy: r.ResolvedBy(), ResolvedMs: r.ResolvedMS,
	}
	reporter, _, err := projections.AccountByID(v.Reader, r.Reporter)
	if err != nil {
		return nil, err
	}
	account, _, err := projections.AccountByID(v.Reader, r.Account)
	if err != nil {
		return nil, err
	}
	entry.Reporter, entry.Username = reporter.Username, account.Username
	raw, found, err := v.Payload(r.Reporter, r.ID)
	if err != nil || !found {
		return entry, err
	}
	content := new(pb.ReportContent)
	if err := proto.Unmarshal(raw, content); err != nil {
		return nil, fmt.Errorf("commands: content of a report: %w", err)
	}
	entry.Note, entry.Evidence, entry.Message = content.GetNote(), content.GetEvidence(), content.GetMessage()
	return entry, nil
}
