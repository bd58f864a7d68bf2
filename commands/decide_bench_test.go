package commands_test

import (
	"encoding/binary"
	"sync/atomic"
	"testing"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// BenchmarkNewEnqueue is the part of an Enqueue that needs no view: checks, the
// payload's hash, the request's hash.
func BenchmarkNewEnqueue(b *testing.B) {
	method, _ := rpc.MethodByName("Enqueue")
	req := &pb.EnqueueRequest{
		SessionToken: make([]byte, 32), RequestId: make([]byte, 16),
		Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: make([]byte, 32)},
		Payload:   make([]byte, 1024),
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := commands.NewEnqueue(method.Rule, req); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEnqueue is a whole Enqueue of 1 KiB without the network: 256 callers,
// one recipient, a log in memory.
func BenchmarkEnqueue(b *testing.B) {
	w := newWorld(b, false)
	w.settle = func() {}
	w.people("alice", w.arguments([]string{"bob"}))
	method, _ := rpc.MethodByName("Enqueue")
	var counter atomic.Uint64
	id := w.requestID("first", 0)
	bob := w.public("bob")
	payload := make([]byte, 1024)
	b.SetParallelism(128)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			req := &pb.EnqueueRequest{
				SessionToken: w.tokens["alice"], RequestId: append([]byte(nil), id...),
				Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: bob}, Payload: payload,
			}
			binary.BigEndian.PutUint32(req.RequestId[12:], uint32(counter.Add(1)))
			command, err := commands.NewEnqueue(method.Rule, req)
			if err == nil {
				_, err = w.engine.Do(b.Context(), command)
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}
