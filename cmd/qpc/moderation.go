package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// reportableFile holds what a report of a received message needs: no text, and
// nothing that opens it.
const reportableFile = "reportable.json"

// reportable is one message that was shown.
type reportable struct {
	From string `json:"from"`
	// Message is a pb.ReportedMessage.
	Message []byte `json:"message"`
}

// reportableKept bounds the file, oldest first out.
const reportableKept = 256

// noteReportable keeps what a report of a message needs.
func (r *reader) noteReportable(from string, envelope *pb.Envelope) error {
	message := client.Reported(envelope)
	if message == nil || from == "" {
		return nil
	}
	encoded, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	kept, err := r.home.reportables()
	if err != nil {
		return err
	}
	kept = append(kept, reportable{from, encoded})
	return r.home.save(reportableFile, kept[max(0, len(kept)-reportableKept):])
}

func (h *home) reportables() ([]reportable, error) {
	var kept []reportable
	if err := h.load(reportableFile, &kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return kept, nil
}

type reportCommand struct {
	Name     string `arg:"" help:"Username of the person."`
	Category string `default:"other" enum:"spam,harassment,violence,sexual,child-safety,illegal,impersonation,other" placeholder:"WORD" help:"spam, harassment, violence, sexual, child-safety, illegal, impersonation or other."`
	Note     string `placeholder:"TEXT" help:"What moderators should know; at most 4 KiB."`
	Evidence string `placeholder:"TEXT" help:"What the message said; at most 64 KiB."`
	Last     bool   `help:"Report the last message that this home received from that person."`
}

func (reportCommand) Help() string {
	return "Tells the server's moderators. With --last the server can be sure that this person sent that message to you; it has never seen the text, so what you write in --evidence is your word. Nobody tells the person."
}

var reportCategories = map[string]pb.ReportCategory{
	"spam": pb.ReportCategory_SPAM, "harassment": pb.ReportCategory_HARASSMENT, "violence": pb.ReportCategory_VIOLENCE,
	"sexual": pb.ReportCategory_SEXUAL_CONTENT, "child-safety": pb.ReportCategory_CHILD_SAFETY, "illegal": pb.ReportCategory_ILLEGAL_CONTENT,
	"impersonation": pb.ReportCategory_IMPERSONATION, "other": pb.ReportCategory_OTHER_CATEGORY,
}

// Run sends a report.
func (cmd reportCommand) Run(ctx context.Context, a *app) error {
	h, _, c, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	req := &pb.ReportMessageRequest{
		Username: cmd.Name, Category: reportCategories[cmd.Category], Note: cmd.Note, Evidence: []byte(cmd.Evidence),
	}
	if cmd.Last {
		if req.Message, err = h.lastFrom(cmd.Name); err != nil {
			return err
		}
	}
	resp, err := c.ReportMessage(ctx, req)
	if err != nil {
		return err
	}
	return a.print(map[string]any{"report_id": hex.EncodeToString(resp.GetReportId())}, "Reported %s (report %x).", cmd.Name, resp.GetReportId())
}

// lastFrom is the last message of a person that this home received.
func (h *home) lastFrom(username string) (*pb.ReportedMessage, error) {
	name, err := statement.CanonicalUsername(username)
	if err != nil {
		return nil, usageError("%w", err)
	}
	kept, err := h.reportables()
	if err != nil {
		return nil, err
	}
	for i := len(kept) - 1; i >= 0; i-- {
		if kept[i].From != name {
			continue
		}
		m := new(pb.ReportedMessage)
		return m, proto.Unmarshal(kept[i].Message, m)
	}
	return nil, usageError("this home has received no message of %s that could be reported", name)
}

type banCommand struct {
	Name   string         `arg:"" help:"Username."`
	Reason string         `placeholder:"TEXT" help:"Why, for other moderators; at most 1 KiB."`
	For    *time.Duration `placeholder:"DURATION" help:"How long, such as 72h; without it until 'qpc unban'."`
}

func (banCommand) Help() string {
	return "For moderators and administrators of the server: shuts a user out. Sessions end, a login is refused, nothing goes from the user or to them."
}

// Run bans a user.
func (cmd banCommand) Run(ctx context.Context, a *app) error {
	if err := checkBanTime(cmd.For); err != nil {
		return err
	}
	_, _, c, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	req := &pb.BanUserRequest{
		Scope: pb.BanScope_WHOLE_SERVER, Username: cmd.Name, Reason: cmd.Reason, UntilMs: banEnd(c.ServerTime(), cmd.For),
	}
	if _, err := c.BanUser(ctx, req); err != nil {
		return err
	}
	return a.print(map[string]any{"username": cmd.Name, "until_ms": req.GetUntilMs()}, "%s is banned %s.", cmd.Name, untilText(req.GetUntilMs(), "qpc unban"))
}

// checkBanTime refuses a time that is none: a script that computed 0 does not mean
// for ever.
func checkBanTime(long *time.Duration) error {
	if long != nil && *long < time.Second {
		return usageError("--for %v: at least 1s; without --for a ban lasts until it is lifted", *long)
	}
	return nil
}

// banEnd is when a ban ends, Unix milliseconds; 0 without a time.
func banEnd(now time.Time, long *time.Duration) uint64 {
	if long == nil {
		return 0
	}
	return uint64(now.Add(*long).UnixMilli())
}

// untilText says when a ban ends; lift names the command that ends one without a time.
func untilText(ms uint64, lift string) string {
	if ms == 0 {
		return "until '" + lift + "'"
	}
	return "until " + time.UnixMilli(int64(ms)).Local().Format(time.DateTime)
}

type unbanCommand struct {
	Name   string `arg:"" help:"Username."`
	Reason string `placeholder:"TEXT" help:"Why, for other moderators; at most 1 KiB."`
}

// Run lifts a ban.
func (cmd unbanCommand) Run(ctx context.Context, a *app) error {
	_, _, c, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.UnbanUser(ctx, &pb.UnbanUserRequest{Scope: pb.BanScope_WHOLE_SERVER, Username: cmd.Name, Reason: cmd.Reason}); err != nil {
		return err
	}
	return a.print(map[string]any{"username": cmd.Name}, "%s is not banned any more.", cmd.Name)
}

type bansCommand struct{}

// Run lists who is banned.
func (bansCommand) Run(ctx context.Context, a *app) error {
	_, _, c, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return a.printBans(ctx, c, &pb.ListBannedRequest{Scope: pb.BanScope_WHOLE_SERVER}, "qpc unban")
}

// printBans prints all pages of a list of bans.
func (a *app) printBans(ctx context.Context, c *client.Client, req *pb.ListBannedRequest, lift string) error {
	for {
		resp, err := c.ListBanned(ctx, req)
		if err != nil {
			return err
		}
		for _, ban := range resp.GetBans() {
			err := a.print(map[string]any{
				"username": ban.GetUsername(), "since_ms": ban.GetSinceMs(), "until_ms": ban.GetUntilMs(), "reason": ban.GetReason(),
			}, "%s  since %s, %s  %q", ban.GetUsername(), time.UnixMilli(int64(ban.GetSinceMs())).Local().Format(time.DateTime),
				untilText(ban.GetUntilMs(), lift), ban.GetReason())
			if err != nil {
				return err
			}
		}
		if req.After = resp.GetNext(); len(req.After) == 0 {
			return nil
		}
	}
}

type reportsCommand struct {
	State string `default:"open" enum:"open,acted,dismissed,any" placeholder:"WORD" help:"Only reports in this state: open, acted, dismissed or any."`
	User  string `placeholder:"NAME" help:"Only reports about this user."`
}

func (reportsCommand) Help() string {
	return "For moderators and administrators of the server. 'sender proved' says that the server's own tag shows who sent the message; what it said is the reporter's word."
}

var reportStates = map[string]pb.ReportState{
	"any": pb.ReportState_REPORT_STATE_UNSPECIFIED, "open": pb.ReportState_OPEN,
	"acted": pb.ReportState_ACTED, "dismissed": pb.ReportState_DISMISSED,
}

// Run lists reports, newest first.
func (cmd reportsCommand) Run(ctx context.Context, a *app) error {
	_, _, c, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for req := (&pb.ListReportsRequest{State: reportStates[cmd.State], Username: cmd.User}); ; {
		resp, err := c.ListReports(ctx, req)
		if err != nil {
			return err
		}
		for _, report := range resp.GetReports() {
			if err := a.printUserReport(report); err != nil {
				return err
			}
		}
		if req.Before = resp.GetNext(); req.Before == 0 {
			return nil
		}
	}
}

func (a *app) printUserReport(r *pb.Report) error {
	sender := "sender not proved"
	if r.GetProved() {
		sender = "sender proved"
	}
	state, category := strings.ToLower(r.GetState().String()), strings.ToLower(r.GetCategory().String())
	return a.print(map[string]any{
		"report_id": hex.EncodeToString(r.GetReportId()), "time_ms": r.GetTimeMs(), "reporter": r.GetReporter(), "username": r.GetUsername(),
		"category": category, "note": r.GetNote(), "evidence": r.GetEvidence(), "proved": r.GetProved(), "state": state, "resolution": r.GetResolution(),
	}, "%x  %s  %s  %s reports %s: %s (%s)%s",
		r.GetReportId(), time.UnixMilli(int64(r.GetTimeMs())).Local().Format(time.DateTime), state, r.GetReporter(), r.GetUsername(),
		category, sender, reportWords(r))
}

// reportWords are the words that a report has, a line each. They come from others:
// quoted, they can't move the cursor.
func reportWords(r *pb.Report) (lines string) {
	if note := r.GetNote(); note != "" {
		lines += fmt.Sprintf("\n  note      %q", note)
	}
	if evidence := r.GetEvidence(); len(evidence) > 0 {
		lines += fmt.Sprintf("\n  evidence  %q, as the reporter tells it", evidence)
	}
	if resolution := r.GetResolution(); resolution != "" {
		lines += fmt.Sprintf("\n  resolved  %q", resolution)
	}
	return lines
}

type resolveCommand struct {
	Report string `arg:"" help:"The report, 32 hexadecimal digits."`
	State  string `arg:"" enum:"acted,dismissed,open" help:"acted, dismissed or open."`
	Note   string `placeholder:"TEXT" help:"What was done and why, for other moderators; at most 4 KiB."`
}

// Run says what became of a report.
func (cmd resolveCommand) Run(ctx context.Context, a *app) error {
	id, err := decodeHex(cmd.Report, 16)
	if err != nil {
		return usageError("the report: %w", err)
	}
	_, _, c, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.ResolveReport(ctx, &pb.ResolveReportRequest{ReportId: id, State: reportStates[cmd.State], Note: cmd.Note}); err != nil {
		return err
	}
	return a.print(map[string]any{"report_id": cmd.Report, "state": cmd.State}, "Report %s is %s.", cmd.Report, cmd.State)
}
