package server_test

import (
	"io"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// BenchmarkEnqueue drives a node in memory over one connection, closed loop, 64
// calls at a time. Client and server share the process, so the figures are of
// both; the recipient is not connected.
func BenchmarkEnqueue(b *testing.B) {
	w := boot(b, nil)
	alice, c := w.join("alice")
	bob, _ := w.join("bob")
	payload := make([]byte, 1024)
	must[*pb.EnqueueResponse](c, alice.enqueue(bob, payload))
	var failed atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			body, err := proto.Marshal(alice.enqueue(bob, payload))
			if err != nil {
				b.Error(err)
				return
			}
			s, err := c.OpenStreamSync(b.Context())
			if err != nil {
				b.Error(err)
				return
			}
			s.Write(rpc.AppendRequest(nil, 200, 1, body))
			s.Close()
			if answer, err := io.ReadAll(s); err != nil || answer[0] != byte(pb.Status_Ok) {
				failed.Add(1)
			}
		}
	})
	if failed.Load() > 0 {
		b.Errorf("%d calls failed", failed.Load())
	}
}

// BenchmarkHealth is the same without the engine.
func BenchmarkHealth(b *testing.B) {
	c := boot(b, nil).dial()
	frame := rpc.AppendRequest(nil, 802, 1, nil)
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if r, err := c.raw(frame); err != nil || r.status != pb.Status_Ok {
				b.Error(err)
				return
			}
		}
	})
}
