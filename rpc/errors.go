package rpc

import (
	"errors"
	"fmt"

	pb "quicprochat/proto/qpcv1"
)

// The ways in which a frame can be wrong. Functions of this package return a
// *FrameError that errors.Is finds equal to one of these.
var (
	// ErrTruncated: the stream or buffer ended inside the frame.
	ErrTruncated = errors.New("frame truncated")
	// ErrTrailing: bytes follow the announced body.
	ErrTrailing = errors.New("bytes after the frame")
	// ErrTooLarge: the announced body is over the limit.
	ErrTooLarge = errors.New("frame too large")
)

// FrameError tells what is wrong with a frame, in the terms of an ErrorDetail.
type FrameError struct {
	// Reason is FRAME_TRUNCATED, FRAME_TRAILING_BYTES or FRAME_TOO_LARGE.
	Reason pb.Reason
	// Announced is the length in bytes that the part (header or body) should
	// have.
	Announced uint32
	// Got is the number of bytes that were there (FRAME_TRUNCATED).
	Got uint32
	// Limit is the longest body allowed, in bytes (FRAME_TOO_LARGE).
	Limit uint32
}

func (e *FrameError) Error() string {
	switch e.Reason {
	case pb.Reason_FRAME_TRUNCATED:
		return fmt.Sprintf("frame truncated: %d of %d bytes", e.Got, e.Announced)
	case pb.Reason_FRAME_TRAILING_BYTES:
		return fmt.Sprintf("bytes after the frame's body of %d bytes", e.Announced)
	default:
		return fmt.Sprintf("frame too large: %d bytes announced, limit %d", e.Announced, e.Limit)
	}
}

// Is makes a FrameError equal to the sentinel of its reason.
func (e *FrameError) Is(target error) bool {
	switch target {
	case ErrTruncated:
		return e.Reason == pb.Reason_FRAME_TRUNCATED
	case ErrTrailing:
		return e.Reason == pb.Reason_FRAME_TRAILING_BYTES
	case ErrTooLarge:
		return e.Reason == pb.Reason_FRAME_TOO_LARGE
	}
	return false
}

func truncated[N int | int64](want N, got int) error {
	return &FrameError{Reason: pb.Reason_FRAME_TRUNCATED, Announced: uint32(want), Got: uint32(got)}
}

func trailing(length uint32) error {
	return &FrameError{Reason: pb.Reason_FRAME_TRAILING_BYTES, Announced: length}
}

func tooLarge(length, limit uint32) error {
	return &FrameError{Reason: pb.Reason_FRAME_TOO_LARGE, Announced: length, Limit: limit}
}

// StatusName returns the seed's name of a status byte ("BadRequest"), or
// "Status(n)" for a number that this version does not know. The names are a
// closed set and fit metric labels once KnownStatus holds.
func StatusName(s pb.Status) string {
	if name, ok := pb.Status_name[int32(s)]; ok {
		return name
	}
	return fmt.Sprintf("Status(%d)", int32(s))
}

// KnownStatus tells whether s is one of the statuses that are sent: 6 and 7
// never are.
func KnownStatus(s pb.Status) bool {
	_, ok := pb.Status_name[int32(s)]
	return ok
}

// ReasonName returns the name of a reason ("USERNAME_TAKEN"), or "Reason(n)".
func ReasonName(r pb.Reason) string {
	if name, ok := pb.Reason_name[int32(r)]; ok {
		return name
	}
	return fmt.Sprintf("Reason(%d)", int32(r))
}
