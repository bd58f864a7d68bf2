package commands_test

import (
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/projections"
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

// BenchmarkTakeKeyPackage is a whole FetchKeyPackage that uses a package up,
// without the network, as BenchmarkEnqueue is an Enqueue: 256 callers, one target,
// a log in memory. What it takes was not uploaded but put there.
func BenchmarkTakeKeyPackage(b *testing.B) {
	w := newWorld(b, false)
	w.settle = func() {}
	w.people("alice", w.arguments([]string{"bob"}))
	stockUp(w, b.N)
	method, _ := rpc.MethodByName("FetchKeyPackage")
	var counter, empty atomic.Uint64
	id := w.requestID("first", 0)
	bob := w.public("bob")
	b.SetParallelism(128)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			req := &pb.FetchKeyPackageRequest{
				SessionToken: w.tokens["alice"], RequestId: append([]byte(nil), id...), IdentityKey: bob, CipherSuite: 1,
			}
			binary.BigEndian.PutUint32(req.RequestId[12:], uint32(counter.Add(1)))
			command, err := commands.NewFetchKeyPackage(method.Rule, req, commands.Budget{})
			if err != nil {
				b.Error(err)
				return
			}
			resp, err := w.engine.Do(b.Context(), command)
			if err != nil {
				b.Error(err)
				return
			}
			if len(resp.(*pb.FetchKeyPackageResponse).GetPackages()) != 1 {
				empty.Add(1)
			}
		}
	})
	if n := empty.Load(); n > 0 {
		b.Errorf("%d of %d calls found nothing", n, b.N)
	}
}

// stockUp puts KeyPackages of 300 bytes at bob's device.
func stockUp(w *world, n int) {
	device := w.public("bob/1")
	for number := 1; number <= n; {
		_, err := w.engine.Do(w.t.Context(), &commands.Command{Auth: pb.Auth_NONE, Decide: func(tx *commands.Tx) (proto.Message, error) {
			owner, _, err := projections.KeyOwner(tx.View(), projections.Key(device))
			if err != nil {
				return nil, err
			}
			event := &pb.KeyPackagesUploaded{DeviceKey: device}
			for ; number <= n && len(event.Packages) < 1000; number++ {
				id, data := tx.NewID(), tx.Random(300)
				sum := sha256.Sum256(data)
				tx.PutPayload(owner.AccountID, id, data)
				event.Packages = append(event.Packages, &pb.KeyPackagesUploaded_Package{
					PackageId: id[:], CipherSuite: 1, Number: uint64(number), Size: 300, Sha256: sum[:], ExpiresMs: tx.Now() + 28*24*3600*1000,
				})
			}
			return nil, tx.Emit(&pb.Event{Body: &pb.Event_KeyPackagesUploaded{KeyPackagesUploaded: event}})
		}})
		w.check(err)
	}
}
