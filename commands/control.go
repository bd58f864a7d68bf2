package commands

import (
	"crypto/sha256"
	"fmt"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// SendControl decides a control item: the server's own word into the queues of
// devices of one account, where it waits like a message (MaxTTL) and is told by
// push 1003. Quotas don't hold it back: what causes control items is limited by
// itself, and a device must not miss one because strangers filled its queue.
// Without devices nothing is decided. The command counts one entry a device.
func SendControl(tx *Tx, account projections.ID, devices []projections.Key, item *pb.ControlItem) error {
	if len(devices) == 0 {
		return nil
	}
	payload, err := marshalValue(item)
	if err != nil {
		return err
	}
	id, digest, view := tx.NewMessageID(), sha256.Sum256(payload), tx.View()
	targets := make([]*pb.MessageEnqueued_Target, len(devices))
	for i, device := range devices {
		queue, found, err := projections.Queue(view, device)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("commands: an active device without a queue")
		}
		targets[i] = &pb.MessageEnqueued_Target{DeviceKey: device[:], Seq: queue.NextSeq}
	}
	tx.PutPayload(account, id, payload)
	return tx.Emit(&pb.Event{Body: &pb.Event_MessageEnqueued{MessageEnqueued: &pb.MessageEnqueued{
		MessageId:     id[:],
		AccountId:     account[:],
		SenderId:      make([]byte, len(projections.ID{})),
		Targets:       targets,
		PayloadSize:   uint32(len(payload)),
		PayloadSha256: digest[:],
		ExpiresMs:     tx.Now() + uint64(MaxTTL.Milliseconds()),
		Control:       true,
	}}})
}
