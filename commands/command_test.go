package commands

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

var sendRule = &pb.Rule{Id: 200, Auth: pb.Auth_SESSION, Retry: pb.Retry_REQUEST_ID}

func noDecision(*Tx) (*pb.EnqueueResponse, error) { return nil, errors.New("not decided") }

func newRequest(payload string) *pb.EnqueueRequest {
	return &pb.EnqueueRequest{
		SessionToken: bytes.Repeat([]byte{1}, TokenSize),
		RequestId:    bytes.Repeat([]byte{2}, 16),
		Recipient:    &pb.EnqueueRequest_RecipientKey{RecipientKey: bytes.Repeat([]byte{3}, KeySize)},
		Payload:      []byte(payload),
	}
}

// TestRequestHash: a retry has the same hash under another session, any other
// body has another one, and the request is left as it was.
func TestRequestHash(t *testing.T) {
	hash := func(change func(*pb.EnqueueRequest)) [32]byte {
		t.Helper()
		req := newRequest("payload")
		change(req)
		before := proto.Clone(req)
		c, err := NewCommand(sendRule, req, noDecision)
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(before, req) {
			t.Errorf("the request was changed: %v, was %v", req, before)
		}
		if c.Size <= 0 || c.Method != 200 || c.Auth != pb.Auth_SESSION || !bytes.Equal(c.RequestID, req.GetRequestId()) {
			t.Errorf("command %+v", c)
		}
		return c.RequestHash
	}
	base := hash(func(*pb.EnqueueRequest) {})
	bare := newRequest("payload")
	bare.SessionToken, bare.RequestId = nil, nil
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	if err != nil {
		t.Fatal(err)
	}
	if base != sha256.Sum256(encoded) {
		t.Error("the hash is not that of the request without token and id")
	}
	for name, change := range map[string]func(*pb.EnqueueRequest){
		"token":    func(r *pb.EnqueueRequest) { r.SessionToken = []byte("another") },
		"no token": func(r *pb.EnqueueRequest) { r.SessionToken = nil },
		"id":       func(r *pb.EnqueueRequest) { r.RequestId = bytes.Repeat([]byte{5}, 16) },
	} {
		if hash(change) != base {
			t.Errorf("%s: another hash", name)
		}
	}
	for name, change := range map[string]func(*pb.EnqueueRequest){
		"payload":   func(r *pb.EnqueueRequest) { r.Payload = []byte("payloaD") },
		"ttl":       func(r *pb.EnqueueRequest) { r.TtlS = 1 },
		"recipient": func(r *pb.EnqueueRequest) { r.GetRecipient().(*pb.EnqueueRequest_RecipientKey).RecipientKey[0]++ },
		"to device": func(r *pb.EnqueueRequest) {
			r.Recipient = &pb.EnqueueRequest_RecipientDevice{RecipientDevice: r.GetRecipientKey()}
		},
	} {
		if hash(change) == base {
			t.Errorf("%s: the same hash", name)
		}
	}
}

// TestRequestHashLarge: requests larger than what the pool keeps hash alike.
func TestRequestHashLarge(t *testing.T) {
	req := newRequest("")
	req.Payload = bytes.Repeat([]byte{7}, MaxPayload)
	first, err := NewCommand(sendRule, req, noDecision)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		again, err := NewCommand(sendRule, req, noDecision)
		if err != nil || again.RequestHash != first.RequestHash || again.Size != first.Size {
			t.Fatalf("another hash or size: %v", err)
		}
		if _, err := NewCommand(sendRule, newRequest("short"), noDecision); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNewCommandNeedsRequestID(t *testing.T) {
	req := newRequest("payload")
	req.RequestId = nil
	_, err := NewCommand(sendRule, req, noDecision)
	if !errors.Is(err, &Refusal{Status: pb.Status_BadRequest, Reason: pb.Reason_MISSING_FIELD}) {
		t.Errorf("without request_id: %v", err)
	}
	if _, err := NewCommand(sendRule, &pb.FetchRequest{}, noDecision); err == nil || AsRefusal(err) != nil {
		t.Errorf("a message that has no request_id must be an internal error, not %v", err)
	}
}

func TestTokenHash(t *testing.T) {
	token := bytes.Repeat([]byte{1}, TokenSize)
	if TokenHash(&pb.FetchRequest{SessionToken: token}) != sha256.Sum256(token) {
		t.Error("not the SHA-256 of the token")
	}
	if TokenHash(&pb.FetchRequest{}) != [32]byte{} || TokenHash(&pb.HealthRequest{}) != [32]byte{} {
		t.Error("no token has a hash")
	}
}

// TestCommandErrorsHaveNoResponse: a decide function that fails must not leave a
// typed nil behind, which would look like an answer.
func TestCommandErrorsHaveNoResponse(t *testing.T) {
	c, err := NewCommand(sendRule, newRequest("x"), noDecision)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := c.Decide(nil); err == nil || response != nil {
		t.Errorf("response %#v, error %v", response, err)
	}
	if _, ok := c.NewResponse().(*pb.EnqueueResponse); !ok {
		t.Errorf("NewResponse made a %T", c.NewResponse())
	}
}
