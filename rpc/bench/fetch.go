package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"text/tabwriter"
	"time"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// Drain says how much is queued and read. Each round fills one queue per
// connection, reads all of them at once to their end, and has the echo server
// answer as many pages of the same size.
type Drain struct {
	Connections int
	Rounds      int
	// Messages per queue and round.
	Messages int
	// Page is how many messages a call asks for.
	Page int
	// Payload in bytes.
	Payload int
}

// FetchReport is what a drain prints; the names are those of its JSON.
type FetchReport struct {
	Connections int `json:"connections"`
	Page        int `json:"page"`
	Payload     int `json:"payload"`
	// DurationS is how long queues were read, in seconds.
	DurationS float64 `json:"duration_s"`

	FetchPerS  float64 `json:"fetch_msgs_per_s"`
	FetchP50MS float64 `json:"fetch_p50_ms"`
	FetchP99MS float64 `json:"fetch_p99_ms"`
	RawPerS    float64 `json:"raw_msgs_per_s"`
	RawP50MS   float64 `json:"raw_p50_ms"`
	RawP99MS   float64 `json:"raw_p99_ms"`
	// Ratio is fetch_msgs_per_s ÷ raw_msgs_per_s.
	Ratio float64 `json:"ratio"`

	// Queued messages and those read: any difference is a fault.
	Queued  uint64 `json:"queued"`
	Fetched uint64 `json:"fetched"`
}

// Fetch fills queues and drains them, interleaved with the echo server, which
// must answer with pages (see PageAnswer). now is called with what is under way.
func Fetch(ctx context.Context, d Drain, server, echo *Target, now func(string)) (*FetchReport, error) {
	var drained, raw Measured
	report := &FetchReport{Connections: d.Connections, Page: d.Page, Payload: d.Payload}
	for range d.Rounds {
		now("fill")
		if err := d.fill(ctx, server); err != nil {
			return nil, err
		}
		report.Queued += uint64(d.Connections * d.Messages)
		now("raw answers")
		raw.add(d.each(ctx, func(ctx context.Context, connection int, note noter) (uint64, error) {
			return echo.rawPages(ctx, connection, d, note)
		}))
		now("fetch")
		drained.add(d.each(ctx, func(ctx context.Context, connection int, note noter) (uint64, error) {
			return server.drain(ctx, connection, d, note)
		}))
		if err := errors.Join(raw.FirstError, drained.FirstError, ctx.Err()); err != nil {
			return nil, err
		}
	}
	report.Fetched = drained.Answered
	report.DurationS = drained.Elapsed.Seconds()
	report.FetchPerS, report.RawPerS = drained.PerSecond(), raw.PerSecond()
	report.FetchP50MS, report.FetchP99MS = ms(drained.Latencies.Quantile(0.5)), ms(drained.Latencies.Quantile(0.99))
	report.RawP50MS, report.RawP99MS = ms(raw.Latencies.Quantile(0.5)), ms(raw.Latencies.Quantile(0.99))
	report.Ratio = report.FetchPerS / max(report.RawPerS, 1)
	return report, nil
}

// noter notes the latency of a call that began at a time.
type noter func(began time.Time)

// each reads on every connection at once and counts messages as answered.
func (d Drain) each(ctx context.Context, read func(context.Context, int, noter) (uint64, error)) *Measured {
	results := make([]Measured, d.Connections)
	var readers sync.WaitGroup
	began := time.Now()
	for connection := range d.Connections {
		readers.Go(func() {
			mine := &results[connection]
			mine.Answered, mine.FirstError = read(ctx, connection, func(began time.Time) { mine.Latencies.Note(time.Since(began)) })
		})
	}
	readers.Wait()
	total := new(Measured)
	for i := range results {
		total.add(&results[i])
	}
	total.Elapsed = time.Since(began)
	return total
}

// One BatchEnqueue of the filling carries so much at most: a queue is not filled
// by one call, and messages of one call are stored in no order.
const (
	fillItems = 16
	fillBytes = 1 << 20
)

