package commands_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/sim"
)

// packageHistory is a history of calls on the KeyPackages of bob's device.
type packageHistory struct {
	*history
	calls   []*packageCall
	numbers map[string]int // by what is uploaded
}

type packageCall struct {
	porcupine.Operation
	op   *packageOp
	none bool
}

// TestKeyPackagesAreTakenOnce has two uploaders and four people who fetch use the
// KeyPackages of one device at once, with retries and with deadlines too short to
// be met; two thirds of the histories are interrupted by a restart or a loss of
// power. Some order of the calls in which each package goes to one request, the
// oldest first, must explain all that was answered.
func TestKeyPackagesAreTakenOnce(t *testing.T) {
	var operations, unknown, taken int
	n := max(1, histories(t)/4)
	for seed := uint64(1); seed <= uint64(n); seed++ {
		ok := t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			h := playPackages(t, seed, disturbance(seed%uint64(kindsOfDisturbance)), nil)
			result, all := h.judge(time.Minute)
			if result != porcupine.Ok {
				t.Errorf("seed %d: %s\n%s", seed, result, printPackages(all))
			}
			operations += len(all)
			for _, op := range all {
				if r := op.Output.(*packageResult); r == nil {
					unknown++
				} else if r.number > 0 {
					taken++
				}
			}
		})
		if !ok {
			return
		}
	}
	t.Logf("%d histories, %d calls, %d of unknown outcome, %d packages taken", n, operations, unknown, taken)
	if n >= 25 && (unknown == 0 || taken < 5*n) {
		t.Errorf("the histories are too tame: %d calls of unknown outcome, %d packages taken", unknown, taken)
	}
}

// brokenPackages are servers with one fault each.
var brokenPackages = map[string]func(h *packageHistory, next sender) sender{
	"packages that are read before they are taken": readBeforeTaken,
	"retries that are not recognised":              forgetfulFetches,
	"empty answers although packages wait":         hidden,
}

// TestBrokenKeyPackagesAreNotLinearizable is the negative control.
func TestBrokenKeyPackagesAreNotLinearizable(t *testing.T) {
	caught := func(t *testing.T, d disturbance, fault func(*packageHistory, sender) sender) {
		found(t, func(t *testing.T, seed uint64) judged { return playPackages(t, seed, d, fault) })
	}
	for name, fault := range brokenPackages {
		t.Run(name, func(t *testing.T) { caught(t, undisturbed, fault) })
	}
	t.Run("syncs that are only claimed", func(t *testing.T) {
		caught(t, powerLost, func(h *packageHistory, next sender) sender {
			h.disk.lying.Store(true)
			return next
		})
	})
}

// readBeforeTaken is a pop that is not atomic: the package that is handed out is
// the oldest of a state before the one in which it is taken.
func readBeforeTaken(h *packageHistory, next sender) sender {
	return func(ctx context.Context, req proto.Message) (proto.Message, error) {
		if _, fetch := req.(*pb.FetchKeyPackageRequest); !fetch {
			return next(ctx, req)
		}
		before := h.oldest()
		runtime.Gosched()
		response, err := next(ctx, req)
		if answer, ok := response.(*pb.FetchKeyPackageResponse); ok && before != nil && len(answer.GetPackages()) > 0 {
			answer.Packages[0].KeyPackage = before
		}
		return response, err
	}
}

// oldest is the oldest package that the published view has.
func (h *packageHistory) oldest() []byte {
	view := h.view()
	defer view.Release()
	device := projections.Key(h.public("bob/1"))
	stocks, err := projections.KeyPackageStocks(view.Reader, device)
	h.check(err)
	if len(stocks) == 0 {
		return nil
	}
	oldest, found, err := projections.OldestKeyPackage(view.Reader, device, &stocks[0], h.now())
	h.check(err)
	if !found {
		return nil
	}
	owner, _, err := projections.KeyOwner(view.Reader, device)
	h.check(err)
	data, _, err := view.Payload(owner.AccountID, oldest.ID)
	h.check(err)
	return data
}

// forgetfulFetches has each retry come under a request_id of its own.
func forgetfulFetches(h *packageHistory, next sender) sender {
	return func(ctx context.Context, req proto.Message) (proto.Message, error) {
		if fetch, ok := req.(*pb.FetchKeyPackageRequest); ok {
			other := proto.Clone(fetch).(*pb.FetchKeyPackageRequest)
			other.RequestId = h.id()
			req = other
		}
		return next(ctx, req)
	}
}

// hidden answers every fifth fetch with nothing, and takes nothing.
func hidden(h *packageHistory, next sender) sender {
	fetches := 0
	return func(ctx context.Context, req proto.Message) (proto.Message, error) {
		if _, fetch := req.(*pb.FetchKeyPackageRequest); fetch {
			h.mu.Lock()
			fetches++
			hide := fetches%5 == 0
			h.mu.Unlock()
			if hide {
				return &pb.FetchKeyPackageResponse{}, nil
			}
		}
		return next(ctx, req)
	}
}

// packageClient is one goroutine that calls.
type packageClient struct {
	h      *packageHistory
	number int
	rng    *rand.Rand
	token  []byte
	upload bool
	left   int
	last   proto.Message
	lastOp *packageOp
}

