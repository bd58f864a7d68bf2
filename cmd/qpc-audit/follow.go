package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// followCommand audits a log, again and again.
type followCommand struct {
	auditFlags    `embed:""`
	Once          bool          `help:"Check once, print a report and end."`
	Interval      time.Duration `default:"1m" help:"Time between two checks."`
	JSON          bool          `name:"json" help:"Print one JSON object a check in place of text."`
	MetricsListen string        `placeholder:"HOST:PORT" help:"TCP address for Prometheus, path /metrics, plain HTTP: use a loopback address."`
}

// Help is shown by follow --help.
func (*followCommand) Help() string {
	return `Every check reads the newest checkpoint, replays all leaves since the last one and
compares. One line a check goes to standard output. A finding is evidence: it is
saved in the state folder, and follow ends with status 1. Interrupted, it ends with
that of its last check.`
}

// Run is called by kong.
func (c *followCommand) Run(ctx context.Context, a *app) error {
	if c.Interval < time.Second {
		return usageError("--interval %v: give at least 1s", c.Interval)
	}
	metrics, err := openMetrics(c.MetricsListen, a.stderr)
	if err != nil {
		return err
	}
	defer metrics.close()
	audit, err := c.auditor(a)
	if err != nil {
		return err
	}
	err = c.follow(ctx, a, audit, metrics)
	return errors.Join(err, audit.close())
}

// follow checks until it is interrupted or finds something.
func (c *followCommand) follow(ctx context.Context, a *app, audit *auditor, metrics *auditMetrics) error {
	last := errInterrupted
	for {
		r, err := audit.check(ctx)
		if ctx.Err() != nil {
			return last // interrupted by its user
		}
		last = err
		metrics.note(r, err, audit.now())
		if printErr := c.print(a.stdout, audit, r, err); printErr != nil {
			return printErr
		}
		var wrong *findingError
		if c.Once || errors.As(err, &wrong) || statusOf(err) == exitLocal || statusOf(err) == exitUsage {
			return err
		}
		select {
		case <-time.After(c.Interval):
		case <-ctx.Done():
			return last
		}
	}
}

// statusLine is what --json prints.
type statusLine struct {
	Time     time.Time `json:"time"`
	Verdict  string    `json:"verdict"`
	Error    string    `json:"error,omitempty"`
	Evidence string    `json:"evidence,omitempty"`
	Origin   string    `json:"origin,omitempty"`
	Size     uint64    `json:"size,omitempty"`
	Added    uint64    `json:"added,omitempty"`
	Heads    uint64    `json:"heads,omitempty"`
	Keys     uint64    `json:"key_events,omitempty"`
	AgeMS    int64     `json:"age_ms,omitempty"`
	Cosigned int       `json:"cosigned,omitempty"`
}

// verdicts are the words of a check, by exit status.
var verdicts = map[int]string{
	exitSatisfied: "satisfied", exitEvidence: "EVIDENCE", exitUnsettled: "unsettled", exitUnreachable: "unreachable", exitLocal: "error", exitUsage: "error",
}

// print writes one line for a check, and the report with --once.
func (c *followCommand) print(w io.Writer, audit *auditor, r *result, err error) error {
	status := statusOf(err)
	line := statusLine{Time: audit.now().UTC().Truncate(time.Second), Verdict: verdicts[status]}
	if err != nil {
		line.Error = err.Error()
	}
	var wrong *findingError
	if errors.As(err, &wrong) {
		line.Evidence = wrong.File
	}
	if r != nil {
		line.Origin, line.Size, line.Added = r.Checkpoint.Origin, r.Checkpoint.Size, r.Added
		line.Heads, line.Keys, line.AgeMS, line.Cosigned = r.Head.Epoch+1, r.Head.KTCount, r.Age.Milliseconds(), len(r.Cosigned)
	}
	if c.JSON {
		return json.NewEncoder(w).Encode(line)
	}
	if r != nil && c.Once {
		r.writeReport(w, audit.src, audit.folder.state.Log)
	}
	text := line.Time.Format(time.RFC3339) + " " + line.Verdict
	if r != nil {
		text += fmt.Sprintf(": %d leaves (+%d), %d heads, %d key events, newest head %v old", line.Size, line.Added, line.Heads, line.Keys, r.Age.Round(time.Second))
		if n := len(r.Cosigned); n > 0 {
			text += fmt.Sprintf(", %d cosignatures", n)
		}
	}
	if err != nil {
		text += ": " + err.Error()
	}
	_, printErr := fmt.Fprintln(w, text)
	return printErr
}
