package projections

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// Entry is one record of the log with its event decoded.
type Entry struct {
	// Index is the record's position in the log.
	Index uint64
	// Leaf is the record's public leaf.
	Leaf []byte
	// Opening opens the leaf's commitment; zero for CONFIG and HEAD leaves, which
	// are open.
	Opening kt.Opening
	// Raw is the event exactly as stored and as committed to.
	Raw []byte
	// Event is Raw, decoded. Apply keeps no part of it.
	Event *pb.Event
}

// maxEventDepth bounds nesting while decoding; events nest three deep.
const maxEventDepth = 16

// DecodeEvent decodes an event as it stands in the log. An event without a body
// that this program knows, or with an unknown field anywhere, is refused with
// ErrInvalidEvent: it was written by a newer program.
func DecodeEvent(raw []byte) (*pb.Event, error) {
	ev := new(pb.Event)
	if err := (proto.UnmarshalOptions{RecursionLimit: maxEventDepth}).Unmarshal(raw, ev); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidEvent, err)
	}
	if err := checkEvent(ev); err != nil {
		return nil, err
	}
	return ev, nil
}

// checkKnown refuses unknown fields in a message and in those within it.
func checkKnown(m protoreflect.Message) error {
	if n := len(m.GetUnknown()); n != 0 {
		return invalid("%d bytes of unknown fields in %s", n, m.Descriptor().Name())
	}
	for _, field := range nestedFields[m.Descriptor().FullName()] {
		if field.IsList() {
			list := m.Get(field).List()
			for i := range list.Len() {
				if err := checkKnown(list.Get(i).Message()); err != nil {
					return err
				}
			}
		} else if m.Has(field) {
			if err := checkKnown(m.Get(field).Message()); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkEvent is checkKnown for the outermost message: of its many fields only
// the receipt and the body can be set.
func checkEvent(ev *pb.Event) error {
	m := ev.ProtoReflect()
	if n := len(m.GetUnknown()); n != 0 {
		return invalid("%d bytes of unknown fields in Event", n)
	}
	if ev.Receipt != nil {
		if err := checkKnown(ev.Receipt.ProtoReflect()); err != nil {
			return err
		}
	}
	body := m.WhichOneof(eventBody)
	if body == nil {
		return invalid("no body of a known type")
	}
	return checkKnown(m.Get(body).Message())
}

// nestedFields are the fields of each message within Event that hold messages.
var nestedFields = func() map[protoreflect.FullName][]protoreflect.FieldDescriptor {
	nested := map[protoreflect.FullName][]protoreflect.FieldDescriptor{}
	var visit func(protoreflect.MessageDescriptor)
	visit = func(m protoreflect.MessageDescriptor) {
		if _, known := nested[m.FullName()]; known {
			return
		}
		nested[m.FullName()] = nil
		for i := range m.Fields().Len() {
			if field := m.Fields().Get(i); field.Message() != nil {
				nested[m.FullName()] = append(nested[m.FullName()], field)
				visit(field.Message())
			}
		}
	}
	visit((*pb.Event)(nil).ProtoReflect().Descriptor())
	return nested
}()

var eventBody = (*pb.Event)(nil).ProtoReflect().Descriptor().Oneofs().ByName("body")

// EventType is the type number of an event: its field number in Event.body,
// which is the context of an OPAQUE leaf's commitment. It is 0 without a body.
func EventType(ev *pb.Event) uint16 {
	field := ev.ProtoReflect().WhichOneof(eventBody)
	if field == nil {
		return 0
	}
	return uint16(field.Number())
}

// AppendLeaf appends the leaf that an event must have: CONFIG for ServerConfigured, HEAD
// for HeadSealed, KT under the label for KeyTransparencyEntry, else OPAQUE. raw is the
// event as it is stored; label is used for KT only.
func AppendLeaf(dst []byte, ev *pb.Event, raw []byte, opening kt.Opening, label kt.Label) []byte {
	switch body := ev.Body.(type) {
	case *pb.Event_ServerConfigured:
		return append(append(dst, byte(kt.ClassConfig)), body.ServerConfigured.GetConfig()...)
	case *pb.Event_HeadSealed:
		return append(append(dst, byte(kt.ClassHead)), body.HeadSealed.GetHead()...)
	case *pb.Event_KeyTransparencyEntry:
		e := body.KeyTransparencyEntry
		ctx := kt.VRFInput(kt.Kind(e.GetKind()), e.GetId(), e.GetVersion())
		return kt.AppendKTLeaf(dst, label, kt.Commit(opening, ctx, raw))
	}
	ctx := kt.OpaqueContext(EventType(ev))
	return kt.AppendOpaqueLeaf(dst, kt.Commit(opening, ctx[:], raw))
}

// Verify checks that the leaf commits to Raw under Opening, which Apply takes
// for granted: replay calls it, a writer that has just made the leaf need not.
// That a KT leaf's label is the one of its VRF proof is checked by Apply.
func (e *Entry) Verify() error {
	leaf, err := kt.ParseLeaf(e.Leaf)
	if err != nil {
		return &ApplyError{e.Index, fmt.Errorf("%w: %w", ErrInvalidEvent, err)}
	}
	if id := e.Event.GetKeyTransparencyEntry().GetId(); len(id) > maxKTID {
		return &ApplyError{e.Index, invalid("KT id of %d bytes", len(id))}
	}
	if !bytes.Equal(e.Leaf, AppendLeaf(nil, e.Event, e.Raw, e.Opening, leaf.Label)) {
		return &ApplyError{e.Index, invalid("the leaf does not commit to the event")}
	}
	return nil
}
