package client

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// Health asks how the server is; it also checks the server's name and learns
// its time. Status Unavailable means that it is replaying or stopping.
func (c *Client) Health(ctx context.Context) (*pb.HealthResponse, error) {
	resp := new(pb.HealthResponse)
	return resp, c.Call(ctx, new(pb.HealthRequest), resp)
}

// Enqueue puts a payload of 1 byte to 1 MiB into the queues of a recipient. The
// reply comes once it is durable. Repeats under one request_id store it once.
func (c *Client) Enqueue(ctx context.Context, req *pb.EnqueueRequest) (*pb.EnqueueResponse, error) {
	resp := new(pb.EnqueueResponse)
	return resp, c.Call(ctx, req, resp)
}

// BatchEnqueue puts up to 1,000 payloads, together at most 4 MiB, into queues.
// Each item has its own result.
func (c *Client) BatchEnqueue(ctx context.Context, req *pb.BatchEnqueueRequest) (*pb.BatchEnqueueResponse, error) {
	resp := new(pb.BatchEnqueueResponse)
	return resp, c.Call(ctx, req, resp)
}

// Fetch reads the device's queue. With AfterSeq ("safely processed up to here")
// it confirms and reads, and is safe to repeat; without, it drains.
func (c *Client) Fetch(ctx context.Context, req *pb.FetchRequest) (*pb.FetchResponse, error) {
	resp := new(pb.FetchResponse)
	return resp, c.Call(ctx, req, resp)
}

// FetchWait is Fetch, but waits up to TimeoutMs (at most 60,000) while the queue
// is empty. A reply with Superseded set says that another FetchWait of this
// device took over: don't poll again by yourself.
func (c *Client) FetchWait(ctx context.Context, req *pb.FetchWaitRequest) (*pb.FetchWaitResponse, error) {
	resp := new(pb.FetchWaitResponse)
	return resp, c.Call(ctx, req, resp)
}

// Peek reads the device's queue and changes nothing.
func (c *Client) Peek(ctx context.Context, req *pb.PeekRequest) (*pb.PeekResponse, error) {
	resp := new(pb.PeekResponse)
	return resp, c.Call(ctx, req, resp)
}

// Ack removes items from the device's queue.
func (c *Client) Ack(ctx context.Context, req *pb.AckRequest) (*pb.AckResponse, error) {
	resp := new(pb.AckResponse)
	return resp, c.Call(ctx, req, resp)
}

// FetchHybridKey returns the newest KeySet of an identity that carries a hybrid
// key. Unless Transparency is Off it is the one that the log proves to be the
// newest, whatever else the reply says; HybridRotationDue then tells that one of its
// devices is revoked. A revoked identity is ErrKeyRevoked.
func (c *Client) FetchHybridKey(ctx context.Context, req *pb.FetchHybridKeyRequest) (*pb.FetchHybridKeyResponse, error) {
	resp := new(pb.FetchHybridKeyResponse)
	if c.cfg.Transparency.Off {
		if err := c.Call(ctx, req, resp); err != nil {
			return resp, err
		}
		return resp, c.checkKeySet(req.IdentityKey, resp.Keyset)
	}
	_, err := c.provedHybridKey(ctx, req.IdentityKey, resp)
	return resp, err
}

// provedHybridKey fetches the KeySet of an identity that is in use.
func (c *Client) provedHybridKey(ctx context.Context, identityKey []byte, resp *pb.FetchHybridKeyResponse) (*kt.Answer, error) {
	answer, err := c.hybridKey(ctx, identityKey, resp)
	if err != nil {
		proto.Reset(resp)
		return nil, err
	}
	resp.Keyset, resp.HybridRotationDue = sealable(answer.Identity)
	switch {
	case answer.Identity.Revocation != nil:
		return nil, ErrKeyRevoked
	case resp.Keyset == nil:
		return nil, absent("FetchHybridKey", pb.Reason_NO_SUCH_KEY, "the log proves that this identity has no hybrid key")
	}
	return answer, nil
}

