package rpc

import (
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Limits of a message before it is decoded.
const (
	// MaxDepth is how deep messages may nest, the outermost counted as one.
	MaxDepth = 16
	// MaxElements is how many list elements and sub-messages one message may
	// hold in all. Without it 1 MiB of empty sub-messages, two bytes each, grows
	// to 37 MB. Every method's own limits (1,024 numbers in Ack, 1,000 items in
	// BatchEnqueue) are below.
	MaxElements = 4096
)

var (
	// ErrMalformed: the bytes are not a message of the expected type.
	ErrMalformed = errors.New("malformed message")
	// ErrTooDeep: messages nest deeper than MaxDepth.
	ErrTooDeep = fmt.Errorf("messages nest deeper than %d", MaxDepth)
	// ErrTooManyElements: the message holds more than MaxElements list elements
	// and sub-messages.
	ErrTooManyElements = fmt.Errorf("more than %d elements", MaxElements)
)

// strict drops unknown fields: a newer client may send them, but they neither
// cost memory nor get into what is stored or hashed.
var strict = proto.UnmarshalOptions{RecursionLimit: MaxDepth, DiscardUnknown: true}

// UnmarshalRequest decodes the body of a call of m. The message does not refer
// to body afterwards. Errors are ErrMalformed, ErrTooDeep or ErrTooManyElements.
func (m *Method) UnmarshalRequest(body []byte) (proto.Message, error) {
	req := m.NewRequest()
	if err := unmarshal(body, req, m.shape); err != nil {
		return nil, err
	}
	return req, nil
}

// Unmarshal decodes b into m, which is reset first, under the limits above.
// Unknown fields are allowed, for newer peers, and dropped. Errors are
// ErrMalformed, ErrTooDeep or ErrTooManyElements.
func Unmarshal(b []byte, m proto.Message) error {
	return unmarshal(b, m, shapeOf(m.ProtoReflect().Descriptor()))
}

func unmarshal(b []byte, m proto.Message, s *shape) error {
	if !s.flat {
		budget := MaxElements
		if err := s.scan(b, &budget, MaxDepth); err != nil {
			return err
		}
	}
	if err := strict.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// shape is what the scan must know of a message type.
type shape struct {
	// flat: no lists and no sub-messages; the bytes bound the memory.
	flat   bool
	fields map[protowire.Number]fieldShape
}

type fieldShape struct {
	sub    *shape            // of a sub-message
	list   bool              // each occurrence is an element
	packed protoreflect.Kind // of a list that may be packed, else 0
}

// shapes caches by full name; protoreflect descriptors of linked types live as
// long as the program.
var shapes sync.Map

func shapeOf(md protoreflect.MessageDescriptor) *shape {
	if s, ok := shapes.Load(md); ok {
		return s.(*shape)
	}
	building := make(map[protoreflect.FullName]*shape)
	s, _ := shapes.LoadOrStore(md, buildShape(md, building))
	return s.(*shape)
}

// buildShape allows for recursive types: building holds those under way.
func buildShape(md protoreflect.MessageDescriptor, building map[protoreflect.FullName]*shape) *shape {
	if s, ok := building[md.FullName()]; ok {
		return s
	}
	s := &shape{flat: true, fields: make(map[protowire.Number]fieldShape)}
	building[md.FullName()] = s
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		f := fieldShape{list: fd.Cardinality() == protoreflect.Repeated}
		if fd.Message() != nil {
			f.sub = buildShape(fd.Message(), building)
		} else if f.list && isPackable(fd.Kind()) {
			f.packed = fd.Kind()
		}
		if f.list || f.sub != nil {
			s.flat = false
			s.fields[fd.Number()] = f
		}
	}
	return s
}

func isPackable(k protoreflect.Kind) bool {
	switch k {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind, protoreflect.GroupKind:
		return false
	}
	return true
}

// scan walks the wire form and takes one from the budget for each list element
// and each occurrence of a sub-message.
func (s *shape) scan(b []byte, budget *int, depth int) error {
	if depth == 0 {
		return ErrTooDeep
	}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n))
		}
		b = b[n:]
		size := protowire.ConsumeFieldValue(num, typ, b)
		if size < 0 {
			return fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(size))
		}
		if f, ok := s.fields[num]; ok {
			if err := f.scan(typ, b[:size], budget, depth); err != nil {
				return err
			}
		}
		b = b[size:]
	}
	return nil
}

// scan looks into one occurrence of a field.
func (f fieldShape) scan(typ protowire.Type, value []byte, budget *int, depth int) error {
	if typ != protowire.BytesType {
		return spend(budget, 1)
	}
	content, _ := protowire.ConsumeBytes(value)
	switch {
	case f.sub != nil:
		if err := spend(budget, 1); err != nil {
			return err
		}
		return f.sub.scan(content, budget, depth-1)
	case f.packed != 0:
		return spend(budget, packedCount(f.packed, content))
	}
	return spend(budget, 1)
}

func spend(budget *int, n int) error {
	if *budget -= n; *budget < 0 {
		return ErrTooManyElements
	}
	return nil
}

// packedCount is the number of elements in a packed list.
func packedCount(kind protoreflect.Kind, b []byte) int {
	switch kind {
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return len(b) / 4
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return len(b) / 8
	}
	count := 0
	for _, c := range b {
		if c < 0x80 { // the last byte of a varint
			count++
		}
	}
	return count
}