// fill queues the messages of a round.
func (d Drain) fill(ctx context.Context, t *Target) error {
	return d.each(ctx, func(ctx context.Context, connection int, _ noter) (queued uint64, err error) {
		for left := d.Messages; left > 0; {
			n := min(left, fillItems, max(1, fillBytes/d.Payload))
			if err := t.queue(ctx, connection, n, d.Payload); err != nil {
				return queued, fmt.Errorf("fill queue %d: %w", connection, err)
			}
			queued += uint64(n)
			left -= n
		}
		return queued, nil
	}).FirstError
}

// queue sends n messages to the recipient of a connection in one call.
func (t *Target) queue(ctx context.Context, connection, n, size int) error {
	req := &pb.BatchEnqueueRequest{}
	for range n {
		req.Items = append(req.Items, &pb.BatchEnqueueRequest_Item{
			Recipient: &pb.BatchEnqueueRequest_Item_RecipientKey{RecipientKey: t.recipients[connection].identity},
			Payload:   newPayload(size).bytes,
		})
	}
	resp, err := t.senders[connection].BatchEnqueue(ctx, req)
	if err != nil {
		return err
	}
	for _, result := range resp.GetResults() {
		if result.GetStatus() != pb.Status_Ok {
			return &client.StatusError{Status: result.GetStatus(), Detail: &pb.ErrorDetail{Reason: result.GetReason()}}
		}
	}
	return nil
}

// drain reads a queue to its end; each call confirms the page before.
func (t *Target) drain(ctx context.Context, connection int, d Drain, note noter) (read uint64, err error) {
	var after uint64
	for {
		began := time.Now()
		page, err := t.recipients[connection].client.Fetch(ctx, &pb.FetchRequest{AfterSeq: &after, MaxItems: uint32(d.Page)})
		if err != nil {
			return read, fmt.Errorf("drain queue %d: %w", connection, err)
		}
		note(began)
		for _, envelope := range page.GetEnvelopes() {
			if len(envelope.GetPayload()) != d.Payload {
				return read, fmt.Errorf("drain queue %d: a message of %d bytes, want %d", connection, len(envelope.GetPayload()), d.Payload)
			}
			after = envelope.GetSeq()
			read++
		}
		if len(page.GetEnvelopes()) == 0 {
			return read, nil
		}
	}
}

// rawPages has the echo server answer as many calls as a drain needs.
func (t *Target) rawPages(ctx context.Context, connection int, d Drain, note noter) (read uint64, err error) {
	after := uint64(1)
	for int(read) < d.Messages {
		began := time.Now()
		page, err := t.senders[connection].Fetch(ctx, &pb.FetchRequest{AfterSeq: &after, MaxItems: uint32(d.Page)})
		if err != nil {
			return read, fmt.Errorf("echo: %w", err)
		}
		note(began)
		read += uint64(len(page.GetEnvelopes()))
	}
	return read, nil
}

// PageAnswer is a FetchResponse of as many bytes as a server's full page.
func PageAnswer(page, payload int) *pb.FetchResponse {
	answer := &pb.FetchResponse{More: true}
	for i := range page {
		answer.Envelopes = append(answer.Envelopes, &pb.Envelope{
			Seq: uint64(1000 + i), MessageId: newPayload(16).bytes, Payload: newPayload(payload).bytes,
			EnqueuedMs: uint64(time.Now().UnixMilli()), ExpiresMs: uint64(time.Now().Add(time.Hour).UnixMilli()),
		})
	}
	return answer
}

// Lost tells whether queued messages were not read.
func (r *FetchReport) Lost() bool { return r.Fetched != r.Queued }

// Print writes the report as a table for a person.
func (r *FetchReport) Print(w io.Writer) error {
	fmt.Fprintf(w, "%d connections, %d messages of %d bytes a page, %.1f s\n", r.Connections, r.Page, r.Payload, r.DurationS)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tmessages/s\tp50 ms\tp99 ms\t")
	fmt.Fprintf(table, "raw\t%.0f\t%.2f\t%.2f\t\n", r.RawPerS, r.RawP50MS, r.RawP99MS)
	fmt.Fprintf(table, "fetch\t%.0f\t%.2f\t%.2f\t\n", r.FetchPerS, r.FetchP50MS, r.FetchP99MS)
	fmt.Fprintf(table, "ratio\t%.2f\t\t\t\n", r.Ratio)
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "queued %d, fetched %d\n", r.Queued, r.Fetched)
	return err
}