// Recipient is what sealing for an identity, and believing what it signed, needs.
type Recipient struct {
	KeySet *pb.KeySet
	// Devices are the keys of the KeySet that are not revoked, as the log proves;
	// with Transparency Off all that it lists.
	Devices [][]byte
	// RotationDue tells that a device which left can still read what is sealed for
	// this hybrid key: warn whoever writes.
	RotationDue bool
}

// FetchRecipient is FetchHybridKey with what the log proves about the devices.
func (c *Client) FetchRecipient(ctx context.Context, identityKey []byte) (*Recipient, error) {
	req := &pb.FetchHybridKeyRequest{IdentityKey: identityKey}
	if c.cfg.Transparency.Off {
		resp, err := c.FetchHybridKey(ctx, req)
		if err != nil {
			return nil, err
		}
		return &Recipient{KeySet: resp.GetKeyset(), Devices: resp.GetKeyset().GetDeviceKeys(), RotationDue: resp.GetHybridRotationDue()}, nil
	}
	resp := new(pb.FetchHybridKeyResponse)
	answer, err := c.provedHybridKey(ctx, identityKey, resp)
	if err != nil {
		return nil, err
	}
	return &Recipient{KeySet: resp.GetKeyset(), Devices: answer.Identity.DeviceKeys(), RotationDue: resp.GetHybridRotationDue()}, nil
}

// FetchHybridKeys returns the newest KeySets of several identities, in order, with
// an empty entry where there is no hybrid key and where the identity is revoked.
// Unless Transparency is Off they are what the log proves, as with FetchHybridKey;
// that takes a call for each 32 identities, and the reply carries no proof.
func (c *Client) FetchHybridKeys(ctx context.Context, req *pb.FetchHybridKeysRequest) (*pb.FetchHybridKeysResponse, error) {
	resp := new(pb.FetchHybridKeysResponse)
	if c.cfg.Transparency.Off || len(req.IdentityKeys) == 0 {
		if err := c.Call(ctx, req, resp); err != nil {
			return resp, err
		}
		return resp, c.checkKeySets(req.IdentityKeys, resp.Entries)
	}
	for keys := range slices.Chunk(req.IdentityKeys, maxProvedKeys) {
		entries, err := c.hybridKeys(ctx, keys)
		if err != nil {
			return new(pb.FetchHybridKeysResponse), err
		}
		resp.Entries = append(resp.Entries, entries...)
	}
	return resp, nil
}

// ResolveUser returns the identity key of a username, proved by the log: unless
// Transparency is Off the server can neither give a wrong key nor hide a newer
// one or a revocation, which is ErrKeyRevoked.
func (c *Client) ResolveUser(ctx context.Context, username string) (*pb.ResolveUserResponse, error) {
	if c.cfg.Transparency.Off {
		resp := new(pb.ResolveUserResponse)
		return resp, c.Call(ctx, &pb.ResolveUserRequest{Username: username}, resp)
	}
	canonical, err := statement.CanonicalUsername(username)
	if err != nil {
		return new(pb.ResolveUserResponse), fmt.Errorf("client: %w", err)
	}
	resp, answer, err := c.resolve(ctx, kt.Query{Username: canonical})
	switch {
	case err != nil:
		return new(pb.ResolveUserResponse), err
	case !answer.Person.Exists():
		return resp, absent("ResolveUser", pb.Reason_NO_SUCH_USER, "the log proves that nobody has this name")
	case answer.Person.Identity.Revocation != nil:
		return resp, ErrKeyRevoked
	}
	return resp, nil
}

// absent is the refusal for what the log proves not to exist.
func absent(method string, reason pb.Reason, message string) error {
	return &StatusError{Method: method, Status: pb.Status_NotFound, Reason: reason, Detail: &pb.ErrorDetail{Reason: reason, Message: message}}
}
