package projections

import "encoding/binary"

// PayloadRef names a stored payload: that of a message, under its owner, which is
// the recipient's account, or the channel of a post.
// A payload is stored once however many queues refer to it.
type PayloadRef struct {
	Owner ID
	ID    ID
}

// sharePayload notes how many queues refer to a payload. Those with one
// reference have no row: most messages go to one device.
func (b *Batch) sharePayload(ref PayloadRef, references uint32) error {
	b.row = binary.BigEndian.AppendUint32(b.row[:0], references)
	return b.put(payloadKey(b.scratch(), ref), b.row)
}

// dropReference takes one reference away; with the last one the payload is
// released.
func (b *Batch) dropReference(it *QueueItem) error {
	ref := PayloadRef{Owner: it.Owner, ID: it.MessageID}
	if it.shared {
		left, found, err := readRow(b, "payloads", payloadKey(b.scratch(), ref), (*rowReader).u32)
		if err != nil || !found {
			return orInvalid(err, "the payload has no references")
		}
		if left > 1 {
			return b.sharePayload(ref, left-1)
		}
		if err := b.remove(payloadKey(b.scratch(), ref)); err != nil {
			return err
		}
	}
	b.released = append(b.released, ref)
	return nil
}
