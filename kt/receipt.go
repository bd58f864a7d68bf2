package kt

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// ErrReceipt: what the server showed of a leaf does not hold, so it is no receipt.
var ErrReceipt = errors.New("the receipt does not hold")

// Receipt is one leaf that is included in a tree which the log signed, and which
// a head that holds continues.
type Receipt struct {
	Index uint64
	Leaf  []byte
	// Path leads from the leaf to the root of Checkpoint (RFC 6962).
	Path [][]byte
	// Checkpoint is the signed tree, Note as it was received.
	Checkpoint Checkpoint
	Note       []byte
	// Opening and Raw open the leaf, and Event is Raw, decoded: nil where the server
	// tells the leaf alone, to whoever did not do it.
	Opening []byte
	Raw     []byte
	Event   *pb.Event
}

// VerifyReceipt checks what AuditKeyTransparency (520) showed of a leaf under a
// head that was verified: the leaf is in the tree of its note, which the log's key
// signed, and of that tree and the head's the larger one continues the smaller one
// (RFC 6962 consistency proof; empty when both have one size), so that the leaf is
// in the head's, too. If the leaf was opened, the event is what it commits to.
// Errors wrap ErrReceipt or ErrNote.
func VerifyReceipt(head *VerifiedHead, p *pb.LeafProof, consistency [][]byte) (*Receipt, error) {
	checkpoint, err := OpenCheckpoint(p.GetNote(), head.Config.Origin, head.Config.LogKey)
	if err != nil {
		return nil, err
	}
	r := &Receipt{Index: p.GetIndex(), Leaf: p.GetLeaf(), Path: p.GetPath(), Checkpoint: checkpoint, Note: p.GetNote()}
	if err := includes(checkpoint, r.Index, r.Leaf, r.Path); err != nil {
		return nil, fmt.Errorf("%w: record %d is not in the tree of %d: %w", ErrReceipt, r.Index, checkpoint.Size, err)
	}
	if r.Index >= head.Size {
		return nil, fmt.Errorf("%w: record %d is not in a head of %d", ErrReceipt, r.Index, head.Size)
	}
	older, newer := checkpoint, head.Checkpoint
	if older.Size > newer.Size {
		older, newer = newer, older
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, older.Size, newer.Size, consistency, older.Root[:], newer.Root[:]); err != nil {
		return nil, fmt.Errorf("%w: the log of %d records does not continue the one of %d: %w", ErrReceipt, newer.Size, older.Size, err)
	}
	if len(p.GetEvent()) > 0 {
		r.Opening, r.Raw = p.GetOpening(), p.GetEvent()
		err = r.open()
	}
	return r, err
}

// open checks that the event is what the leaf commits to.
func (r *Receipt) open() error {
	leaf, err := ParseLeaf(r.Leaf)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	ev := new(pb.Event)
	if err := proto.Unmarshal(r.Raw, ev); err != nil || len(r.Opening) != len(Opening{}) {
		return fmt.Errorf("%w: record %d is opened with %d bytes, to no event: %v", ErrReceipt, r.Index, len(r.Opening), err)
	}
	commitment := leaf.Commitment
	ctx := eventContext(ev)
	if commitment == (Hash{}) || Commit(Opening(r.Opening), ctx, r.Raw) != commitment {
		return fmt.Errorf("%w: the event is not what record %d commits to", ErrReceipt, r.Index)
	}
	r.Event = ev
	return nil
}

// eventContext is what ties an event to the class of its leaf.
func eventContext(ev *pb.Event) []byte {
	if e := ev.GetKeyTransparencyEntry(); e != nil {
		return VRFInput(Kind(e.GetKind()), e.GetId(), e.GetVersion())
	}
	m := ev.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("body"))
	if field == nil {
		return nil
	}
	ctx := OpaqueContext(uint16(field.Number()))
	return ctx[:]
}

// IsMessage reports whether the receipt is that of a message: its event was
// opened, and put the message of this id into the queues.
func (r *Receipt) IsMessage(id []byte) bool {
	if post := r.Event.GetChannelPosted(); post != nil {
		return bytes.Equal(post.GetMessageId(), id)
	}
	m := r.Event.GetMessageEnqueued()
	return m != nil && bytes.Equal(m.GetMessageId(), id)
}
