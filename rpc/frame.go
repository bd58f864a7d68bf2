package rpc

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// ALPN is the protocol name that clients offer in the TLS handshake (seed,
// "RPC Endpoint").
const ALPN = "qpc"

// Codes of QUIC CONNECTION_CLOSE, RESET_STREAM and STOP_SENDING frames. They
// are untyped so that they fit both of a QUIC library's code types.
const (
	// CodeShutdown: nothing is wrong, this side is going away or has no
	// further interest in the stream.
	CodeShutdown = 0
	// CodeProtocol: the peer broke the frame format where no reply could be
	// written.
	CodeProtocol = 1
	// CodeLimit: the peer went over a limit (streams, bytes, time).
	CodeLimit = 2
	// CodeSessionEnded: the session that the connection was bound to ended.
	CodeSessionEnded = 3
)

// Sizes of the frame headers in bytes.
const (
	RequestHeaderSize  = 10
	ResponseHeaderSize = 9
	PushHeaderSize     = 6
)

// Limits of frame bodies in bytes.
const (
	// DefaultMaxRequest is the limit of methods whose rule names none.
	DefaultMaxRequest = 64 << 10
	// MaxResponse is the longest response body: a Fetch page holds at most
	// 1 MiB of payload, or one single item.
	MaxResponse = 4 << 20
	// MaxPush is the longest push body: an inline payload has at most 16 KiB.
	MaxPush = 32 << 10
)

// RequestHeader precedes a request's body.
type RequestHeader struct {
	// Method is the id of the method table.
	Method uint16
	// RequestID is chosen by the client and repeated in the response; it means
	// nothing else.
	RequestID uint32
	// Length of the body in bytes.
	Length uint32
}

// ResponseHeader precedes a response's body: the method's response message for
// status Ok, an ErrorDetail for every other status.
type ResponseHeader struct {
	Status    pb.Status
	RequestID uint32
	Length    uint32
}

// PushHeader precedes a push's body.
type PushHeader struct {
	// Type is a pb.PushType; receivers ignore types they don't know.
	Type   uint16
	Length uint32
}

// AppendRequestHeader appends the 10 bytes of h.
func AppendRequestHeader(dst []byte, h RequestHeader) []byte {
	dst = binary.BigEndian.AppendUint16(dst, h.Method)
	dst = binary.BigEndian.AppendUint32(dst, h.RequestID)
	return binary.BigEndian.AppendUint32(dst, h.Length)
}

// AppendResponseHeader appends the 9 bytes of h. A status outside 0 … 255
// can't be told on the wire and becomes Internal.
func AppendResponseHeader(dst []byte, h ResponseHeader) []byte {
	if h.Status < 0 || h.Status > math.MaxUint8 {
		h.Status = pb.Status_Internal
	}
	dst = append(dst, byte(h.Status))
	dst = binary.BigEndian.AppendUint32(dst, h.RequestID)
	return binary.BigEndian.AppendUint32(dst, h.Length)
}

// AppendPushHeader appends the 6 bytes of h.
func AppendPushHeader(dst []byte, h PushHeader) []byte {
	dst = binary.BigEndian.AppendUint16(dst, h.Type)
	return binary.BigEndian.AppendUint32(dst, h.Length)
}

// AppendRequest appends a whole request frame.
func AppendRequest(dst []byte, method uint16, reqID uint32, body []byte) []byte {
	dst = AppendRequestHeader(dst, RequestHeader{method, reqID, uint32(len(body))})
	return append(dst, body...)
}

// AppendResponse appends a whole response frame.
func AppendResponse(dst []byte, status pb.Status, reqID uint32, body []byte) []byte {
	dst = AppendResponseHeader(dst, ResponseHeader{status, reqID, uint32(len(body))})
	return append(dst, body...)
}

// AppendPush appends a whole push frame.
func AppendPush(dst []byte, typ uint16, body []byte) []byte {
	dst = AppendPushHeader(dst, PushHeader{typ, uint32(len(body))})
	return append(dst, body...)
}

// AppendResponseMessage appends a whole response frame with m as its body,
// marshalled in place. On an error dst comes back unchanged.
func AppendResponseMessage(dst []byte, status pb.Status, reqID uint32, m proto.Message) ([]byte, error) {
	frame := AppendResponseHeader(dst, ResponseHeader{Status: status, RequestID: reqID})
	return appendBody(dst, frame, m)
}

