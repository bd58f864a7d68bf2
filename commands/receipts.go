package commands

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// RequestIDWindowMS is how far the time of a request_id may lie from the
// server's, in milliseconds, and how long beyond that time its receipt is kept.
const RequestIDWindowMS = dayMS

// requestIDTime reads a UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix
// milliseconds, version 7, variant 10, the rest random.
func requestIDTime(id []byte) (ms uint64, ok bool) {
	if len(id) != 16 || id[6]>>4 != 7 || id[8]>>6 != 0b10 {
		return 0, false
	}
	for _, b := range id[:6] {
		ms = ms<<8 | uint64(b)
	}
	return ms, true
}

// CheckRequestID refuses an id that is no UUIDv7 (BadRequest
// REQUEST_ID_INVALID), or whose time is not within 24 h of now
// (REQUEST_ID_TIME): its receipt may be gone, so a retry could act twice.
func CheckRequestID(id []byte, now uint64) error {
	ms, ok := requestIDTime(id)
	if !ok {
		return errRequestID
	}
	if ms+RequestIDWindowMS < now || ms > now+RequestIDWindowMS {
		return errRequestIDTime
	}
	return nil
}

var (
	errRequestID     = Refuse(pb.Status_BadRequest, pb.Reason_REQUEST_ID_INVALID, "request_id is not a UUIDv7 of 16 bytes")
	errRequestIDTime = Refuse(pb.Status_BadRequest, pb.Reason_REQUEST_ID_TIME, "request_id's time is not within 24 hours of the server's")
	errRequestReused = Refuse(pb.Status_BadRequest, pb.Reason_REQUEST_ID_REUSED, "request_id was used for another request")
)

// replay looks for the receipt of a command: the response decided then, or nil
// when the command is new. Refusals: those of CheckRequestID, REQUEST_ID_REUSED.
func replay(r projections.Reader, caller *Caller, c *Command, now uint64) (proto.Message, error) {
	if err := CheckRequestID(c.RequestID, now); err != nil {
		return nil, err
	}
	kept, found, err := projections.Receipt(r, caller.DeviceKey, c.Method, projections.ID(c.RequestID))
	if err != nil || !found {
		return nil, err
	}
	if kept.RequestHash != c.RequestHash {
		return nil, errRequestReused
	}
	resp := c.NewResponse()
	if err := proto.Unmarshal(kept.Outcome, resp); err != nil {
		return nil, fmt.Errorf("receipt of method %d: %w", c.Method, err)
	}
	return resp, nil
}

// receipt makes the receipt of a decided command. It is overwritten by the next
// one: an event is done with when it is applied.
func (w *writer) receipt(caller *Caller, c *Command, resp proto.Message) (*pb.Receipt, error) {
	outcome, err := marshalEvent.MarshalAppend(w.outcome[:0], resp)
	if err != nil {
		return nil, fmt.Errorf("marshal outcome of method %d: %w", c.Method, err)
	}
	w.outcome = outcome
	r := &w.receiptBuf
	r.Caller = append(r.Caller[:0], caller.DeviceKey[:]...)
	r.Method = c.Method
	r.RequestId = append(r.RequestId[:0], c.RequestID...)
	r.RequestHash = append(r.RequestHash[:0], c.RequestHash[:]...)
	r.Outcome = outcome
	return r, nil
}
