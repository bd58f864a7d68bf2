package keypackage

import (
	"encoding/binary"
	"fmt"
)

// reader takes fields from the front of a message in TLS presentation language.
// The first fault stays; reads after it give zeros.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
	}
	r.rest = nil
}

// take is the next n bytes, shared with the input.
func (r *reader) take(n int, field string) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.rest) {
		r.fail("%s ends early", field)
		return nil
	}
	taken := r.rest[:n:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) u8(field string) uint8 {
	if b := r.take(1, field); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16(field string) uint16 {
	if b := r.take(2, field); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u64(field string) uint64 {
	if b := r.take(8, field); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// vector is the content of a field of type opaque<V>.
func (r *reader) vector(field string) []byte {
	first := r.u8(field)
	size := 1 << (first >> 6)
	if size == 8 {
		r.fail("the length of %s begins with a reserved prefix", field)
		return nil
	}
	length := int(first & 0x3f)
	for _, b := range r.take(size-1, field) {
		length = length<<8 | int(b)
	}
	if size > 1 && length < 1<<(8*(size/2)-2) {
		r.fail("the length of %s is not encoded in as few bytes as possible", field)
	}
	return r.take(length, field)
}

// appendVector writes opaque<V>. The content is shorter than 2^30 bytes.
func appendVector(dst, content []byte) []byte {
	switch n := len(content); {
	case n < 1<<6:
		dst = append(dst, byte(n))
	case n < 1<<14:
		dst = binary.BigEndian.AppendUint16(dst, 0x4000|uint16(n))
	default:
		dst = binary.BigEndian.AppendUint32(dst, 0x80000000|uint32(n))
	}
	return append(dst, content...)
}

// numbers is a vector of 16-bit numbers as it stands in the message.
type numbers []byte

func (r *reader) numbers(field string) numbers {
	list := r.vector(field)
	if len(list)%2 != 0 {
		r.fail("%s is no list of 16-bit numbers", field)
	}
	return list
}

func (n numbers) has(value uint16) bool {
	for ; len(n) >= 2; n = n[2:] {
		if binary.BigEndian.Uint16(n) == value {
			return true
		}
	}
	return false
}
