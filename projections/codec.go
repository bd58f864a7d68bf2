package projections

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// errRow is in the chain of errors about a row that is not what its view writes.
var errRow = errors.New("malformed row")

// rowReader takes a row's fields from its front. Reading beyond the end sets bad
// and gives zeros, so that a row is checked once, by end.
type rowReader struct {
	rest []byte
	bad  bool
}

func (r *rowReader) take(n int) []byte {
	if n < 0 || len(r.rest) < n {
		r.bad, r.rest = true, nil
		return nil
	}
	field := r.rest[:n:n]
	r.rest = r.rest[n:]
	return field
}

func (r *rowReader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *rowReader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *rowReader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *rowReader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *rowReader) id() (id ID) {
	copy(id[:], r.take(len(id)))
	return id
}

func (r *rowReader) array32() (v [32]byte) {
	copy(v[:], r.take(len(v)))
	return v
}

// bytes reads a field that carries its length; the result is shared.
func (r *rowReader) bytes() []byte { return r.take(int(r.u32())) }

// end checks that the row was neither short nor long.
func (r *rowReader) end(view string) error {
	if r.bad {
		return fmt.Errorf("%w of %s: too short", errRow, view)
	}
	if len(r.rest) != 0 {
		return fmt.Errorf("%w of %s: %d bytes too many", errRow, view, len(r.rest))
	}
	return nil
}

// appendBytes writes a field with its length.
func appendBytes[T ~[]byte | ~string](dst []byte, field T) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(field)))
	return append(dst, field...)
}

// fieldID reads an event's field of 16 bytes.
func fieldID(field []byte, name string) (ID, error) {
	if len(field) != 16 {
		return ID{}, invalid("%s of %d bytes, want 16", name, len(field))
	}
	return ID(field), nil
}

// field32 reads an event's field of 32 bytes.
func field32(field []byte, name string) ([32]byte, error) {
	if len(field) != 32 {
		return [32]byte{}, invalid("%s of %d bytes, want 32", name, len(field))
	}
	return [32]byte(field), nil
}
