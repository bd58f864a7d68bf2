package commands_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// TestEnqueueAllocations bounds what an Enqueue of 1 KiB allocates from the decoded
// request to the durable reply, in a full pipeline: 256 commands make one group,
// since the writer is held until all of them wait. The least of a few rounds
// counts: background work allocates, too.
func TestEnqueueAllocations(t *testing.T) {
	const inGroup = 256
	// most allowed: of checking and hashing, and of everything after.
	mostBefore, mostAfter := 3.0, uint64(5)
	if os.Getenv("QPC_TEST_SCALE") == "race" { // pools forget on purpose under the detector
		mostBefore, mostAfter = 12, 22
	}
	inWorld(t, false, func(t *testing.T, w *world) {
		w.people("alice", w.arguments([]string{"bob"}))
		method, _ := rpc.MethodByName("Enqueue")
		request := func(n int) *pb.EnqueueRequest {
			return &pb.EnqueueRequest{
				SessionToken: w.tokens["alice"], RequestId: w.requestID(fmt.Sprint("message ", n), 0),
				Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: w.public("bob")}, Payload: make([]byte, 1024),
			}
		}
		prepare := func(req *pb.EnqueueRequest) *commands.Command {
			command, err := commands.NewEnqueue(method.Rule, req)
			w.check(err)
			return command
		}
		first := request(0)
		before := testing.AllocsPerRun(100, func() { prepare(first) })

		after := ^uint64(0)
		for round := range 4 {
			var group []*commands.Command
			for n := range inGroup {
				group = append(group, prepare(request(1+round*inGroup+n)))
			}
			release, groups := make(chan struct{}), w.engine.Counters().Groups
			held := &commands.Command{Auth: pb.Auth_NONE, Decide: func(*commands.Tx) (proto.Message, error) {
				<-release
				return nil, nil
			}}
			do := func(command *commands.Command) {
				if _, err := w.engine.Do(t.Context(), command); err != nil {
					t.Error(err)
				}
			}
			go do(held)
			synctest.Wait()
			count := mallocs()
			for _, command := range group {
				go do(command)
			}
			synctest.Wait()
			close(release)
			synctest.Wait()
			after = min(after, (mallocs()-count)/inGroup)
			if n := w.engine.Counters().Groups - groups; n != 1 {
				t.Fatalf("%d groups, want one", n)
			}
		}
		t.Logf("%.0f and %d allocations", before, after)
		if before > mostBefore || after > mostAfter {
			t.Errorf("%.0f and %d allocations, at most %.0f and %d are allowed", before, after, mostBefore, mostAfter)
		}
	})
}

// mallocs is the number of objects that this process has allocated.
func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}
