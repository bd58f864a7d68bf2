package commands_test

import (
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"
)

// packageOp is one call on the KeyPackages of one device and suite, as porcupine
// gets it.
type packageOp struct {
	kind    string // Upload, Fetch
	request int    // a retry has the same
	number  int    // Upload: which package
	// seen is which package a Fetch was seen to have taken, by any answer to its
	// request; 0 = nobody saw it. It spares porcupine to guess.
	seen int
}

// packageResult is what a call got; nil when nobody knows.
type packageResult struct {
	number int // Fetch: which package; 0 = there was none
}

// linearPackages is the state: a value, never changed.
type linearPackages struct {
	waiting []int         // oldest first
	done    []donePackage // in order of request
}

type donePackage struct{ request, number int }

// packageSpec is a pool of packages as a sequence of calls: each fetch takes the
// oldest, once; a retry gets what its request got. A fetch that finds nothing
// leaves nothing behind.
var packageSpec = porcupine.Model{
	Init: func() any { return &linearPackages{} },
	Step: func(state, input, output any) (bool, any) {
		result, _ := output.(*packageResult)
		return state.(*linearPackages).step(input.(*packageOp), result)
	},
	Equal: func(a, b any) bool {
		p, o := a.(*linearPackages), b.(*linearPackages)
		return slices.Equal(p.waiting, o.waiting) && slices.Equal(p.done, o.done)
	},
	Hash: func(state any) uint64 {
		p := state.(*linearPackages)
		hash := uint64(len(p.done))
		for _, n := range p.waiting {
			hash = hash*1099511628211 + uint64(n)
		}
		return hash
	},
	DescribeOperation: func(input, output any) string {
		op, result := input.(*packageOp), output.(*packageResult)
		text := fmt.Sprintf("%s request %d package %d", op.kind, op.request, op.number)
		if result == nil {
			return text + " -> unknown"
		}
		return fmt.Sprintf("%s -> %+v", text, *result)
	},
}

// step is one call; false when it can't get this result in this state.
func (p *linearPackages) step(op *packageOp, got *packageResult) (bool, any) {
	at, before := slices.BinarySearchFunc(p.done, op.request, func(d donePackage, request int) int { return d.request - request })
	switch {
	case before:
		return got == nil || got.number == p.done[at].number, p
	case op.kind == "Upload":
		next := &linearPackages{waiting: append(p.waiting[:len(p.waiting):len(p.waiting)], op.number)}
		next.done = slices.Insert(slices.Clone(p.done), at, donePackage{request: op.request})
		return true, next
	case len(p.waiting) == 0:
		return got == nil || got.number == 0, p
	}
	oldest := p.waiting[0]
	if got != nil && got.number != oldest || op.seen != 0 && op.seen != oldest {
		return false, nil
	}
	next := &linearPackages{waiting: p.waiting[1:]}
	next.done = slices.Insert(slices.Clone(p.done), at, donePackage{op.request, oldest})
	return true, next
}
