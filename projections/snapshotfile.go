package projections

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The snapshot file, integers big-endian:
//
//	header   "QPCVIEWS" ‖ format u32 ‖ size u64 ‖ crc u32
//	block    length u32 (not 0) ‖ data ‖ crc u32        any number of them
//	trailer  0 u32 ‖ rows u64 ‖ digest[32] ‖ crc u32
//	data     (u32 len(key) ‖ key ‖ u32 len(value) ‖ value)*, whole rows
//
// A crc is CRC-32C over what stands before it in the same part. Rows ascend by
// key over the whole file; size is the number of events, digest that of Digest.
// Nothing follows the trailer.
const (
	snapshotMagic  = "QPCVIEWS"
	snapshotFormat = 1
	// snapshotBlockSize is when a block is closed; a longer row has its own.
	snapshotBlockSize = 64 << 10
	// maxSnapshotBlock bounds what a reader takes into memory.
	maxSnapshotBlock = 16 << 20
)

// ErrBadSnapshot is in the chain of every error about the content of a snapshot
// file. The remedy is an older snapshot or the whole log.
var ErrBadSnapshot = errors.New("bad snapshot of the views")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealed appends the checksum of a part.
func sealed(part []byte) []byte {
	return binary.BigEndian.AppendUint32(part, crc32.Checksum(part, castagnoli))
}

// unsealed checks and removes the checksum of a part.
func unsealed(part []byte, name string) ([]byte, error) {
	body := part[:len(part)-4]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(part[len(body):]) {
		return nil, fmt.Errorf("%w: checksum of the %s", ErrBadSnapshot, name)
	}
	return body, nil
}

// writeSnapshot writes all rows of r and returns their digest.
func writeSnapshot(w io.Writer, r Reader, size uint64) (Hash, error) {
	out := bufio.NewWriterSize(w, snapshotBlockSize)
	header := binary.BigEndian.AppendUint32([]byte(snapshotMagic), snapshotFormat)
	out.Write(sealed(binary.BigEndian.AppendUint64(header, size)))
	d := newDigester()
	block := make([]byte, 4, 2*snapshotBlockSize)
	flush := func() error {
		if len(block) == 4 {
			return nil
		}
		binary.BigEndian.PutUint32(block, uint32(len(block)-4))
		_, err := out.Write(sealed(block))
		block = block[:4]
		return err
	}
	err := scanRows(r, nil, nil, func(key, value []byte) (bool, error) {
		d.add(key, value)
		block = appendBytes(appendBytes(block, key), value)
		if len(block) < snapshotBlockSize {
			return true, nil
		}
		return true, flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return Hash{}, err
	}
	digest := d.sum()
	trailer := binary.BigEndian.AppendUint64(make([]byte, 4), d.rows)
	out.Write(sealed(append(trailer, digest[:]...)))
	return digest, out.Flush()
}

// readSnapshot checks a whole file and calls each with every row; key and value
// are valid during the call only. What each was given is not to be relied on
// unless readSnapshot returns no error.
func readSnapshot(r io.Reader, each func(key, value []byte) error) (size uint64, digest Hash, err error) {
	in := &snapshotReader{in: bufio.NewReaderSize(r, snapshotBlockSize), sum: newDigester()}
	if size, err = in.header(); err != nil {
		return 0, Hash{}, err
	}
	for {
		block, err := in.block()
		if err != nil {
			return 0, Hash{}, err
		}
		if block == nil {
			break
		}
		if err := in.rows(block, each); err != nil {
			return 0, Hash{}, err
		}
	}
	digest, err = in.trailer()
	return size, digest, err
}

// snapshotReader reads the parts of a snapshot file in order.
type snapshotReader struct {
	in   *bufio.Reader
	sum  *digester
	buf  []byte
	last []byte
}

// part reads n bytes after those that are in buf already.
func (s *snapshotReader) part(n int, name string) error {
	have := len(s.buf)
	if cap(s.buf) < have+n {
		s.buf = append(make([]byte, 0, have+n), s.buf...)
	}
	s.buf = s.buf[:have+n]
	if _, err := io.ReadFull(s.in, s.buf[have:]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends within the %s", ErrBadSnapshot, name)
	} else if err != nil {
		return fmt.Errorf("snapshot of the views: read: %w", err)
	}
	return nil
}

func (s *snapshotReader) header() (size uint64, err error) {
	s.buf = s.buf[:0]
	if err := s.part(len(snapshotMagic)+4+8+4, "header"); err != nil {
		return 0, err
	}
	body, err := unsealed(s.buf, "header")
	if err != nil {
		return 0, err
	}
	if string(body[:len(snapshotMagic)]) != snapshotMagic {
		return 0, fmt.Errorf("%w: not a snapshot", ErrBadSnapshot)
	}
	if format := binary.BigEndian.Uint32(body[len(snapshotMagic):]); format != snapshotFormat {
		return 0, fmt.Errorf("%w: format %d, this program reads %d", ErrBadSnapshot, format, snapshotFormat)
	}
	return binary.BigEndian.Uint64(body[len(snapshotMagic)+4:]), nil
}

// block reads a block's data; nil where the trailer begins.
func (s *snapshotReader) block() ([]byte, error) {
	s.buf = s.buf[:0]
	if err := s.part(4, "block length"); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(s.buf)
	if n == 0 {
		return nil, nil
	}
	if n > maxSnapshotBlock {
		return nil, fmt.Errorf("%w: block of %d bytes", ErrBadSnapshot, n)
	}
	if err := s.part(int(n)+4, "block"); err != nil {
		return nil, err
	}
	body, err := unsealed(s.buf, "block")
	if err != nil {
		return nil, err
	}
	return body[4:], nil
}

func (s *snapshotReader) rows(block []byte, each func(key, value []byte) error) error {
	in := rowReader{rest: block}
	for len(in.rest) > 0 {
		key, value := in.bytes(), in.bytes()
		if in.bad || len(key) == 0 || string(key) <= string(s.last) {
			return fmt.Errorf("%w: malformed block", ErrBadSnapshot)
		}
		s.last = append(s.last[:0], key...)
		s.sum.add(key, value)
		if err := each(key, value); err != nil {
			return err
		}
	}
	return nil
}

// trailer checks the end; the trailer's first four bytes are in buf.
func (s *snapshotReader) trailer() (digest Hash, err error) {
	if err := s.part(8+len(digest)+4, "trailer"); err != nil {
		return digest, err
	}
	body, err := unsealed(s.buf, "trailer")
	if err != nil {
		return digest, err
	}
	digest = Hash(body[4+8:])
	if rows := binary.BigEndian.Uint64(body[4:]); rows != s.sum.rows || digest != s.sum.sum() {
		return digest, fmt.Errorf("%w: rows and digest do not agree", ErrBadSnapshot)
	}
	if _, err := s.in.ReadByte(); !errors.Is(err, io.EOF) {
		return digest, fmt.Errorf("%w: bytes after the end", ErrBadSnapshot)
	}
	return digest, nil
}
