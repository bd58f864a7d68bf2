package commands_test

import (
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"
)

// queueOp is one call on one device's queue, as porcupine gets it.
type queueOp struct {
	kind string // Enqueue, Drain, Follow, Peek, Ack
	// request names an Enqueue or Ack: a retry has the same. It is also what an
	// Enqueue sends.
	request int
	// seq is where an Enqueue was seen to have put its message, by any read of the
	// history; 0 = nobody saw it. It takes nothing away from what is allowed, and
	// spares porcupine to guess.
	seq     uint64
	at      uint64 // Follow: after_seq; Peek: from_seq; Ack: up_to
	seqs    []uint64
	limit   int
	drained bool // Peek: include_drained
	// meanwhile are removals under way at the same time: a payload that is
	// released between the decision of a read and its answer is left out of it.
	meanwhile []*queueOp
}

// removes tells whether the call asks for a position to go.
func (op *queueOp) removes(seq uint64) bool {
	return op.kind == "Ack" && (seq <= op.at || slices.Contains(op.seqs, seq)) || op.kind == "Follow" && seq <= op.at
}

func (op *queueOp) mayLeaveOut(seq uint64) bool {
	return slices.ContainsFunc(op.meanwhile, func(other *queueOp) bool { return other.removes(seq) })
}

// queueResult is what a call got; nil when nobody knows.
type queueResult struct {
	beyond      bool // refused: a position that was never assigned
	items       []seenItem
	more        bool
	acked, gone int
}

type seenItem struct {
	seq     uint64
	request int // whose payload it is
	drained bool
}

// linearQueue is the state of the queue: a value, never changed.
type linearQueue struct {
	items        []linearItem
	next, cursor uint64
	done         []doneRequest // in order of request
}

type linearItem struct {
	seq     uint64
	request int
}

type doneRequest struct{ request, acked, gone int }

// queueSpec is the queue as a sequence of calls: each takes effect at one moment
// between call and answer. A call of unknown outcome may take effect at any
// later time; at the very end of all means never.
var queueSpec = porcupine.Model{
	Init: func() any { return &linearQueue{next: 1} },
	Step: func(state, input, output any) (bool, any) {
		result, _ := output.(*queueResult)
		return state.(*linearQueue).step(input.(*queueOp), result)
	},
	Equal: func(a, b any) bool { return a.(*linearQueue).equal(b.(*linearQueue)) },
	Hash: func(state any) uint64 {
		q := state.(*linearQueue)
		hash := q.next*31 + q.cursor
		for _, it := range q.items {
			hash = hash*1099511628211 + it.seq*512 + uint64(it.request)
		}
		return hash*31 + uint64(len(q.done))
	},
	DescribeOperation: describeOperation,
}

func describeOperation(input, output any) string {
	op, result := input.(*queueOp), output.(*queueResult)
	text := fmt.Sprintf("%s request %d at %d seqs %v limit %d drained %v", op.kind, op.request, op.at, op.seqs, op.limit, op.drained)
	if result == nil {
		return text + " -> unknown"
	}
	return fmt.Sprintf("%s -> %+v", text, *result)
}

func (q *linearQueue) equal(o *linearQueue) bool {
	return q.next == o.next && q.cursor == o.cursor && slices.Equal(q.items, o.items) && slices.Equal(q.done, o.done)
}

func (q *linearQueue) tail() uint64 { return q.next - 1 }

// step is one call; false when it can't get this result in this state.
func (q *linearQueue) step(op *queueOp, got *queueResult) (bool, any) {
	switch op.kind {
	case "Enqueue":
		return q.enqueue(op)
	case "Ack":
		return q.ack(op, got)
	case "Drain":
		return q.read(op, got, q.cursor+1, false, func(next *linearQueue, last uint64) { next.cursor = max(next.cursor, last) })
	case "Peek":
		from := op.at
		if !op.drained {
			from = max(from, q.cursor+1)
		}
		return q.read(op, got, from, true, func(*linearQueue, uint64) {})
	}
	if op.at > q.tail() {
		return got == nil || got.beyond, q
	}
	return q.read(op, got, op.at+1, true, func(next *linearQueue, _ uint64) {
		if len(q.items) > 0 && q.items[0].seq <= op.at {
			next.cursor = max(next.cursor, op.at)
			next.items = without(q.items, func(seq uint64) bool { return seq <= op.at })
		}
	})
}

// without copies the items that stay.
func without(items []linearItem, gone func(seq uint64) bool) []linearItem {
	return slices.DeleteFunc(slices.Clone(items), func(it linearItem) bool { return gone(it.seq) })
}

func (q *linearQueue) find(request int) (doneRequest, int, bool) {
	i, found := slices.BinarySearchFunc(q.done, request, func(d doneRequest, request int) int { return d.request - request })
	if found {
		return q.done[i], i, true
	}
	return doneRequest{}, i, false
}

func (q *linearQueue) enqueue(op *queueOp) (bool, any) {
	_, at, before := q.find(op.request)
	switch {
	case before:
		return true, q
	case op.seq != 0 && op.seq != q.next:
		return false, nil
	}
	next := *q
	next.items = append(q.items[:len(q.items):len(q.items)], linearItem{q.next, op.request})
	next.next++
	next.done = slices.Insert(slices.Clone(q.done), at, doneRequest{request: op.request})
	return true, &next
}

func (q *linearQueue) ack(op *queueOp, got *queueResult) (bool, any) {
	kept, at, before := q.find(op.request)
	if before {
		return got == nil || !got.beyond && got.acked == kept.acked && got.gone == kept.gone, q
	}
	for _, seq := range append(op.seqs[:len(op.seqs):len(op.seqs)], op.at) {
		if seq > q.tail() {
			return got == nil || got.beyond, q
		}
	}
	next, done := *q, doneRequest{request: op.request}
	next.items = without(q.items, op.removes)
	done.acked = len(q.items) - len(next.items)
	for i, seq := range op.seqs {
		there := slices.ContainsFunc(q.items, func(it linearItem) bool { return it.seq == seq })
		if !there || slices.Contains(op.seqs[:i], seq) {
			done.gone++
		}
	}
	if got != nil && (got.beyond || got.acked != done.acked || got.gone != done.gone) {
		return false, nil
	}
	if done.acked == 0 {
		return true, q // nothing was decided, so nothing is remembered
	}
	next.cursor = max(next.cursor, op.at)
	next.done = slices.Insert(slices.Clone(q.done), at, done)
	return true, &next
}

// read judges a page: what lies there from a position on, up to the limit.
func (q *linearQueue) read(op *queueOp, got *queueResult, from uint64, drained bool, change func(next *linearQueue, last uint64)) (bool, any) {
	next, last, used, n := *q, uint64(0), 0, 0
	more := false
	for _, it := range q.items {
		if it.seq < from || !drained && it.seq <= q.cursor {
			continue
		}
		if n == op.limit {
			more = true
			break
		}
		n, last = n+1, it.seq
		if got == nil {
			continue
		}
		want := seenItem{it.seq, it.request, it.seq <= q.cursor}
		if used < len(got.items) && got.items[used] == want {
			used++
		} else if !op.mayLeaveOut(it.seq) {
			return false, nil
		}
	}
	if got != nil && (got.beyond || used != len(got.items) || got.more != more) {
		return false, nil
	}
	change(&next, last)
	return true, &next
}
