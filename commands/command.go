package commands

import (
	"crypto/sha256"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "quicprochat/proto/qpcv1"
)

// NewCommand makes the command of one request of the method with this rule.
// Everything that needs no view happens here, on the goroutine of the caller:
// the token's hash, and for methods with retry REQUEST_ID the request's hash. The
// request is the caller's alone during the call, and must not change until the
// command is done. Refusal: BadRequest MISSING_FIELD for a request without the
// request_id that makes it safe to retry.
func NewCommand[Resp proto.Message](rule *pb.Rule, req proto.Message, decide func(*Tx) (Resp, error)) (*Command, error) {
	c := &Command{
		Method: rule.GetId(),
		Auth:   rule.GetAuth(),
		Token:  TokenHash(req),
		Decide: func(tx *Tx) (proto.Message, error) {
			// A typed nil in an interface would look like a response.
			response, err := decide(tx)
			if err != nil {
				return nil, err
			}
			return response, nil
		},
		NewResponse: func() proto.Message {
			var response Resp
			return response.ProtoReflect().New().Interface()
		},
	}
	if rule.GetRetry() != pb.Retry_REQUEST_ID {
		c.Size = proto.Size(req)
		return c, nil
	}
	withID, ok := req.(interface{ GetRequestId() []byte })
	if !ok {
		return nil, fmt.Errorf("commands: method %d retries by request_id, but %T has none", rule.GetId(), req)
	}
	if c.RequestID = withID.GetRequestId(); len(c.RequestID) == 0 {
		return nil, missing("request_id")
	}
	var err error
	c.RequestHash, c.Size, err = requestHash(req)
	return c, err
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
// session_token, request_id and proof, and the length of that encoding in bytes.
// A retry may come under another session and from another known state, and is
// found by its id. The fields are taken out for the time of the call instead of copying the request.
func requestHash(req proto.Message) (hash [32]byte, size int, err error) {
	m := req.ProtoReflect()
	fields := m.Descriptor().Fields()
	var taken [len(unhashed)]protoreflect.Value
	for i, name := range unhashed {
		if field := fields.ByName(name); field != nil && m.Has(field) {
			taken[i] = m.Get(field)
			m.Clear(field)
		}
	}
	defer func() {
		for i, value := range taken {
			if value.IsValid() {
				m.Set(fields.ByName(unhashed[i]), value)
			}
		}
	}()
	buffer := requestBuffers.Get().(*[]byte)
	encoded, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend((*buffer)[:0], req)
	if err != nil {
		return hash, 0, fmt.Errorf("commands: hashing a request: %w", err)
	}
	hash = sha256.Sum256(encoded)
	if size = len(encoded); cap(encoded) <= pooledBuffer {
		clear(encoded)
		*buffer = encoded[:0]
		requestBuffers.Put(buffer)
	}
	return hash, size, nil
}