// AppendPushMessage appends a whole push frame with m as its body, marshalled
// in place. On an error dst comes back unchanged.
func AppendPushMessage(dst []byte, typ uint16, m proto.Message) ([]byte, error) {
	frame := AppendPushHeader(dst, PushHeader{Type: typ})
	return appendBody(dst, frame, m)
}

// appendBody marshals m behind a header that ends in a length still zero, and
// sets that length.
func appendBody(dst, frame []byte, m proto.Message) ([]byte, error) {
	start := len(frame)
	frame, err := proto.MarshalOptions{}.MarshalAppend(frame, m)
	if err != nil {
		return dst, fmt.Errorf("marshal %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	SetLength(frame, start)
	return frame, nil
}

// SetLength writes the length of the body frame[bodyStart:] into the last four
// bytes of the header in front of it. It serves writers that build a body in
// place behind a header whose length was not yet known.
func SetLength(frame []byte, bodyStart int) {
	binary.BigEndian.PutUint32(frame[bodyStart-4:], uint32(len(frame)-bodyStart))
}

// ParseRequestHeader reads the first 10 bytes of b; fewer are ErrTruncated.
func ParseRequestHeader(b []byte) (RequestHeader, error) {
	if len(b) < RequestHeaderSize {
		return RequestHeader{}, truncated(RequestHeaderSize, len(b))
	}
	return RequestHeader{
		Method:    binary.BigEndian.Uint16(b),
		RequestID: binary.BigEndian.Uint32(b[2:]),
		Length:    binary.BigEndian.Uint32(b[6:]),
	}, nil
}

// ParseResponseHeader reads the first 9 bytes of b; fewer are ErrTruncated. Any
// status byte is accepted: a client must live with statuses of newer servers.
func ParseResponseHeader(b []byte) (ResponseHeader, error) {
	if len(b) < ResponseHeaderSize {
		return ResponseHeader{}, truncated(ResponseHeaderSize, len(b))
	}
	return ResponseHeader{
		Status:    pb.Status(b[0]),
		RequestID: binary.BigEndian.Uint32(b[1:]),
		Length:    binary.BigEndian.Uint32(b[5:]),
	}, nil
}

// ParsePushHeader reads the first 6 bytes of b; fewer are ErrTruncated.
func ParsePushHeader(b []byte) (PushHeader, error) {
	if len(b) < PushHeaderSize {
		return PushHeader{}, truncated(PushHeaderSize, len(b))
	}
	return PushHeader{
		Type:   binary.BigEndian.Uint16(b),
		Length: binary.BigEndian.Uint32(b[2:]),
	}, nil
}

// ParseRequest splits a whole request frame whose body has at most limit bytes.
// The body is a part of b.
func ParseRequest(b []byte, limit uint32) (RequestHeader, []byte, error) {
	h, err := ParseRequestHeader(b)
	if err != nil {
		return h, nil, err
	}
	body, err := exactBody(b[RequestHeaderSize:], h.Length, limit)
	return h, body, err
}

// ParseResponse splits a whole response frame whose body has at most limit
// bytes. The body is a part of b.
func ParseResponse(b []byte, limit uint32) (ResponseHeader, []byte, error) {
	h, err := ParseResponseHeader(b)
	if err != nil {
		return h, nil, err
	}
	body, err := exactBody(b[ResponseHeaderSize:], h.Length, limit)
	return h, body, err
}

// ParsePush splits a whole push frame whose body has at most limit bytes. The
// body is a part of b.
func ParsePush(b []byte, limit uint32) (PushHeader, []byte, error) {
	h, err := ParsePushHeader(b)
	if err != nil {
		return h, nil, err
	}
	body, err := exactBody(b[PushHeaderSize:], h.Length, limit)
	return h, body, err
}

func exactBody(b []byte, length, limit uint32) ([]byte, error) {
	switch {
	case length > limit:
		return nil, tooLarge(length, limit)
	case uint64(len(b)) < uint64(length):
		return nil, truncated(int64(length), len(b))
	case uint64(len(b)) > uint64(length):
		return nil, trailing(length)
	}
	return b, nil
}
