package projections

import (
	"testing"

	pb "quicprochat/proto/qpcv1"
)

func generationBegun(generation uint32) *pb.GenerationBegun {
	return &pb.GenerationBegun{Generation: generation, Actor: &pb.Actor{Way: pb.Actor_DIRECTORY}}
}

// TestGenerationBegun: sessions and tokens end, and queues leave numbers out;
// what waits in them stays.
func TestGenerationBegun(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	expires := w.now + 2*dayMS
	w.do(sessionStarted("alice", 1, expires))
	w.do(sessionStarted("bob", 1, expires))
	w.do(resetIssued("alice", 1, expires))
	w.do(enqueued(1, "bob", "alice", 5, expires, target(deviceKey("alice"), 1)))

	w.do(channelCreated("c", "alice"))
	w.do(uploadedKP("alice", 1, 1, 1, expires))
	w.do(uploadedKP("alice", 2, 1, 2, expires))
	w.do(uploadedKP("alice", 3, 1, 0, expires))
	w.refuse(generationBegun(1), "generation 1 after 1")
	w.refuse(&pb.GenerationBegun{Generation: 2}, "actor of way 0")
	w.refuse(&pb.GenerationBegun{Generation: 2, Actor: &pb.Actor{Way: pb.Actor_SOCKET}}, "stopped server's directory")

	w.do(generationBegun(3))
	w.hasSession("alice", 1, false)
	w.hasSession("bob", 1, false)
	if n := w.rows(prefixReset) + w.rows(prefixSession) + w.rows(prefixAccountSession) + w.rows(prefixSessionExpiry) + w.rows(prefixSessionIdle); n != 0 {
		t.Errorf("%d rows of sessions and tokens are left", n)
	}
	for name, want := range map[string]QueueState{
		"alice": {NextSeq: 2 + 1<<32, Head: 1, Count: 1}, "bob": {NextSeq: 1 + 1<<32, Head: 1 + 1<<32},
	} {
		q, found, err := Queue(w.reader(), deviceKey(name))
		if err != nil || !found || q.NextSeq != want.NextSeq || q.Head != want.Head || q.Count != want.Count {
			t.Errorf("queue of %s: %+v, found %v (%v), want %+v", name, q, found, err, want)
		}
	}
	w.hasWaiting("alice", 1)
	if _, last := w.waiting("alice", 1); last != packageID(3) || w.fate("alice", 1) != KeyPackageUsed || w.fate("alice", 2) != KeyPackageUsed {
		t.Errorf("last resort %x, fates %v and %v", last, w.fate("alice", 1), w.fate("alice", 2))
	}
	if c := w.channel("c"); c.LastSeq != 1<<32 {
		t.Errorf("the channel's newest post is %d", c.LastSeq)
	}
	w.refuse(enqueued(2, "bob", "alice", 5, expires, target(deviceKey("alice"), 2)), "queue number 2")
	w.do(enqueued(2, "bob", "alice", 5, expires, target(deviceKey("alice"), 2+1<<32)))
	w.do(enqueued(3, "alice", "bob", 5, expires, target(deviceKey("bob"), 1+1<<32)))
	items, _, err := QueueItems(w.reader(), deviceKey("alice"), 1, 10, 1<<20)
	if err != nil || len(items) != 2 || items[0].Seq != 1 || items[1].Seq != 2+1<<32 {
		t.Errorf("items of alice: %+v (%v)", items, err)
	}
	w.do(&pb.MessagesConfirmed{DeviceKey: keyBytes(deviceKey("alice")), UpTo: 1})
}

func keyBytes(key Key) []byte { return key[:] }
