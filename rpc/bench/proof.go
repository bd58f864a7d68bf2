package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// ProofReport is what bench proof prints; the names are those of its JSON.
type ProofReport struct {
	Connections int `json:"connections"`
	InFlight    int `json:"inflight"`
	// People are looked up in turn.
	People int `json:"people"`
	// AnswerBytes is the length of an answer with its proof.
	AnswerBytes int     `json:"answer_bytes"`
	DurationS   float64 `json:"duration_s"`

	ProofPerS  float64 `json:"proof_per_s"`
	ProofP50MS float64 `json:"proof_p50_ms"`
	ProofP99MS float64 `json:"proof_p99_ms"`
	EchoPerS   float64 `json:"echo_per_s"`
	EchoP50MS  float64 `json:"echo_p50_ms"`
	EchoP99MS  float64 `json:"echo_p99_ms"`
	// Ratio is proof_per_s ÷ echo_per_s.
	Ratio float64 `json:"ratio"`

	Failed     uint64 `json:"failed"`
	FirstError string `json:"first_error,omitempty"`
	// Cause is FirstError for errors.As; nil without a failure.
	Cause error `json:"-"`
}

// ProofQueries are look-ups of people with the proof that somebody gets who knows
// the log's newest note.
type ProofQueries struct {
	target   *Target
	requests []*pb.ResolveUserRequest
	// Answer to one of them, encoded: what an echo server is to answer.
	Answer []byte
}

// PrepareProofs registers people and looks each of them up once, as the SDK does:
// with its proof verified.
func PrepareProofs(ctx context.Context, t *Target, people int, step func(ready int)) (*ProofQueries, error) {
	q := &ProofQueries{target: t}
	asker := t.senders[0]
	stranger, err := client.Dial(ctx, t.cfg)
	if err != nil {
		return nil, err
	}
	defer stranger.Close()
	var names []string
	for i := range people {
		person, err := register(ctx, stranger)
		if err != nil {
			return nil, err
		}
		if _, err := asker.LookupUser(ctx, person.name); err != nil {
			return nil, fmt.Errorf("look %s up: %w", person.name, err)
		}
		names = append(names, person.name)
		step(i + 1)
	}
	state, err := asker.TransparencyState()
	if err != nil {
		return nil, err
	}
	if state.Newest.Note == nil {
		return nil, errors.New("the server signs no checkpoints: there are no proofs")
	}
	for _, name := range names {
		q.requests = append(q.requests, &pb.ResolveUserRequest{
			Username: name, Proof: &pb.ProofRequest{KnownNote: state.Newest.Note},
		})
	}
	answer := new(pb.ResolveUserResponse)
	if err := asker.Call(ctx, q.requests[0], answer); err != nil {
		return nil, err
	}
	q.Answer, err = proto.Marshal(answer)
	return q, err
}

// Proofs has people looked up with proofs, which the driver decodes and does not
// verify: that is the client's work. It is interleaved with an echo server, which
// must answer with q.Answer.
func Proofs(ctx context.Context, load Load, q *ProofQueries, echo *Target, now func(string)) (*ProofReport, error) {
	ask := func(t *Target) Call {
		return func(ctx context.Context, connection int, random []byte) error {
			request := q.requests[(int(random[0])<<8|int(random[1]))%len(q.requests)]
			answer := new(pb.ResolveUserResponse)
			if err := t.senders[connection].Call(ctx, request, answer); err != nil {
				return err
			}
			if len(answer.GetProof().GetHistories()) == 0 {
				return errors.New("an answer without a proof")
			}
			return nil
		}
	}
	var proved, echoed Measured
	for left := load.Duration; left > 0 && ctx.Err() == nil; left -= slice {
		now("echo")
		echoed.add(load.Run(ctx, min(slice, left), ask(echo)))
		now("proof")
		proved.add(load.Run(ctx, min(slice, left), ask(q.target)))
	}
	r := &ProofReport{
		Connections: load.Connections, InFlight: load.InFlight, People: len(q.requests), AnswerBytes: len(q.Answer),
		DurationS: proved.Elapsed.Seconds(), ProofPerS: proved.PerSecond(), EchoPerS: echoed.PerSecond(),
		ProofP50MS: ms(proved.Latencies.Quantile(0.5)), ProofP99MS: ms(proved.Latencies.Quantile(0.99)),
		EchoP50MS: ms(echoed.Latencies.Quantile(0.5)), EchoP99MS: ms(echoed.Latencies.Quantile(0.99)),
		Failed: proved.Failed + echoed.Failed, Cause: errors.Join(proved.FirstError, echoed.FirstError),
	}
	if r.Cause != nil {
		r.FirstError = r.Cause.Error()
	}
	r.Ratio = r.ProofPerS / max(r.EchoPerS, 1)
	return r, ctx.Err()
}

// Print writes the report as a table for a person.
func (r *ProofReport) Print(w io.Writer) error {
	fmt.Fprintf(w, "%d connections, %d in flight, %d people, answers of %d bytes, %.1f s\n",
		r.Connections, r.InFlight, r.People, r.AnswerBytes, r.DurationS)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tcalls/s\tp50 ms\tp99 ms\t")
	fmt.Fprintf(table, "echo\t%.0f\t%.2f\t%.2f\t\n", r.EchoPerS, r.EchoP50MS, r.EchoP99MS)
	fmt.Fprintf(table, "proof\t%.0f\t%.2f\t%.2f\t\n", r.ProofPerS, r.ProofP50MS, r.ProofP99MS)
	fmt.Fprintf(table, "ratio\t%.2f\t\t\t\n", r.Ratio)
	if err := table.Flush(); err != nil {
		return err
	}
	if r.FirstError != "" {
		fmt.Fprintf(w, "%d calls failed, the first with: %s\n", r.Failed, r.FirstError)
	}
	return nil
}