func playPackages(t *testing.T, seed uint64, d disturbance, fault func(*packageHistory, sender) sender) *packageHistory {
	h := &packageHistory{history: newHistory(t, seed), numbers: map[string]int{}}
	if fault != nil {
		h.send = fault(h, h.send)
	}
	var runs []func()
	for i, session := range []string{"bob", "bob", "alice", "alice", "carol", "carol"} {
		c := &packageClient{
			h: h, number: i, rng: rand.New(rand.NewPCG(seed, uint64(30+i))), token: h.tokens[session], upload: i < 2, left: 15,
		}
		runs = append(runs, func() {
			for c.left > 0 && c.call() {
				c.left--
			}
		})
	}
	h.through(d, seed, runs)
	// What is left goes to the last one who asks.
	last := &packageClient{h: h, number: 9, rng: rand.New(rand.NewPCG(seed, 99)), token: h.tokens["carol"], left: 8}
	for last.left > 0 && last.call() {
		last.left--
	}
	return h
}

// call makes one call, now and then the last one again; false when the server is
// gone.
func (c *packageClient) call() bool {
	if c.last == nil || c.rng.IntN(5) > 0 {
		c.draw()
	} else {
		again := *c.lastOp
		c.lastOp, c.last = &again, proto.Clone(c.last)
	}
	ctx := context.Background()
	if c.rng.IntN(8) == 0 { // an impatient one
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.rng.IntN(400))*time.Microsecond)
		defer cancel()
	}
	r := c.h.begin(c.number, c.lastOp)
	if r == nil {
		return false
	}
	response, err := c.h.send(ctx, c.last)
	result, none, gone := c.h.understand(response, err)
	return c.h.end(r, result, none) && !gone
}

func (c *packageClient) draw() {
	request := c.h.nextRequest()
	if !c.upload {
		c.lastOp = &packageOp{kind: "Fetch", request: request}
		c.last = &pb.FetchKeyPackageRequest{SessionToken: c.token, RequestId: c.h.id(), IdentityKey: c.h.public("bob")}
		return
	}
	data := sim.NewKeyPackage(c.h.public("bob/1"), 1, fmt.Sprint(request), time.Now()).Sign(c.h.key("bob/1"))
	c.h.mu.Lock()
	c.h.numbers[string(data)] = request
	c.h.mu.Unlock()
	c.lastOp = &packageOp{kind: "Upload", request: request, number: request}
	c.last = &pb.UploadKeyPackageRequest{SessionToken: c.token, RequestId: c.h.id(), KeyPackages: [][]byte{data}}
}

// begin notes a call; nil when power is off.
func (h *packageHistory) begin(client int, op *packageOp) *packageCall {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return nil
	}
	h.clock++
	r := &packageCall{op: op, Operation: porcupine.Operation{
		ClientId: client, Input: op, Output: (*packageResult)(nil), Call: h.clock, Return: math.MaxInt64,
	}}
	h.calls = append(h.calls, r)
	return r
}

// end notes an answer, unless power failed before: then nobody got it.
func (h *packageHistory) end(r *packageCall, result *packageResult, none bool) (got bool) {
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

// understand reads an answer: what it says, whether the call surely had no
// effect, and whether the server is gone.
func (h *packageHistory) understand(response proto.Message, err error) (result *packageResult, none, gone bool) {
	if refusal := commands.AsRefusal(err); refusal != nil {
		switch refusal.Reason {
		case pb.Reason_STOPPING:
			return nil, true, true
		case pb.Reason_DEADLINE:
			return nil, strings.Contains(refusal.Message, "not executed"), false
		}
	}
	if err != nil {
		h.t.Errorf("an answer that no client expects: %v", err)
		return nil, false, true
	}
	result = &packageResult{}
	if fetch, ok := response.(*pb.FetchKeyPackageResponse); ok && len(fetch.GetPackages()) > 0 {
		h.mu.Lock()
		defer h.mu.Unlock()
		if result.number = h.numbers[string(fetch.GetPackages()[0].GetKeyPackage())]; result.number == 0 {
			h.t.Errorf("a package that nobody uploaded")
		}
	}
	return result, false, false
}

// judge asks porcupine, for so long at most, whether some order explains all answers.
func (h *packageHistory) judge(patience time.Duration) (porcupine.CheckResult, []porcupine.Operation) {
	seen := map[int]int{}
	for _, r := range h.calls {
		if result := r.Output.(*packageResult); result != nil && result.number > 0 {
			seen[r.op.request] = result.number
		}
	}
	var all []porcupine.Operation
	for _, r := range h.calls {
		if !r.none {
			r.op.seen = seen[r.op.request]
			all = append(all, r.Operation)
		}
	}
	if len(all) > maxOperations {
		h.t.Errorf("%d operations, more than %d", len(all), maxOperations)
	}
	return porcupine.CheckOperationsTimeout(packageSpec, all, patience), all
}

func printPackages(all []porcupine.Operation) string {
	var out strings.Builder
	for _, op := range all {
		fmt.Fprintf(&out, "%d [%d, %d] %s\n", op.ClientId, op.Call, op.Return, packageSpec.DescribeOperation(op.Input, op.Output))
	}
	return out.String()
}
