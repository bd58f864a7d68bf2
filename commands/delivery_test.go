package commands

import (
	"errors"
	"slices"
	"testing"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// fanOut is a recipient with made-up queues: accounts of several devices can't
// be registered yet, but messages must already be placed for them.
func fanOut(quotas bool, queues ...*room) (*delivery, recipientName) {
	name := recipientName{key: [KeySize]byte{9}}
	return &delivery{
		tx:         &Tx{w: &writer{quotas: quotas}, caller: Caller{Account: projections.ID{7}}},
		recipients: map[recipientName]*recipient{name: {account: projections.ID{8}, queues: queues}},
	}, name
}

// roomWith is a queue that holds count items of size bytes in all, share of them
// by the sender.
func roomWith(device byte, count, size uint64, share projections.Share) *room {
	return &room{
		device: projections.Key{device},
		state:  projections.QueueState{NextSeq: count + 1, Head: 1, Count: count, Bytes: size},
		share:  share,
	}
}

func message(to recipientName, size int) *outgoing {
	return &outgoing{to: to, payload: make([]byte, size), ttlMS: 1000}
}

func TestPlaceSkipsFullQueues(t *testing.T) {
	full := roomWith(1, MaxQueueItems, MaxQueueItems, projections.Share{})
	mine := roomWith(2, 5_000, 5_000, projections.Share{Count: 10, Bytes: MaxSenderBytes - 100})
	free := roomWith(3, 0, 0, projections.Share{})
	d, name := fanOut(true, full, mine, free)

	// The long message finds room in one queue, the short one in two. Each loss
	// takes a position in the queue that lost it.
	for i, step := range []struct {
		size    int
		targets map[byte]uint64
		skipped []byte
	}{
		{101, map[byte]uint64{3: 1}, []byte{1, 2}},
		{101, map[byte]uint64{3: 2}, []byte{1, 2}},
		{100, map[byte]uint64{2: 5_003, 3: 3}, []byte{1}},
		{1, map[byte]uint64{3: 4}, []byte{1, 2}},
	} {
		p, err := d.place(message(name, step.size))
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		got := map[byte]uint64{}
		for _, target := range p.targets {
			got[target.GetDeviceKey()[0]] = target.GetSeq()
		}
		var skipped []byte
		for _, device := range p.skipped {
			skipped = append(skipped, device[0])
		}
		if len(got) != len(step.targets) || !slices.Equal(skipped, step.skipped) {
			t.Errorf("message %d: targets %v, skipped %v; want %v, %v", i, got, skipped, step.targets, step.skipped)
		}
		for device, seq := range step.targets {
			if got[device] != seq {
				t.Errorf("message %d, device %d: position %d, want %d", i, device, got[device], seq)
			}
		}
	}
	if full.state.NextSeq != MaxQueueItems+1+4 {
		t.Errorf("the full queue's next position is %d: every loss must take one", full.state.NextSeq)
	}
}

// TestPlaceRefusesOnlyWhenAllAreFull: a refused message takes no positions, and
// the reason tells a full queue from a sender's share.
func TestPlaceRefusesOnlyWhenAllAreFull(t *testing.T) {
	fullItems := func() *room { return roomWith(1, MaxQueueItems, 1, projections.Share{}) }
	fullBytes := func() *room { return roomWith(2, 64, MaxQueueBytes, projections.Share{}) }
	shareItems := func() *room { return roomWith(3, 2_000, 2_000, projections.Share{Count: MaxSenderItems}) }
	shareBytes := func() *room {
		return roomWith(4, 7, MaxSenderBytes, projections.Share{Count: 7, Bytes: MaxSenderBytes})
	}
	for name, test := range map[string]struct {
		queues []*room
		want   pb.Reason
	}{
		"items":        {[]*room{fullItems()}, pb.Reason_QUEUE_FULL},
		"bytes":        {[]*room{fullBytes()}, pb.Reason_QUEUE_FULL},
		"both":         {[]*room{fullItems(), fullBytes()}, pb.Reason_QUEUE_FULL},
		"sender items": {[]*room{shareItems()}, pb.Reason_SENDER_QUOTA},
		"sender bytes": {[]*room{shareBytes()}, pb.Reason_SENDER_QUOTA},
		"mixed":        {[]*room{fullItems(), shareBytes()}, pb.Reason_SENDER_QUOTA},
	} {
		d, to := fanOut(true, test.queues...)
		var before []uint64
		for _, q := range test.queues {
			before = append(before, q.state.NextSeq)
		}
		_, err := d.place(message(to, 1))
		if !errors.Is(err, &Refusal{Status: pb.Status_RateLimited, Reason: test.want}) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if refusal := AsRefusal(err); refusal == nil || refusal.RetryAfterMS == 0 {
			t.Errorf("%s: the refusal does not say when to try again: %v", name, err)
		}
		for i, q := range test.queues {
			if q.state.NextSeq != before[i] {
				t.Errorf("%s: a refused message took position %d", name, before[i])
			}
		}
	}
}

func TestPlaceWithoutQuotas(t *testing.T) {
	full := roomWith(1, 10*MaxQueueItems, 10*MaxQueueBytes, projections.Share{Count: 10 * MaxSenderItems})
	d, name := fanOut(false, full)
	p, err := d.place(message(name, MaxPayload))
	if err != nil || len(p.targets) != 1 || len(p.skipped) != 0 {
		t.Errorf("with quotas off: %+v, %v", p, err)
	}
}

func TestPlaceWithoutDevices(t *testing.T) {
	d, name := fanOut(true)
	_, err := d.place(message(name, 1))
	if !errors.Is(err, &Refusal{Status: pb.Status_NotFound, Reason: pb.Reason_NO_DEVICE}) {
		t.Errorf("no devices: %v", err)
	}
}

// TestRoomAtItsLimits pins the limits to the byte and the item.
func TestRoomAtItsLimits(t *testing.T) {
	for _, test := range []struct {
		name         string
		count, bytes uint64
		share        projections.Share
		size         uint64
		want         verdict
	}{
		{"last item", MaxQueueItems - 1, 0, projections.Share{}, 1, fits},
		{"one item more", MaxQueueItems, 0, projections.Share{}, 1, queueFull},
		{"last byte", 1, MaxQueueBytes - 5, projections.Share{}, 5, fits},
		{"one byte more", 1, MaxQueueBytes - 5, projections.Share{}, 6, queueFull},
		{"sender's last item", 5, 5, projections.Share{Count: MaxSenderItems - 1}, 1, fits},
		{"sender's one item more", 5, 5, projections.Share{Count: MaxSenderItems}, 1, senderQuota},
		{"sender's last byte", 5, 5, projections.Share{Bytes: MaxSenderBytes - 5}, 5, fits},
		{"sender's one byte more", 5, 5, projections.Share{Bytes: MaxSenderBytes - 5}, 6, senderQuota},
		{"full for all comes first", MaxQueueItems, 0, projections.Share{Count: MaxSenderItems}, 1, queueFull},
	} {
		if got := roomWith(1, test.count, test.bytes, test.share).verdict(test.size); got != test.want {
			t.Errorf("%s: verdict %d, want %d", test.name, got, test.want)
		}
	}
}
