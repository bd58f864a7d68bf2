package commands_test

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// benchGroup is a channel of so many people with one device each, all joined.
func benchGroup(b *testing.B, members int) (w *world, names []string, channel []byte) {
	w = newWorld(b, false)
	w.settle = func() {}
	for i := range members {
		names = append(names, fmt.Sprintf("person%d", i))
	}
	w.people(names[0], w.arguments(names[1:]))
	req := &pb.CreateChannelRequest{SessionToken: w.tokens[names[0]], RequestId: w.requestID("create", 0)}
	for _, name := range names[1:] {
		req.Members = append(req.Members, w.public(name))
	}
	channel = w.must(req).(*pb.CreateChannelResponse).GetChannelId()
	for _, name := range names[1:] {
		w.must(&pb.UpdateGroupMetadataRequest{
			SessionToken: w.tokens[name], RequestId: w.requestID("accept "+name, 0), ChannelId: channel,
			Fields: []pb.ChannelField{pb.ChannelField_ACCEPT},
		})
	}
	return w, names, channel
}

// must sends a request that succeeds.
func (w *world) must(req proto.Message) proto.Message {
	method, _ := rpc.MethodOf(req)
	response, err := w.dispatch(method, req)
	w.check(err)
	return response
}

// inParallel runs one command per round, 64 at a time per core.
func (w *world) inParallel(b *testing.B, command func(n uint64, id []byte) (*commands.Command, error)) {
	var counter atomic.Uint64
	first := w.requestID("first", 0)
	b.SetParallelism(64)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			n := counter.Add(1)
			id := append([]byte(nil), first...)
			binary.BigEndian.PutUint32(id[12:], uint32(n))
			c, err := command(n, id)
			if err == nil {
				_, err = w.engine.Do(b.Context(), c)
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkChannelPost is a post of 1 KiB to so many other members, without the
// network, on a log in memory; one op is one post.
func BenchmarkChannelPost(b *testing.B) {
	for _, others := range []int{1, 10, 100, 999} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			w, names, channel := benchGroup(b, others+1)
			method, _ := rpc.MethodByName("BatchEnqueue")
			payload := make([]byte, 1024)
			size := w.log.Size()
			w.inParallel(b, func(_ uint64, id []byte) (*commands.Command, error) {
				return commands.NewBatchEnqueue(method.Rule, &pb.BatchEnqueueRequest{
					SessionToken: w.tokens[names[0]], RequestId: id, ChannelId: channel, Payload: payload,
				})
			})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(others), "ns/recipient")
			if got := w.log.Size() - size; got < uint64(b.N) {
				b.Errorf("%d posts made %d records", b.N, got)
			}
		})
	}
}

// BenchmarkEnqueuesToGroup is what a post to 100 members would cost as 100 calls of
// Enqueue; one op is one of them.
func BenchmarkEnqueuesToGroup(b *testing.B) {
	w, names, _ := benchGroup(b, 101)
	method, _ := rpc.MethodByName("Enqueue")
	payload := make([]byte, 1024)
	w.inParallel(b, func(n uint64, id []byte) (*commands.Command, error) {
		return commands.NewEnqueue(method.Rule, &pb.EnqueueRequest{
			SessionToken: w.tokens[names[0]], RequestId: id, Payload: payload,
			Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: w.public(names[1+n%100])},
		})
	})
}

// BenchmarkListGroupMembers is the first page of a full channel, with progress of a
// rotation to count.
func BenchmarkListGroupMembers(b *testing.B) {
	w, names, channel := benchGroup(b, 1_000)
	w.must(&pb.RotateKeysRequest{SessionToken: w.tokens[names[0]], RequestId: w.requestID("rotate", 0), ChannelId: channel})
	req := &pb.ListGroupMembersRequest{SessionToken: w.tokens[names[0]], ChannelId: channel}
	for b.Loop() {
		view, err := w.engine.Query(commands.TokenHash(req), pb.Auth_SESSION)
		if err == nil {
			_, err = commands.ListGroupMembers(view, req)
			view.Release()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
