package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	pb "quicprochat/proto/qpcv1"
)

// run bans a user from the server.
func (c *banCommand) run(ctx context.Context, p *process) error {
	req, resp := &pb.BanAnyUserRequest{Username: c.Name, Reason: c.Reason}, new(pb.BanAnyUserResponse)
	if c.For != nil {
		if *c.For < time.Second { // a script that computed 0 does not mean for ever
			return fmt.Errorf("--for %v: at least 1s; without --for a ban lasts until it is lifted", *c.For)
		}
		req.UntilMs = uint64(time.Now().Add(*c.For).UnixMilli())
	}
	err := c.adminFlags.session(ctx, p, func(call adminCall) error { return call(req, resp) })
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s is banned %s\n", resp.GetUsername(), until(req.GetUntilMs()))
	return err
}

func until(ms uint64) string {
	if ms == 0 {
		return "until 'admin unban'"
	}
	return "until " + time.UnixMilli(int64(ms)).Local().Format(time.DateTime)
}

// run lifts a ban.
func (c *unbanCommand) run(ctx context.Context, p *process) error {
	resp := new(pb.UnbanAnyUserResponse)
	err := c.adminFlags.session(ctx, p, func(call adminCall) error {
		return call(&pb.UnbanAnyUserRequest{Username: c.Name, Reason: c.Reason}, resp)
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s is not banned any more\n", resp.GetUsername())
	return err
}

// run lists who is banned.
func (c *bansCommand) run(ctx context.Context, p *process) error {
	return c.adminFlags.session(ctx, p, func(call adminCall) error {
		for req := new(pb.ListAllBannedRequest); ; {
			resp := new(pb.ListAllBannedResponse)
			if err := call(req, resp); err != nil {
				return err
			}
			for _, ban := range resp.GetBans() {
				if err := p.printBan(ban, c.JSON); err != nil {
					return err
				}
			}
			if req.After = resp.GetNext(); len(req.After) == 0 {
				return nil
			}
		}
	})
}

func (p *process) printBan(ban *pb.Ban, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(p.stdout).Encode(map[string]any{
			"username": ban.GetUsername(), "identity_key": hex.EncodeToString(ban.GetIdentityKey()), "since_ms": ban.GetSinceMs(),
			"until_ms": ban.GetUntilMs(), "reason": ban.GetReason(), "by": strings.ToLower(ban.GetActor().GetWay().String()),
		})
	}
	_, err := fmt.Fprintf(p.stdout, "%-32s since %s, %s  %s\n", ban.GetUsername(),
		time.UnixMilli(int64(ban.GetSinceMs())).Local().Format(time.DateTime), until(ban.GetUntilMs()), ban.GetReason())
	return err
}

// reportStates are the words for states of reports.
var reportStates = map[string]pb.ReportState{
	"any": pb.ReportState_REPORT_STATE_UNSPECIFIED, "open": pb.ReportState_OPEN,
	"acted": pb.ReportState_ACTED, "dismissed": pb.ReportState_DISMISSED,
}

// run lists reports, newest first.
func (c *reportsCommand) run(ctx context.Context, p *process) error {
	return c.adminFlags.session(ctx, p, func(call adminCall) error {
		for req := (&pb.ListAllReportsRequest{State: reportStates[c.State], Username: c.User}); ; {
			resp := new(pb.ListAllReportsResponse)
			if err := call(req, resp); err != nil {
				return err
			}
			for _, report := range resp.GetReports() {
				if err := p.printReport(report, c.JSON); err != nil {
					return err
				}
			}
			if req.Before = resp.GetNext(); req.Before == 0 {
				return nil
			}
		}
	})
}

func (p *process) printReport(r *pb.Report, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(p.stdout).Encode(map[string]any{
			"report_id": hex.EncodeToString(r.GetReportId()), "time_ms": r.GetTimeMs(), "reporter": r.GetReporter(), "username": r.GetUsername(),
			"category": strings.ToLower(r.GetCategory().String()), "note": r.GetNote(), "evidence": r.GetEvidence(), "proved": r.GetProved(),
			"state": strings.ToLower(r.GetState().String()), "resolution": r.GetResolution(),
		})
	}
	sender := "sender not proved"
	if r.GetProved() {
		sender = "sender proved"
	}
	_, err := fmt.Fprintf(p.stdout, "%x  %s  %-9s  %s reports %s: %s (%s)\n%s",
		r.GetReportId(), time.UnixMilli(int64(r.GetTimeMs())).Local().Format(time.DateTime), strings.ToLower(r.GetState().String()),
		r.GetReporter(), r.GetUsername(), strings.ToLower(r.GetCategory().String()), sender, reportWords(r))
	return err
}

// reportWords are the words that a report has, a line each. They come from strangers:
// quoted, they can't move the cursor.
func reportWords(r *pb.Report) (lines string) {
	if note := r.GetNote(); note != "" {
		lines += fmt.Sprintf("  note      %q\n", note)
	}
	if evidence := r.GetEvidence(); len(evidence) > 0 {
		lines += fmt.Sprintf("  evidence  %q, as the reporter tells it\n", evidence)
	}
	if resolution := r.GetResolution(); resolution != "" {
		lines += fmt.Sprintf("  resolved  %q\n", resolution)
	}
	return lines
}

// run says what became of a report.
func (c *resolveCommand) run(ctx context.Context, p *process) error {
	id, err := hex.DecodeString(c.Report)
	if err != nil {
		return &coded{exitUsage, fmt.Errorf("%q is no report: give the 32 hexadecimal digits that 'admin reports' shows", c.Report)}
	}
	err = c.adminFlags.session(ctx, p, func(call adminCall) error {
		return call(&pb.ResolveAnyReportRequest{ReportId: id, State: reportStates[c.State], Note: c.Note}, new(pb.ResolveAnyReportResponse))
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "report %s is %s\n", c.Report, c.State)
	return err
}
