package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"quicprochat/kt"
)

const (
	segmentVersion = 1
	segmentHead    = 1 + 8 // version, first index
	segmentFoot    = 4 + 4 // record count, CRC
	endLen         = 4
	recordHead     = 1 + 2 // flags, leaf length
	openingLen     = len(kt.Opening{})

	flagErased = 1
)

// MaxLeafLen is the length in bytes of the longest leaf: entry bundles have 16 bits for it.
const MaxLeafLen = math.MaxUint16

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record is one event as the log keeps it.
type Record struct {
	Leaf    []byte     // leaf of the Merkle tree, 1 to MaxLeafLen bytes; kept for ever
	Opening kt.Opening // opening of the leaf's commitment; zero when Erased
	Event   []byte     // event bytes exactly as committed to; nil when Erased
	Erased  bool       // body (opening and event) was erased
}

// PayloadKey names a payload: the owner whose payloads lie together, and an id unique under that owner.
type PayloadKey struct {
	Owner, ID [16]byte
}

// segmentWriter builds a segment's value in place. Its buffers are used again after reset.
type segmentWriter struct {
	buf  []byte // head and records
	ends []uint32
}

func (w *segmentWriter) reset(first uint64) {
	w.buf = append(w.buf[:0], segmentVersion)
	w.buf = binary.BigEndian.AppendUint64(w.buf, first)
	w.ends = w.ends[:0]
}

// add appends a record. It panics when a length does not fit the format: lengths are bounded far lower by whoever
// decides on events.
func (w *segmentWriter) add(r *Record) {
	if len(r.Leaf) == 0 || len(r.Leaf) > MaxLeafLen || uint64(len(w.buf))+uint64(len(r.Event)) > math.MaxUint32-1<<17 {
		panic(fmt.Sprintf("log: record with a leaf of %d and an event of %d bytes does not fit a segment", len(r.Leaf), len(r.Event)))
	}
	var flags byte
	if r.Erased {
		flags = flagErased
	}
	b := append(w.buf, flags, byte(len(r.Leaf)>>8), byte(len(r.Leaf)))
	b = append(b, r.Leaf...)
	if !r.Erased {
		b = append(b, r.Opening[:]...)
		b = append(b, r.Event...)
	}
	w.buf = b
	w.ends = append(w.ends, uint32(len(b)))
}

func (w *segmentWriter) size() int { return len(w.buf) + len(w.ends)*endLen + segmentFoot }

// encode writes the value to dst, which has size bytes.
func (w *segmentWriter) encode(dst []byte) {
	b := append(dst[:0], w.buf...)
	for _, end := range w.ends {
		b = binary.BigEndian.AppendUint32(b, end)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(w.ends)))
	binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// segment is a parsed and checked value. It refers to the value's bytes.
type segment struct {
	first, count uint64
	data, ends   []byte
}

// parseSegment checks the whole value: afterwards record cannot fail.
func parseSegment(first uint64, value []byte) (segment, error) {
	s := segment{first: first}
	if len(value) < segmentHead+segmentFoot {
		return s, errors.New("segment is truncated")
	}
	body, sum := value[:len(value)-4], binary.BigEndian.Uint32(value[len(value)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return s, errors.New("segment has a wrong checksum")
	}
	if body[0] != segmentVersion {
		return s, fmt.Errorf("segment has version %d", body[0])
	}
	if got := binary.BigEndian.Uint64(body[1:]); got != first {
		return s, fmt.Errorf("segment says it starts at index %d", got)
	}
	s.count = uint64(binary.BigEndian.Uint32(body[len(body)-4:]))
	rest := uint64(len(body) - segmentHead - 4)
	if s.count == 0 || s.count*(endLen+recordHead+1) > rest || s.count > math.MaxUint64-first {
		return s, fmt.Errorf("segment of %d bytes says it has %d records", len(value), s.count)
	}
	s.data = body[:uint64(len(body)-4)-s.count*endLen]
	s.ends = body[len(s.data) : len(body)-4]
	return s, s.check()
}

// check walks the offsets once.
func (s *segment) check() error {
	at := segmentHead
	for i := range s.count {
		end := s.end(i)
		if end > len(s.data) || end < at+recordHead {
			return fmt.Errorf("record %d has a wrong offset", s.first+i)
		}
		flags, leafLen := s.data[at], int(binary.BigEndian.Uint16(s.data[at+1:]))
		body := end - at - recordHead - leafLen
		if leafLen == 0 || flags > flagErased || (flags == flagErased && body != 0) || (flags == 0 && body < openingLen) {
			return fmt.Errorf("record %d has wrong lengths", s.first+i)
		}
		at = end
	}
	if at != len(s.data) {
		return errors.New("segment has bytes behind its last record")
	}
	return nil
}

func (s *segment) end(i uint64) int { return int(binary.BigEndian.Uint32(s.ends[i*endLen:])) }

// next is the index of the first record behind the segment.
func (s *segment) next() uint64 { return s.first + s.count }

// record gives record first+i; its slices refer to the segment's bytes.
func (s *segment) record(i uint64) Record {
	at := segmentHead
	if i > 0 {
		at = s.end(i - 1)
	}
	b := s.data[at:s.end(i):s.end(i)]
	leafEnd := recordHead + int(binary.BigEndian.Uint16(b[1:]))
	r := Record{Leaf: b[recordHead:leafEnd:leafEnd], Erased: b[0] == flagErased}
	if !r.Erased {
		r.Opening = kt.Opening(b[leafEnd:])
		r.Event = b[leafEnd+openingLen:]
	}
	return r
}

// eachLeaf calls fn with the leaf of every record, in order.
func (w *segmentWriter) eachLeaf(fn func(leaf []byte)) {
	at := segmentHead
	for _, end := range w.ends {
		leaf := w.buf[at+recordHead:]
		fn(leaf[:binary.BigEndian.Uint16(w.buf[at+1:])])
		at = int(end)
	}
}
