package commands_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// brokenQueues are servers with one fault each, of the kinds that a queue can
// have. Each is made by a hand between clients and engine.
var brokenQueues = map[string]func(h *history, next sender) sender{
	"reads of an older state":                staleReads,
	"messages that are stored twice":         doubled,
	"acknowledged messages that are lost":    lost,
	"acknowledged before it is decided":      late,
	"confirmed messages that come back":      redelivered,
	"retries that are not recognised":        forgetful,
	"drains that do not move the cursor":     undrained,
	"confirmations that are not carried out": unconfirmed,
	"pages out of order":                     reversed,
}

// TestBrokenQueuesAreNotLinearizable is the negative control: porcupine finds
// each fault within a few histories.
func TestBrokenQueuesAreNotLinearizable(t *testing.T) {
	for name, fault := range brokenQueues {
		t.Run(name, func(t *testing.T) {
			found(t, func(t *testing.T, seed uint64) *history { return play(t, seed, undisturbed, fault) })
		})
	}
	t.Run("syncs that are only claimed", func(t *testing.T) {
		found(t, func(t *testing.T, seed uint64) *history {
			return play(t, seed, powerLost, func(h *history, next sender) sender {
				h.disk.lying.Store(true)
				return next
			})
		})
	})
}

const (
	// historiesToFind is within how many histories a fault must be found.
	historiesToFind = 40
	// patience is how long porcupine may look at one of them. Where acknowledged
	// messages are gone, as after claimed syncs, it comes to an end at once or, in two
	// histories of five, only after it tried orders without number. Such a history says
	// nothing, and the next one is played.
	patience = time.Second
)

// judged is a history that porcupine can be asked about.
type judged interface {
	judge(patience time.Duration) (porcupine.CheckResult, []porcupine.Operation)
}

// found plays histories until porcupine has shown that one has no explanation: one
// that it did not get through is not found.
func found[H judged](t *testing.T, play func(t *testing.T, seed uint64) H) {
	t.Helper()
	undecided := 0
	for seed := uint64(1); seed <= historiesToFind; seed++ {
		var result porcupine.CheckResult
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { result, _ = play(t, seed).judge(patience) })
		switch result {
		case porcupine.Illegal:
			t.Logf("found in history %d, %d before it undecided", seed, undecided)
			return
		case porcupine.Unknown:
			undecided++
		}
	}
	t.Errorf("%d histories were explained, and %d not decided", historiesToFind-undecided, undecided)
}

// staleReads answers Peek from a state that was published some calls ago.
func staleReads(h *history, next sender) sender {
	var mu sync.Mutex
	var kept *commands.View
	uses := 0
	h.t.Cleanup(func() { // before the engine stops, which waits for it
		if kept != nil {
			kept.Release()
		}
	})
	return func(ctx context.Context, req proto.Message) (proto.Message, error) {
		method, _ := rpc.MethodOf(req)
		if _, peek := req.(*pb.PeekRequest); !peek {
			return next(ctx, req)
		}
		mu.Lock()
		defer mu.Unlock()
		if uses++; uses%4 == 1 {
			if kept != nil {
				kept.Release()
			}
			view, err := h.engine.Query(commands.TokenHash(req), method.Rule.GetAuth())
			if err != nil {
				return nil, err
			}
			kept = view
		}
		return h.read(ctx, method.Rule, kept, req)
	}
}

// doubled stores each message once more.
func doubled(h *history, next sender) sender {
	return func(ctx context.Context, req proto.Message) (proto.Message, error) {
		response, err := next(ctx, req)
		if enqueue, ok := req.(*pb.EnqueueRequest); ok && err == nil {
			twin := proto.Clone(enqueue).(*pb.EnqueueRequest)
			twin.RequestId = h.id()
			next(context.Background(), twin)
		}
		return response, err
	}
}

// everyFifth tells for every fifth Enqueue that it is to be spoiled.
func everyFifth() func(req proto.Message) bool {
	var mu sync.Mutex
	n := 0
	return func(req proto.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := req.(*pb.EnqueueRequest); ok {
			n++
			return n%5 == 0
		}
		return false
	}
}

