package commands_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// BenchmarkPersonProof makes the proof of one of many people for somebody who
// knows the newest head and the person, as a look-up does, and marshals it.
func BenchmarkPersonProof(b *testing.B) {
	w := newWorld(b, false)
	const people = 256
	for i := range people {
		w.join(fmt.Sprint("person", i))
	}
	c := w.client()
	c.mustAsk(kt.Query{})
	request := &pb.ProofRequest{KnownNote: c.state.Newest.Note}
	size, i := 0, 0
	b.ReportAllocs()
	for b.Loop() {
		i = (i + 97) % people
		view, err := w.engine.ProofView(b.Context(), commands.Caller{}, request)
		w.check(err)
		w.check(view.Proofs.Person(fmt.Sprint("person", i)))
		made, err := view.Proofs.Proof()
		w.check(err)
		raw, err := proto.Marshal(made)
		w.check(err)
		size = len(raw)
		view.Release()
	}
	b.ReportMetric(float64(size), "bytes/proof")
}
