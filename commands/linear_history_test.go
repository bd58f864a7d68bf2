package commands_test

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// maxOperations is how many calls a history has at most: porcupine's work grows
// exponentially with what is concurrent.
const maxOperations = 120

// history is what clients called and got, in real time. Its clock counts calls
// and answers.
type history struct {
	*world
	disk *powerFS
	rng  *rand.Rand
	send sender // the way to the engine, in broken variants with a fault in it

	mu       sync.Mutex
	clock    int64
	dead     bool // power failed: answers do not reach anybody any more
	calls    []*recorded
	requests int
	answered atomic.Int64
	cutShort bool // power failed while clients were at work
}

// sender carries a request to the engine.
type sender func(ctx context.Context, req proto.Message) (proto.Message, error)

type recorded struct {
	porcupine.Operation
	op   *queueOp
	none bool // it certainly had no effect: no part of the history
}

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{disk: newPowerFS(vfs.NewCrashableMem()), rng: rand.New(rand.NewPCG(seed, 2))}
	h.world = newWorldOn(t, h.disk, false)
	h.world.settle = func() {}
	h.people("alice", h.arguments([]string{"bob", "carol"}))
	h.send = func(ctx context.Context, req proto.Message) (proto.Message, error) {
		method, _ := rpc.MethodOf(req)
		return h.dispatchIn(ctx, method, req)
	}
	return h
}

// begin notes a call; nil when power is off.
func (h *history) begin(client int, op *queueOp) *recorded {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return nil
	}
	h.clock++
	r := &recorded{op: op, Operation: porcupine.Operation{
		ClientId: client, Input: op, Output: (*queueResult)(nil), Call: h.clock, Return: math.MaxInt64,
	}}
	h.calls = append(h.calls, r)
	return r
}

// end notes an answer, unless power failed before: then nobody got it.
func (h *history) end(r *recorded, result *queueResult, none bool) (got bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return false
	}
	h.answered.Add(1)
	h.clock++
	if r.none = none; result != nil {
		r.Return, r.Output = h.clock, result
	}
	return true
}

// die is the moment at which power fails: of all that is answered later, nobody
// knows.
func (h *history) die(take func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dead = true
	take()
}

func (h *history) nextRequest() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests++
	return h.requests
}

// operations are the calls that may have had an effect.
func (h *history) operations() []porcupine.Operation {
	var all []porcupine.Operation
	seen := map[int]uint64{}
	for _, r := range h.calls {
		if result := r.Output.(*queueResult); result != nil {
			for _, it := range result.items {
				seen[it.request] = it.seq
			}
		}
	}
	for _, r := range h.calls {
		if r.none {
			continue
		}
		if r.op.kind == "Enqueue" {
			r.op.seq = seen[r.op.request]
		}
		for _, other := range h.calls {
			if removal := other.op.kind == "Ack" || other.op.kind == "Follow"; removal && !other.none && other != r &&
				other.Call < r.Return && r.Call < other.Return {
				r.op.meanwhile = append(r.op.meanwhile, other.op)
			}
		}
		all = append(all, r.Operation)
	}
	return all
}

// judge asks porcupine, for so long at most, whether some order explains all answers.
func (h *history) judge(patience time.Duration) (porcupine.CheckResult, []porcupine.Operation) {
	all := h.operations()
	if len(all) > maxOperations {
		h.t.Errorf("%d operations, more than %d", len(all), maxOperations)
	}
	return porcupine.CheckOperationsTimeout(queueSpec, all, patience), all
}

// printHistory prints a history, in the order of calls.
func printHistory(all []porcupine.Operation) string {
	var out strings.Builder
	slices.SortFunc(all, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	for _, op := range all {
		ends := "?"
		if op.Return != math.MaxInt64 {
			ends = fmt.Sprint(op.Return)
		}
		fmt.Fprintf(&out, "%d [%d, %s] %s\n", op.ClientId, op.Call, ends, describeOperation(op.Input, op.Output))
	}
	return out.String()
}

// client is one goroutine that calls. Senders put messages into bob's queue,
// readers read and remove them.
type client struct {
	h      *history
	number int
	rng    *rand.Rand
	token  []byte
	to     []byte // bob's identity
	reader bool
	left   int
	seen   uint64        // highest position seen
	last   proto.Message // for retries
	lastOp *queueOp
}

// run calls until the budget is used or the server is gone.
func (c *client) run() {
	for c.left > 0 && c.call() {
		c.left--
	}
}

// call makes one call; false when the server is gone.
func (c *client) call() bool {
	op, req := c.draw()
	c.last, c.lastOp = req, op
	ctx := context.Background()
	if c.rng.IntN(8) == 0 { // an impatient one
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.rng.IntN(400))*time.Microsecond)
		defer cancel()
	}
	return c.make(op, req, ctx)
}

