package rpc

import (
	"errors"
	"io"
)

// minRead is how far a read buffer grows at least: it holds a whole frame of
// the usual size, so that one Read fetches header, body and FIN.
const minRead = 2 << 10

// ReadRequest reads one whole request frame and its FIN from r. buf is the
// caller's (pooled) buffer; the frame, which starts at its beginning, is
// returned in it or in a larger one. The body is frame[RequestHeaderSize:].
//
// admit is called once, as soon as the header is there: it returns the limit of
// the body in bytes, or the error with which ReadRequest then ends. It is the
// place to set the deadline for the rest.
//
// Errors: *FrameError for a broken frame, admit's error, or what r returned. The
// header is valid in all of them once admit was called.
func ReadRequest(r io.Reader, buf []byte, admit func(RequestHeader) (limit uint32, err error)) (h RequestHeader, frame []byte, err error) {
	frame, err = readFrame(r, buf, RequestHeaderSize, func(b []byte) (uint32, uint32, error) {
		h, _ = ParseRequestHeader(b)
		limit, err := admit(h)
		return h.Length, limit, err
	})
	return h, frame, err
}

// ReadResponse reads one whole response frame and its FIN from r, as
// ReadRequest does; the body is frame[ResponseHeaderSize:] and has at most limit
// bytes.
func ReadResponse(r io.Reader, buf []byte, limit uint32) (h ResponseHeader, frame []byte, err error) {
	frame, err = readFrame(r, buf, ResponseHeaderSize, func(b []byte) (uint32, uint32, error) {
		h, _ = ParseResponseHeader(b)
		return h.Length, limit, nil
	})
	return h, frame, err
}

// ReadPush reads one whole push frame and its FIN from r, as ReadRequest does;
// the body is frame[PushHeaderSize:] and has at most limit bytes.
func ReadPush(r io.Reader, buf []byte, limit uint32) (h PushHeader, frame []byte, err error) {
	frame, err = readFrame(r, buf, PushHeaderSize, func(b []byte) (uint32, uint32, error) {
		h, _ = ParsePushHeader(b)
		return h.Length, limit, nil
	})
	return h, frame, err
}

// readFrame reads until FIN. The buffer at most doubles with what arrived, and
// always leaves room for one byte more than the frame: a byte too many shows up
// in the same Read as the frame's end.
func readFrame(r io.Reader, buf []byte, headerSize int, onHeader func([]byte) (length, limit uint32, err error)) ([]byte, error) {
	buf = buf[:0]
	total := -1 // size of the whole frame, once known
	var length uint32
	for {
		buf = grow(buf, total)
		n, err := r.Read(buf[len(buf):readEnd(buf, total)])
		buf = buf[:len(buf)+n]
		if total < 0 && len(buf) >= headerSize {
			var limit uint32
			var herr error
			if length, limit, herr = onHeader(buf); herr != nil {
				return buf, herr
			}
			if length > limit {
				return buf, tooLarge(length, limit)
			}
			total = headerSize + int(length)
		}
		if total >= 0 && len(buf) > total {
			return buf, trailing(length)
		}
		switch {
		case errors.Is(err, io.EOF):
			if total < 0 {
				return buf, truncated(headerSize, len(buf))
			}
			if len(buf) < total {
				return buf, truncated(int64(length), len(buf)-headerSize)
			}
			return buf, nil
		case err != nil:
			return buf, err
		}
	}
}

// grow returns buf with room for at least one more byte.
func grow(buf []byte, total int) []byte {
	if len(buf) < cap(buf) {
		return buf
	}
	size := max(2*cap(buf), minRead)
	if total >= 0 {
		size = min(size, total+1)
	}
	size = max(size, len(buf)+1)
	return append(make([]byte, 0, size), buf...)
}

// readEnd is how far the next Read may go.
func readEnd(buf []byte, total int) int {
	if total < 0 {
		return cap(buf)
	}
	return min(cap(buf), total+1)
}
