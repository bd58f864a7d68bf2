package bench

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Report is what a run prints; the names are those of its JSON.
type Report struct {
	Connections int `json:"connections"`
	InFlight    int `json:"inflight"`
	// Payload in bytes.
	Payload int `json:"payload"`
	// DurationS is how long the server was driven, in seconds, baseline not
	// counted.
	DurationS float64 `json:"duration_s"`

	EnqueuePerS  float64 `json:"enqueue_per_s,omitempty"`
	EnqueueP50MS float64 `json:"enqueue_p50_ms,omitempty"`
	EnqueueP99MS float64 `json:"enqueue_p99_ms,omitempty"`
	EchoPerS     float64 `json:"echo_per_s,omitempty"`
	EchoP50MS    float64 `json:"echo_p50_ms,omitempty"`
	EchoP99MS    float64 `json:"echo_p99_ms,omitempty"`
	// Ratio is enqueue_per_s ÷ echo_per_s, P99Ratio likewise; 0 without a
	// baseline.
	Ratio    float64 `json:"ratio,omitempty"`
	P99Ratio float64 `json:"p99_ratio,omitempty"`

	// Acknowledged calls, those refused or lost, and messages found in the
	// queues afterwards.
	Acknowledged uint64 `json:"acknowledged"`
	Failed       uint64 `json:"failed"`
	Stored       uint64 `json:"stored"`
	FirstError   string `json:"first_error,omitempty"`
	// Cause is FirstError for errors.As; nil without a failure.
	Cause error `json:"-"`
}

// Lost tells whether acknowledged messages are missing from the queues.
func (r *Report) Lost() bool { return r.Stored < r.Acknowledged }

// slice is how long the load stays on one server before it turns to the other:
// long enough to fill the pipeline, short enough to meet the same weather.
const slice = time.Second

// Enqueue drives a server, interleaved with the echo baseline when there is one,
// counts the queues afterwards and reports. echo may be nil. now is called with
// what is under way.
func Enqueue(ctx context.Context, load Load, server, echo *Target, now func(string)) (*Report, error) {
	var enqueued, echoed Measured
	for left := load.Duration; left > 0 && ctx.Err() == nil; left -= slice {
		length := min(slice, left)
		if echo != nil {
			now("echo")
			echoed.add(load.Run(ctx, length, echo.Enqueue))
		}
		now("enqueue")
		enqueued.add(load.Run(ctx, length, server.Enqueue))
	}
	report := load.report()
	report.setEnqueue(&enqueued)
	if echo != nil {
		report.setEcho(&echoed)
		report.Ratio = report.EnqueuePerS / max(report.EchoPerS, 1)
		report.P99Ratio = report.EnqueueP99MS / max(report.EchoP99MS, 0.001)
	}
	now("count")
	var err error
	report.Stored, err = server.Stored(ctx, load.Payload)
	return report, err
}

// Echo drives an echo server alone.
func Echo(ctx context.Context, load Load, echo *Target) *Report {
	measured := load.Run(ctx, load.Duration, echo.Enqueue)
	report := load.report()
	report.setEcho(measured)
	report.DurationS = measured.Elapsed.Seconds()
	return report
}

func (l Load) report() *Report {
	return &Report{Connections: l.Connections, InFlight: l.InFlight, Payload: l.Payload}
}

func (r *Report) setEnqueue(m *Measured) {
	r.DurationS = m.Elapsed.Seconds()
	r.EnqueuePerS = m.PerSecond()
	r.EnqueueP50MS, r.EnqueueP99MS = ms(m.Latencies.Quantile(0.5)), ms(m.Latencies.Quantile(0.99))
	r.Acknowledged = m.Answered
	r.Failed = m.Failed
	r.blame(m.FirstError)
}

// blame keeps the first error of the run.
func (r *Report) blame(err error) {
	if err != nil && r.Cause == nil {
		r.Cause, r.FirstError = err, err.Error()
	}
}

func (r *Report) setEcho(m *Measured) {
	r.EchoPerS = m.PerSecond()
	r.EchoP50MS, r.EchoP99MS = ms(m.Latencies.Quantile(0.5)), ms(m.Latencies.Quantile(0.99))
	r.blame(m.FirstError)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Print writes the report as a table for a person.
func (r *Report) Print(w io.Writer) error {
	fmt.Fprintf(w, "%d connections, %d in flight, payload %d bytes, %.1f s\n", r.Connections, r.InFlight, r.Payload, r.DurationS)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tcalls/s\tp50 ms\tp99 ms\t")
	if r.EchoPerS > 0 {
		fmt.Fprintf(table, "echo\t%.0f\t%.2f\t%.2f\t\n", r.EchoPerS, r.EchoP50MS, r.EchoP99MS)
	}
	if r.EnqueuePerS > 0 {
		fmt.Fprintf(table, "enqueue\t%.0f\t%.2f\t%.2f\t\n", r.EnqueuePerS, r.EnqueueP50MS, r.EnqueueP99MS)
	}
	if r.Ratio > 0 {
		fmt.Fprintf(table, "ratio\t%.2f\t\t%.2f\t\n", r.Ratio, r.P99Ratio)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if r.EnqueuePerS > 0 {
		fmt.Fprintf(w, "acknowledged %d, stored %d, failed %d\n", r.Acknowledged, r.Stored, r.Failed)
	}
	if r.FirstError != "" {
		fmt.Fprintf(w, "first error: %s\n", r.FirstError)
	}
	return nil
}