func (c *client) make(op *queueOp, req proto.Message, ctx context.Context) bool {
	r := c.h.begin(c.number, op)
	if r == nil {
		return false
	}
	response, err := c.h.send(ctx, req)
	result, none, gone := c.h.understand(response, err)
	if !c.h.end(r, result, none) {
		return false
	}
	if result != nil {
		for _, it := range result.items {
			c.seen = max(c.seen, it.seq)
		}
	}
	return !gone
}

// draw chooses what to call: now and then the last call again.
func (c *client) draw() (*queueOp, proto.Message) {
	if c.last != nil && c.rng.IntN(5) == 0 {
		again := *c.lastOp
		again.meanwhile = nil
		return &again, proto.Clone(c.last)
	}
	if !c.reader {
		request := c.h.nextRequest()
		return &queueOp{kind: "Enqueue", request: request}, &pb.EnqueueRequest{
			SessionToken: c.token, RequestId: c.h.id(), Payload: fmt.Append(nil, request),
			Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: c.to},
		}
	}
	limit := 1 + c.rng.IntN(6)
	position := uint64(c.rng.Int64N(int64(c.seen) + 2)) // rarely one that was not seen
	switch c.rng.IntN(10) {
	case 0, 1:
		return &queueOp{kind: "Drain", limit: limit}, &pb.FetchRequest{SessionToken: c.token, MaxItems: uint32(limit)}
	case 2, 3, 4:
		return &queueOp{kind: "Follow", at: position, limit: limit},
			&pb.FetchRequest{SessionToken: c.token, AfterSeq: &position, MaxItems: uint32(limit)}
	case 5, 6:
		drained := c.rng.IntN(2) == 0
		return &queueOp{kind: "Peek", at: position, limit: limit, drained: drained},
			&pb.PeekRequest{SessionToken: c.token, FromSeq: position, MaxItems: uint32(limit), IncludeDrained: drained}
	}
	op := &queueOp{kind: "Ack", request: c.h.nextRequest()}
	if c.rng.IntN(3) == 0 {
		op.at = max(1, position)
	} else {
		op.seqs = []uint64{max(1, position), 1 + uint64(c.rng.Int64N(int64(c.seen)+1))}
	}
	return op, &pb.AckRequest{SessionToken: c.token, RequestId: c.h.id(), Seqs: op.seqs, UpTo: op.at}
}

// id makes a request_id of now.
func (h *history) id() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts["id"]++
	return h.requestID(fmt.Sprint("history ", h.counts["id"]), 0)
}

// understand reads an answer: what it says, whether the call surely had no
// effect, and whether the server is gone.
func (h *history) understand(response proto.Message, err error) (result *queueResult, none, gone bool) {
	if refusal := commands.AsRefusal(err); refusal != nil {
		switch {
		case refusal.Reason == pb.Reason_ACK_BEYOND_TAIL:
			return &queueResult{beyond: true}, false, false
		case refusal.Reason == pb.Reason_STOPPING:
			return nil, true, true
		case refusal.Reason == pb.Reason_DEADLINE:
			return nil, strings.Contains(refusal.Message, "not executed"), false
		}
	}
	if err != nil {
		h.t.Errorf("an answer that no client expects: %v", err)
		return nil, false, true
	}
	switch r := response.(type) {
	case *pb.AckResponse:
		return &queueResult{acked: int(r.GetAcked()), gone: int(r.GetAlreadyGone())}, false, false
	case *pb.FetchResponse:
		return page(r.GetEnvelopes(), r.GetMore()), false, false
	case *pb.PeekResponse:
		return page(r.GetEnvelopes(), r.GetMore()), false, false
	}
	return &queueResult{}, false, false
}

func page(envelopes []*pb.Envelope, more bool) *queueResult {
	result := &queueResult{more: more}
	for _, e := range envelopes {
		var request int
		fmt.Sscan(string(e.GetPayload()), &request)
		result.items = append(result.items, seenItem{e.GetSeq(), request, e.GetDrained()})
	}
	return result
}
