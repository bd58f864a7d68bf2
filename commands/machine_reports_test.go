package commands_test

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"quicprochat/commands"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// modelReport is a report as a moderator sees it.
type modelReport struct {
	id                projections.ID // learned
	number, time      uint64
	reporter, account string
	category          pb.ReportCategory
	content           *pb.ReportContent
	proved            bool
	state             pb.ReportState
	resolution        string
	resolvedBy        *pb.Actor
	resolved          uint64
}

// modelTag is what the tag of a reported message was made for.
type modelTag struct {
	sender    string
	recipient projections.Key
}

func (m *serverModel) report(r *request, req *pb.ReportMessageRequest, s *modelSession, now uint64) prediction {
	if m.accounts[req.GetUsername()] == nil {
		return refused(pb.Status_NotFound, pb.Reason_NO_SUCH_USER)
	}
	m.newestReport++
	report := &modelReport{
		number: m.newestReport, time: now, reporter: s.account, account: req.GetUsername(), category: req.GetCategory(), state: pb.ReportState_OPEN,
		content: &pb.ReportContent{Note: req.GetNote(), Evidence: req.GetEvidence(), Message: req.GetMessage()},
		proved:  r.tag != nil && *r.tag == modelTag{req.GetUsername(), m.accounts[s.account].identity},
	}
	m.reports = append(m.reports, report)
	m.events++
	answer := &pb.ReportMessageResponse{ServerTimeMs: now}
	return prediction{answer: answer, learn: func(got proto.Message) {
		report.id = projections.ID(got.(*pb.ReportMessageResponse).GetReportId())
		answer.ReportId = report.id[:]
	}}
}

func (m *serverModel) resolveReport(req *pb.ResolveReportRequest, s *modelSession, now uint64) prediction {
	answer := &pb.ResolveReportResponse{ServerTimeMs: now}
	for _, r := range m.reports {
		if string(r.id[:]) != string(req.GetReportId()) {
			continue
		}
		if r.state != req.GetState() || r.resolution != req.GetNote() {
			r.state, r.resolution, r.resolvedBy, r.resolved = req.GetState(), req.GetNote(), m.actor(s), now
			m.events++
		}
		return prediction{answer: answer}
	}
	return refused(pb.Status_NotFound, pb.Reason_NO_SUCH_REPORT)
}

// keepReports is what housekeeping does to reports: resolved ones stay for 90 days,
// others for 365, from when a moderator last touched them.
func (m *serverModel) keepReports(now uint64) {
	kept := len(m.reports)
	m.reports = slices.DeleteFunc(m.reports, func(r *modelReport) bool {
		stays := uint64(365 * aDay)
		if r.state != pb.ReportState_OPEN {
			stays = 90 * aDay
		}
		over := max(r.time, r.resolved)+stays < now
		if over {
			m.expiredReports = append(m.expiredReports, r)
		}
		return over
	})
	m.eventIf(len(m.reports) < kept)
}

// listReports is a page of reports, newest first: as many as were wished for, and at
// most half a MiB of content.
func (m *serverModel) listReports(req *pb.ListReportsRequest) prediction {
	answer := new(pb.ListReportsResponse)
	if req.GetUsername() != "" && m.accounts[req.GetUsername()] == nil {
		return prediction{answer: answer}
	}
	limit, size := int(req.GetMaxEntries()), 0
	if limit == 0 {
		limit = commands.MaxReportEntries
	}
	for i := len(m.reports) - 1; i >= 0; i-- {
		r := m.reports[i]
		switch {
		case req.GetBefore() != 0 && r.number >= req.GetBefore(), req.GetState() != 0 && r.state != req.GetState(),
			req.GetUsername() != "" && r.account != req.GetUsername():
			continue
		case len(answer.GetReports()) == limit, len(answer.GetReports()) > 0 && size+proto.Size(r.content) > 512<<10:
			answer.Next = r.number + 1
			return prediction{answer: answer}
		}
		size += proto.Size(r.content)
		answer.Reports = append(answer.Reports, r.entry())
	}
	return prediction{answer: answer}
}

func (r *modelReport) entry() *pb.Report {
	return &pb.Report{
		ReportId: r.id[:], Number: r.number, TimeMs: r.time, Reporter: r.reporter, Username: r.account, Category: r.category,
		Note: r.content.GetNote(), Evidence: r.content.GetEvidence(), Message: r.content.GetMessage(), Proved: r.proved,
		State: r.state, Resolution: r.resolution, ResolvedBy: r.resolvedBy, ResolvedMs: r.resolved,
	}
}

// drawReport reports somebody: with a message out of the reporter's queue and its tag,
// rarely a tag that was tampered with, or with words alone.
func (m *machine) drawReport(t *rapid.T) *request {
	session := m.drawSession(t)
	m.counts["report"]++
	req := &pb.ReportMessageRequest{
		SessionToken: session, Username: m.drawTarget(t), Category: pb.ReportCategory(rapid.IntRange(1, 8).Draw(t, "category")),
		Note: fmt.Sprint("note ", m.counts["report"]),
	}
	if rapid.IntRange(0, 3).Draw(t, "much evidence") == 0 {
		req.Evidence = []byte(strings.Repeat("e", commands.MaxReportEvidence))
	}
	r := &request{Message: req}
	if rapid.Bool().Draw(t, "message") {
		m.reportMessage(t, r, req)
	}
	return m.withID(t, spoil(t, r, []fault[*pb.ReportMessageRequest]{
		{pb.Reason_MISSING_FIELD, func(r *pb.ReportMessageRequest) { r.Category = 0 }},
		{pb.Reason_INVALID_FIELD, func(r *pb.ReportMessageRequest) { r.Category = 99 }},
		{pb.Reason_INVALID_FIELD, func(r *pb.ReportMessageRequest) { r.Note = strings.Repeat("n", commands.MaxReportNote+1) }},
		{pb.Reason_INVALID_FIELD, func(r *pb.ReportMessageRequest) { r.Evidence = make([]byte, commands.MaxReportEvidence+1) }},
		{pb.Reason_INVALID_FIELD, func(r *pb.ReportMessageRequest) { r.Message = &pb.ReportedMessage{MessageId: make([]byte, 15)} }},
		{pb.Reason_NOT_SUPPORTED, func(r *pb.ReportMessageRequest) { r.Username = "bob@elsewhere" }},
	}))
}

