package projections

import (
	"testing"

	pb "quicprochat/proto/qpcv1"
)

func deviceRegistered(name, device, replaces string) *pb.DeviceRegistered {
	id, key := accountID(name), deviceKey(device)
	ev := &pb.DeviceRegistered{AccountId: id[:], DeviceKey: key[:]}
	if replaces != "" {
		former := deviceKey(replaces)
		ev.Replaces = former[:]
	}
	return ev
}

// TestDevicesShareAnAccount has messages to two devices, and what they leave.
func TestDevicesShareAnAccount(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	w.do(deviceRegistered("bob", "phone", ""))
	w.do(enqueued(1, "alice", "bob", 100, w.now+dayMS, target(deviceKey("bob"), 1), target(deviceKey("phone"), 1)))
	devices, _, err := DevicesOf(w.reader(), nil, accountID("bob"))
	if err != nil || len(devices) != 2 || devices[0] != deviceKey("bob") || devices[1] != deviceKey("phone") {
		t.Fatalf("devices %x: %v", devices, err)
	}
	w.do(confirmed(deviceKey("bob"), 1))
	if got := w.seqs("phone", 1); len(got) != 1 {
		t.Errorf("the other device has %v", got)
	}
	w.do(confirmed(deviceKey("phone"), 1))
}

// TestQueueGoesOver moves a queue in every state: items one by one gone, drained
// ones, a gap, shares of two senders, expiry. What the new device has is what the
// former one had, to the row.
func TestQueueGoesOver(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob", "carol")
	for n := 1; n <= 5; n++ {
		w.send(n, []string{"alice", "carol"}[n%2], "bob")
	}
	w.do(drained(deviceKey("bob"), 2))
	w.do(acked(deviceKey("bob"), 0, 4))
	w.now += 2 * hourMS
	w.send(6, "carol", "bob")
	w.do(drained(deviceKey("bob"), 3))
	w.do(enqueued(7, "alice", "bob", 10, w.now+dayMS, target(deviceKey("bob"), 7)))
	before, items := w.queue("bob"), w.seqs("bob", 1)
	shares := [2]Share{}
	for i, sender := range []string{"alice", "carol"} {
		shares[i] = w.share("bob", sender)
	}
	w.do(deviceRegistered("bob", "phone", "bob"))
	if got := w.queue("phone"); got != before {
		t.Errorf("the queue is %+v, was %+v", got, before)
	}
	if got := w.seqs("phone", 1); len(got) != len(items) || got[0] != items[0] {
		t.Errorf("the items are %v, were %v", got, items)
	}
	for i, sender := range []string{"alice", "carol"} {
		if got := w.share("phone", sender); got != shares[i] {
			t.Errorf("the share of %s is %+v, was %+v", sender, got, shares[i])
		}
		if got := w.share("bob", sender); got != (Share{}) {
			t.Errorf("%s still has %+v in the former queue", sender, got)
		}
	}
	if got := w.queue("bob"); got != (QueueState{Owner: accountID("bob"), NextSeq: 1, Head: 1}) {
		t.Errorf("the former queue is %+v", got)
	}
	// Time goes on for the new device as it would have for the former one.
	due, err := DrainedDue(w.reader(), w.now+26*hourMS, 24*hourMS, 100)
	if err != nil || len(due) != 1 || due[0].Device != deviceKey("phone") {
		t.Errorf("drained and due: %v, %v", due, err)
	}
	expiry, err := ExpiredMessages(w.reader(), w.now+3*dayMS, 100)
	if err != nil || len(expiry) != 1 || expiry[0].Device != deviceKey("phone") || len(expiry[0].Seqs) != len(items) {
		t.Errorf("expired: %v, %v", expiry, err)
	}
	w.do(revoked(deviceKey("bob"), w.now, pb.Authority_SESSION_LOGIN))
	if _, found, _ := Queue(w.reader(), deviceKey("bob")); found {
		t.Error("the revoked device has a queue")
	}
	w.do(confirmed(deviceKey("phone"), 7))
	if got := w.queue("phone"); got.Count != 0 || got.Bytes != 0 {
		t.Errorf("confirmed, the queue is %+v", got)
	}
}

func (w *world) share(device, sender string) Share {
	w.t.Helper()
	share, err := SenderShare(w.reader(), deviceKey(device), accountID(sender))
	if err != nil {
		w.t.Fatalf("share: %v", err)
	}
	return share
}

func TestDeviceRegisteredIsStrict(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	w.refuse(deviceRegistered("carol", "phone", ""), "does not exist")
	w.refuse(deviceRegistered("bob", "alice", ""), "in use")
	w.refuse(deviceRegistered("bob", "phone", "alice"), "none of the account's")
	w.refuse(deviceRegistered("bob", "phone", "phone"), "none of the account's")
	w.refuse(deviceRegistered("bob", "phone", "tablet"), "no queue")
	id, key := accountID("bob"), deviceKey("phone")
	w.refuse(&pb.DeviceRegistered{AccountId: id[:], DeviceKey: key[:31]}, "device key")
	w.refuse(&pb.DeviceRegistered{AccountId: id[:15], DeviceKey: key[:]}, "account id")
	other := deviceKey("tablet")
	w.refuse(&pb.DeviceRegistered{AccountId: id[:], DeviceKey: key[:], RevocationLabel: &pb.RevocationLabel{Key: other[:]}}, "another key")
}

// TestControlItemsComeFromTheServer holds the two marks of a control item together.
func TestControlItemsComeFromTheServer(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	ev := enqueued(1, "alice", "bob", 10, w.now+dayMS, target(deviceKey("bob"), 1))
	ev.Control = true
	w.refuse(ev, "control item")
	ev = enqueued(1, "alice", "bob", 10, w.now+dayMS, target(deviceKey("bob"), 1))
	ev.SenderId = make([]byte, 16)
	w.refuse(ev, "control item")
	ev.Control = true
	w.do(ev)
	if it, found, err := QueueItemAt(w.reader(), deviceKey("bob"), 1); err != nil || !found || !it.Control {
		t.Errorf("the item is %+v, %v, %v", it, found, err)
	}
}
