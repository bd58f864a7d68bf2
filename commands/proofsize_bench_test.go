package commands_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// maxLabelSize is the budget for one label in a look-up, bytes on the wire.
const maxLabelSize = 4096

// sizeFrom is a number from the environment, for a benchmark of any size.
func sizeFrom(b *testing.B, variable string, otherwise int) int {
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		b.Fatalf("%s: %q is no number", variable, text)
	}
	return n
}

// BenchmarkProofAtSize looks people up in a log of QPC_BENCH_LEAVES leaves, of
// which QPC_BENCH_LABELS are about keys: every person has two, all registered by
// the engine, and the rest are messages. Each answer is made, encoded
// and verified as a client does; the bytes of an answer are divided by the labels
// in it, the head's part included. More than 4 KiB a label fails.
func BenchmarkProofAtSize(b *testing.B) {
	labels, leaves := sizeFrom(b, "QPC_BENCH_LABELS", 1000), sizeFrom(b, "QPC_BENCH_LEAVES", 10_000)
	w := newWorld(b, false)
	w.settle = func() {}
	w.people("alice", w.arguments([]string{"bob"}))
	people := labels/2 - 3
	w.crowd(b, 0, people/2)
	half := w.skeptic()
	half.mustAsk(kt.Query{})
	w.crowd(b, people/2, people)
	w.chatter(b, leaves-int(w.log.Size())-4)
	w.join("carol")
	w.check(startSession(w, "carol"))
	w.rekey("carol", 1) // with a hybrid key, the largest value there is
	newest := w.skeptic()
	head := newest.mustAsk(kt.Query{}).Head
	if head.Size < uint64(leaves) || head.Head.KTCount < uint64(labels) {
		b.Fatalf("%d leaves, %d labels in the map", head.Size, head.Head.KTCount)
	}

	for _, known := range []struct {
		what  string
		state kt.State
	}{{"first contact", kt.State{}}, {"known at half the labels", half.state}, {"known newest", newest.state}} {
		for _, asked := range []struct {
			what  string
			query func(n int) kt.Query
		}{
			{"person", func(n int) kt.Query { return kt.Query{Username: fmt.Sprint("person", n)} }},
			{"hybrid key", func(int) kt.Query { return kt.Query{IdentityKey: w.public("carol")} }},
			{"nobody", func(n int) kt.Query { return kt.Query{Username: fmt.Sprint("nobody", n)} }},
			{"revocation", func(n int) kt.Query { return kt.Query{RevokedKey: w.public(fmt.Sprint("person", n))} }},
		} {
			b.Run(known.what+"/"+asked.what, func(b *testing.B) {
				c := w.skeptic()
				n, most, bytes, count := 0, 0, 0, 0
				for b.Loop() {
					n = (n + 7919) % people
					c.state = known.state
					c.mustAsk(asked.query(n))
					size, labels := proto.Size(c.received), labelsIn(c.received)
					bytes, count, most = bytes+size, count+labels, max(most, (size+labels-1)/labels)
				}
				b.ReportMetric(float64(bytes)/float64(count), "bytes/label")
				b.ReportMetric(float64(most), "most-bytes/label")
				b.ReportMetric(float64(bytes)/float64(b.N), "bytes/answer")
				if most > maxLabelSize {
					b.Errorf("%d bytes a label, the budget is %d", most, maxLabelSize)
				}
			})
		}
	}
}

// labelsIn counts the labels that a proof is about, present and absent.
func labelsIn(p *pb.KeyProof) (n int) {
	for _, h := range p.GetHistories() {
		n += len(h.GetVersions())
		if len(h.GetAbsentVrfProof()) > 0 {
			n++
		}
	}
	return n
}

// crowd registers persons of these numbers, many at a time.
func (w *world) crowd(b *testing.B, from, to int) {
	method, _ := rpc.MethodByName("OpaqueRegisterFinish")
	var making sync.Mutex // people's keys are kept in a map
	each(b, to-from, 64, func(n uint64) error {
		name := fmt.Sprint("person", from+int(n))
		making.Lock()
		req, c := w.registrationRequest(name, name, name+"/1")
		making.Unlock()
		registration, err := commands.PrepareRegistration(serverName, w.vrf, c, req)
		if err != nil {
			return err
		}
		command, err := commands.NewRegister(method.Rule, req, registration)
		if err == nil {
			_, err = w.engine.Do(b.Context(), command)
		}
		return err
	})
}

// chatter sends messages of 16 bytes from alice to bob.
func (w *world) chatter(b *testing.B, messages int) {
	method, _ := rpc.MethodByName("Enqueue")
	id, bob := w.requestID("first", 0), w.public("bob")
	each(b, messages, 256, func(n uint64) error {
		req := &pb.EnqueueRequest{
			SessionToken: w.tokens["alice"], RequestId: append([]byte(nil), id...),
			Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: bob}, Payload: make([]byte, 16),
		}
		binary.BigEndian.PutUint32(req.RequestId[12:], uint32(n+1))
		command, err := commands.NewEnqueue(method.Rule, req)
		if err == nil {
			_, err = w.engine.Do(b.Context(), command)
		}
		return err
	})
}

// each calls do for the numbers below n, so many at a time.
func each(b *testing.B, n, atATime int, do func(n uint64) error) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range atATime {
		all.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(n) || b.Failed() {
					return
				}
				if err := do(uint64(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if b.Failed() {
		b.FailNow()
	}
}
