package projections

import (
	"encoding/binary"

	pb "quicprochat/proto/qpcv1"
)

// stored is what events have in common that put one payload into queues.
type stored interface {
	GetMessageId() []byte
	GetSenderId() []byte
	GetTargets() []*pb.MessageEnqueued_Target
	GetSkipped() [][]byte
	GetPayloadSize() uint32
	GetPayloadSha256() []byte
	GetExpiresMs() uint64
}

// applyMessageEnqueued puts a message into queues of one account's devices, and
// a gap into those that were full.
func applyMessageEnqueued(b *Batch, ev *pb.MessageEnqueued, nowMS uint64) error {
	it, err := itemOf(ev, nowMS)
	if err != nil {
		return err
	}
	if it.Owner, err = fieldID(ev.GetAccountId(), "account id"); err != nil {
		return err
	}
	if it.Control = ev.GetControl(); it.Control != (it.Sender == ID{}) {
		return invalid("a control item comes from the server, and nothing else does")
	}
	if len(ev.GetTargets()) == 0 {
		return invalid("a message to 0 devices")
	}
	if len(ev.GetChannelId()) > 0 {
		if it.Channel, err = fieldID(ev.GetChannelId(), "channel id"); err != nil {
			return err
		}
	}
	return b.distribute(ev, &it, func(account ID) bool { return account == it.Owner })
}

// distribute puts an item into the queues of its targets and a gap into the
// skipped ones. Only devices of accounts that may have it are meant.
func (b *Batch) distribute(ev stored, it *QueueItem, may func(ID) bool) error {
	for _, target := range ev.GetTargets() {
		device, q, err := b.queueOf(target.GetDeviceKey())
		if err != nil {
			return err
		}
		if !may(q.Owner) {
			return invalid("a target is no device of the payload's owner or its readers")
		}
		if target.GetSeq() != q.NextSeq {
			return invalid("queue number %d, the next is %d", target.GetSeq(), q.NextSeq)
		}
		if err := b.addItem(device, &q, it); err != nil {
			return err
		}
	}
	for _, skipped := range ev.GetSkipped() {
		if err := b.skipQueue(skipped, may); err != nil {
			return err
		}
	}
	if !it.shared {
		return nil
	}
	ref := PayloadRef{Owner: it.Owner, ID: it.MessageID}
	return b.sharePayload(ref, uint32(len(ev.GetTargets())))
}

// itemOf reads what all targets have in common, but for the owner.
func itemOf(ev stored, nowMS uint64) (it QueueItem, err error) {
	it = QueueItem{Size: ev.GetPayloadSize(), EnqueuedMS: nowMS, ExpiresMS: ev.GetExpiresMs(), shared: len(ev.GetTargets()) > 1}
	if it.MessageID, err = fieldID(ev.GetMessageId(), "message id"); err != nil {
		return it, err
	}
	if it.Sender, err = fieldID(ev.GetSenderId(), "sender id"); err != nil {
		return it, err
	}
	if _, err = field32(ev.GetPayloadSha256(), "payload hash"); err != nil {
		return it, err
	}
	if it.Size == 0 {
		return it, invalid("a message of 0 bytes")
	}
	if it.ExpiresMS <= nowMS || it.ExpiresMS > maxTimeMS {
		return it, invalid("a message that expires at %d", it.ExpiresMS)
	}
	return it, nil
}

// maxTimeMS keeps minutes since 1970 within 32 bits.
const maxTimeMS = (1<<32 - 2) * minuteMS

// addItem appends an item to a queue. Its cost is that of Enqueue: the queue's
// row and the sender's share stay in memory until Commit, so the item's row is
// what is written, and rarely an expiry mark.
func (b *Batch) addItem(device Key, q *QueueState, it *QueueItem) error {
	it.Seq = q.NextSeq
	q.NextSeq++
	if q.Count == 0 {
		q.Head = it.Seq
	}
	q.Count++
	q.Bytes += uint64(it.Size)
	if err := b.markExpiry(device, q, it.ExpiresMS); err != nil {
		return err
	}
	if err := b.putQueue(device, q); err != nil {
		return err
	}
	share, err := SenderShare(b, device, it.Sender)
	if err != nil {
		return err
	}
	share.Count++
	share.Bytes += uint64(it.Size)
	if err := b.putShare(device, it.Sender, share); err != nil {
		return err
	}
	return b.putItem(device, it)
}

// skipQueue notes that a full queue lost a message. The loss takes a queue
// number: whoever confirms that number has been told of the loss, and a page
// read before it can't confirm it.
func (b *Batch) skipQueue(deviceKey []byte, may func(ID) bool) error {
	device, q, err := b.queueOf(deviceKey)
	if err != nil {
		return err
	}
	if !may(q.Owner) {
		return invalid("a skipped device is none of those that the message is for")
	}
	q.GapCount++
	q.GapUpTo = q.NextSeq
	q.NextSeq++
	if q.Count == 0 {
		q.Head = q.NextSeq
	}
	return b.putQueue(device, &q)
}

// Share is what one sender has in one device's queue.
type Share struct {
	Count uint64
	Bytes uint64
}

// SenderShare tells what a sender has in a device's queue; zero when nothing.
func SenderShare(r Reader, device Key, sender ID) (Share, error) {
	share, _, err := readRow(r, "sender shares", shareKey(r.scratch(), device, sender), func(in *rowReader) Share {
		return Share{Count: in.u64(), Bytes: in.u64()}
	})
	return share, err
}

func (b *Batch) putShare(device Key, sender ID, share Share) error {
	if share.Count == 0 {
		return b.remove(shareKey(b.scratch(), device, sender))
	}
	b.row = binary.BigEndian.AppendUint64(b.row[:0], share.Count)
	b.row = binary.BigEndian.AppendUint64(b.row, share.Bytes)
	return b.put(shareKey(b.scratch(), device, sender), b.row)
}