// reportMessage takes the message, as it would be delivered to the session's device.
func (m *machine) reportMessage(t *rapid.T, r *request, req *pb.ReportMessageRequest) {
	view, err := m.engine.Query(sha256.Sum256(req.GetSessionToken()), pb.Auth_SESSION)
	if err != nil {
		return // the report will be refused
	}
	defer view.Release()
	q := m.model.queues[view.Caller.DeviceKey]
	if len(q.items) == 0 {
		return
	}
	it := q.items[rapid.IntRange(0, len(q.items)-1).Draw(t, "which message")]
	e := it.envelope()
	e.Seq = it.seq
	m.check(commands.FrankEnvelopes(view, frankKey, serverName, []*pb.Envelope{e}))
	if e.GetFrank() == nil {
		return // the server's own word
	}
	if rapid.Bool().Draw(t, "of the sender") {
		req.Username = it.sender
	}
	digest := sha256.Sum256(e.GetPayload())
	req.Message = &pb.ReportedMessage{
		MessageId: e.GetMessageId(), ChannelId: e.GetChannelId(), PayloadSha256: digest[:], TimeMs: e.GetEnqueuedMs(), Frank: e.GetFrank(),
	}
	if rapid.IntRange(0, 3).Draw(t, "tampered") == 0 {
		req.Message.TimeMs++
		return
	}
	for _, s := range m.model.sessions {
		if string(s.token) == string(req.GetSessionToken()) {
			r.tag = &modelTag{it.sender, m.model.accounts[s.account].identity}
		}
	}
}

// drawVerdict resolves a report, or lists some.
func (m *machine) drawVerdict(t *rapid.T) *request {
	session := m.drawStaff(t)
	if rapid.IntRange(0, 2).Draw(t, "list") == 0 {
		req := &pb.ListReportsRequest{
			SessionToken: session, State: pb.ReportState(rapid.IntRange(0, 3).Draw(t, "state")),
			Before: rapid.Uint64Range(0, 5).Draw(t, "before"), MaxEntries: rapid.Uint32Range(0, 3).Draw(t, "entries"),
		}
		if rapid.IntRange(0, 3).Draw(t, "about one") == 0 {
			req.Username = m.drawTarget(t)
		}
		return spoil(t, &request{Message: req}, []fault[*pb.ListReportsRequest]{
			{pb.Reason_TOO_MANY_ITEMS, func(r *pb.ListReportsRequest) { r.MaxEntries = commands.MaxReportEntries + 1 }},
		})
	}
	req := &pb.ResolveReportRequest{
		SessionToken: session, ReportId: make([]byte, 16), State: pb.ReportState(rapid.IntRange(1, 3).Draw(t, "state")),
		Note: rapid.SampledFrom([]string{"", "warned"}).Draw(t, "note"),
	}
	if n := len(m.model.reports); n > 0 && rapid.IntRange(0, 9).Draw(t, "no such report") > 0 {
		req.ReportId = m.model.reports[rapid.IntRange(0, n-1).Draw(t, "which report")].id[:]
	}
	return m.withID(t, spoil(t, &request{Message: req}, []fault[*pb.ResolveReportRequest]{
		{pb.Reason_MISSING_FIELD, func(r *pb.ResolveReportRequest) { r.ReportId = nil }},
		{pb.Reason_INVALID_FIELD, func(r *pb.ResolveReportRequest) { r.ReportId = r.ReportId[1:] }},
		{pb.Reason_MISSING_FIELD, func(r *pb.ResolveReportRequest) { r.State = 0 }},
		{pb.Reason_INVALID_FIELD, func(r *pb.ResolveReportRequest) { r.State = 9 }},
	}))
}

// compareReports: each report is there with its content, and no other.
func (m *machine) compareReports(t *rapid.T, view projections.Reader) {
	reports := map[projections.ID]projections.Report{}
	m.check(projections.Reports(view, 0, func(r *projections.Report) (bool, error) {
		reports[r.ID] = *r
		return true, nil
	}))
	if len(reports) != len(m.model.reports) {
		t.Fatalf("there are %d reports, in the model %d", len(reports), len(m.model.reports))
	}
	for _, want := range m.model.reports {
		got, found := reports[want.id]
		if !found || got.Number != want.number || got.State != want.state || got.Resolution != want.resolution ||
			got.ResolvedMS != want.resolved || got.Proved != want.proved || int(got.Size) != proto.Size(want.content) {
			t.Fatalf("report %+v, in the model %+v", got, want)
		}
		if _, found, err := m.engine.Payload(m.model.accounts[want.reporter].id, want.id); err != nil || !found {
			t.Fatalf("a report without its content (%v)", err)
		}
	}
	for _, gone := range m.model.expiredReports {
		if _, found, err := m.engine.Payload(m.model.accounts[gone.reporter].id, gone.id); err != nil || found {
			t.Fatalf("the content of an expired report is there (%v)", err)
		}
	}
}