func lost(_ *history, next sender) sender {
	spoil := everyFifth()
	return func(ctx context.Context, req proto.Message) (proto.Message, error) {
		if spoil(req) {
			return &pb.EnqueueResponse{}, nil
		}
		return next(ctx, req)
	}
}

// late answers a message at once and decides it after the next one.
func late(_ *history, next sender) sender {
	spoil := everyFifth()
	var mu sync.Mutex
	var held proto.Message
	return func(ctx context.Context, req proto.Message) (proto.Message, error) {
		if spoil(req) {
			mu.Lock()
			defer mu.Unlock()
			held = req
			return &pb.EnqueueResponse{}, nil
		}
		response, err := next(ctx, req)
		mu.Lock()
		defer mu.Unlock()
		if _, ok := req.(*pb.EnqueueRequest); ok && held != nil {
			next(context.Background(), held)
			held = nil
		}
		return response, err
	}
}

// redelivered puts a confirmed message before a page that follows.
func redelivered(_ *history, next sender) sender {
	var mu sync.Mutex
	seen := map[uint64]*pb.Envelope{}
	return func(ctx context.Context, req proto.Message) (proto.Message, error) {
		response, err := next(ctx, req)
		answer, ok := response.(*pb.FetchResponse)
		if !ok {
			return response, err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, e := range answer.GetEnvelopes() {
			seen[e.GetSeq()] = e
		}
		after := req.(*pb.FetchRequest).GetAfterSeq()
		if again := seen[after]; again != nil && after > 0 {
			answer.Envelopes = append([]*pb.Envelope{again}, answer.GetEnvelopes()...)
		}
		return answer, err
	}
}

// forgetful has each retry come under a request_id of its own.
func forgetful(h *history, next sender) sender {
	return func(ctx context.Context, req proto.Message) (proto.Message, error) {
		if enqueue, ok := req.(*pb.EnqueueRequest); ok {
			other := proto.Clone(enqueue).(*pb.EnqueueRequest)
			other.RequestId = h.id()
			req = other
		}
		return next(ctx, req)
	}
}

// undrained answers a draining Fetch by looking only.
func undrained(_ *history, next sender) sender {
	return func(ctx context.Context, req proto.Message) (proto.Message, error) {
		fetch, ok := req.(*pb.FetchRequest)
		if !ok || fetch.AfterSeq != nil {
			return next(ctx, req)
		}
		response, err := next(ctx, &pb.PeekRequest{SessionToken: fetch.GetSessionToken(), MaxItems: fetch.GetMaxItems()})
		if peek, ok := response.(*pb.PeekResponse); ok {
			return &pb.FetchResponse{Envelopes: peek.GetEnvelopes(), More: peek.GetMore()}, nil
		}
		return response, err
	}
}

// unconfirmed answers a Fetch with after_seq by looking only.
func unconfirmed(_ *history, next sender) sender {
	return func(ctx context.Context, req proto.Message) (proto.Message, error) {
		fetch, ok := req.(*pb.FetchRequest)
		if !ok || fetch.AfterSeq == nil {
			return next(ctx, req)
		}
		response, err := next(ctx, &pb.PeekRequest{
			SessionToken: fetch.GetSessionToken(), FromSeq: fetch.GetAfterSeq() + 1, MaxItems: fetch.GetMaxItems(), IncludeDrained: true,
		})
		if peek, ok := response.(*pb.PeekResponse); ok {
			return &pb.FetchResponse{Envelopes: peek.GetEnvelopes(), More: peek.GetMore()}, nil
		}
		return response, err
	}
}

// reversed hands the first two messages of a page out in the wrong order.
func reversed(_ *history, next sender) sender {
	return func(ctx context.Context, req proto.Message) (proto.Message, error) {
		response, err := next(ctx, req)
		if fetch, ok := response.(*pb.FetchResponse); ok && len(fetch.GetEnvelopes()) > 1 {
			fetch.Envelopes[0], fetch.Envelopes[1] = fetch.Envelopes[1], fetch.Envelopes[0]
		}
		return response, err
	}
}
