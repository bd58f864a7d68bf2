package commands

import (
	"crypto/sha256"
	"fmt"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "quicprochat/proto/qpcv1"
)

// NewCommand makes the command of one request of the method with this rule.
// Everything that needs no view happens here, on the goroutine of the caller:
// the token's hash, and for methods with retry REQUEST_ID the request's hash. The
// request must not change until the command is done. Refusal: BadRequest MISSING_FIELD for a request without the
// request_id that makes it safe to retry.
func NewCommand[Resp proto.Message](rule *pb.Rule, req proto.Message, decide func(*Tx) (Resp, error)) (*Command, error) {
	c := &Command{
		Decide:      func(tx *Tx) (proto.Message, error) { return decidedResponse(decide(tx)) },
		NewResponse: newResponse[Resp],
	}
	if err := c.bind(rule, req); err != nil {
		return nil, err
	}
	return c, nil
}

// decidedResponse is what a decide function returned: a typed nil in an interface
// would look like a response.
func decidedResponse[Resp proto.Message](resp Resp, err error) (proto.Message, error) {
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// newResponse makes an empty response of its type.
func newResponse[Resp proto.Message]() proto.Message {
	var response Resp
	return response.ProtoReflect().New().Interface()
}

// bind sets what follows from the rule and the request.
func (c *Command) bind(rule *pb.Rule, req proto.Message) error {
	c.Method, c.Auth, c.Token = rule.GetId(), rule.GetAuth(), TokenHash(req)
	switch rule.GetWhenFull() {
	case pb.WhenFull_SERVED:
		c.WorksWhenFull = true
	case pb.WhenFull_WITH_SESSION:
		c.WorksWhenFull = c.Token != [32]byte{}
	}
	if rule.GetRetry() != pb.Retry_REQUEST_ID {
		c.Size = proto.Size(req)
		return nil
	}
	withID, ok := req.(interface{ GetRequestId() []byte })
	if !ok {
		return fmt.Errorf("commands: method %d retries by request_id, but %T has none", rule.GetId(), req)
	}
	if c.RequestID = withID.GetRequestId(); len(c.RequestID) == 0 {
		return missing("request_id")
	}
	var err error
	c.RequestHash, c.Size, err = requestHash(req)
	return err
}

// TokenHash is the SHA-256 of the request's session_token: what the server
// knows a session by. Zero without a token, or where the message has none.
func TokenHash(req proto.Message) [32]byte {
	withToken, ok := req.(interface{ GetSessionToken() []byte })
	if !ok || len(withToken.GetSessionToken()) == 0 {
		return [32]byte{}
	}
	return sha256.Sum256(withToken.GetSessionToken())
}

// requestBuffers holds what requests are marshalled into for hashing.
var requestBuffers = sync.Pool{New: func() any { return new([]byte) }}

// pooledBuffer is the largest buffer that goes back to the pool in bytes: a few
// long requests must not pin their size for ever.
const pooledBuffer = 64 << 10

// unhashed are the fields that a retry may change.
var unhashed = [...]protoreflect.Name{"session_token", "request_id", "proof"}

// requestHash is the SHA-256 of the deterministic encoding of req without
// session_token, request_id and proof, and the length of that encoding in bytes. A
// retry may come under another session and from another known state, and is found
// by its id.
func requestHash(req proto.Message) (hash [32]byte, size int, err error) {
	buffer := requestBuffers.Get().(*[]byte)
	encoded, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend((*buffer)[:0], req)
	if err != nil {
		return hash, 0, fmt.Errorf("commands: hashing a request: %w", err)
	}
	fields := req.ProtoReflect().Descriptor().Fields()
	kept := encoded
	for _, name := range unhashed {
		if field := fields.ByName(name); field != nil {
			kept = withoutField(kept, field.Number())
		}
	}
	hash = sha256.Sum256(kept)
	if cap(encoded) <= pooledBuffer {
		clear(encoded)
		*buffer = encoded[:0]
		requestBuffers.Put(buffer)
	}
	return hash, len(kept), nil
}

// withoutField takes a field out of an encoded message, in place: what is left is
// the encoding of the message without it.
func withoutField(encoded []byte, number protowire.Number) []byte {
	for at := 0; at < len(encoded); {
		n, _, length := protowire.ConsumeField(encoded[at:])
		if length < 0 { // not what Marshal makes
			return encoded
		}
		if n != number {
			at += length
			continue
		}
		encoded = append(encoded[:at], encoded[at+length:]...)
	}
	return encoded
}
