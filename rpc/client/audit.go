package client

import (
	"context"
	"errors"
	"fmt"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// AuditKeyTransparency asks what the log says: about persons, with the session of
// this client; about the log itself, also without one. Proofs in the answer are
// the server's word until package kt has verified them.
func (c *Client) AuditKeyTransparency(ctx context.Context, req *pb.AuditKeyTransparencyRequest) (*pb.AuditKeyTransparencyResponse, error) {
	resp := new(pb.AuditKeyTransparencyResponse)
	if len(req.GetSessionToken()) > 0 || !asksForSession(req) {
		return resp, c.Call(ctx, req, resp)
	}
	session, ok := c.Session()
	if !ok {
		return nil, errors.New("client: only a session may ask the log for persons and own messages: log in first")
	}
	with := &pb.AuditKeyTransparencyRequest{SessionToken: session.Token, Query: req.GetQuery(), Proof: req.GetProof()}
	return resp, c.Call(ctx, with, resp)
}

// asksForSession tells the queries that nobody may ask without one.
func asksForSession(req *pb.AuditKeyTransparencyRequest) bool {
	switch req.GetQuery().(type) {
	case *pb.AuditKeyTransparencyRequest_Username, *pb.AuditKeyTransparencyRequest_IdentityKey, *pb.AuditKeyTransparencyRequest_Message:
		return true
	}
	return false
}

// longestResource bounds what a path may name, in bytes: nobody has to read more
// than the server could honestly have.
func longestResource(path string) uint64 {
	if p, err := kt.ParseTilePath(path); err == nil {
		return uint64(p.MaxSize())
	}
	return kt.MaxNoteSize
}

// LogResource reads a public resource of the log by the path that it has over
// HTTP, such as checkpoint, tile/0/000 or kt/delta/000. A path that the published
// log lacks is refused with NO_SUCH_ENTRY.
func (c *Client) LogResource(ctx context.Context, path string) ([]byte, error) {
	var all []byte
	longest := longestResource(path)
	for {
		resp, err := c.AuditKeyTransparency(ctx, &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Resource{
			Resource: &pb.LogResource{Path: path, Offset: uint64(len(all))},
		}})
		if err != nil {
			return nil, err
		}
		part := resp.GetResource()
		size := part.GetSize()
		if len(part.GetData()) == 0 || uint64(len(all)+len(part.GetData())) > size || size > longest {
			return nil, fmt.Errorf("%w: %s: %d bytes at %d of %d", ErrProtocol, path, len(part.GetData()), len(all), size)
		}
		all = append(all, part.GetData()...)
		// The checkpoint may be another one by now; it comes in one part.
		if uint64(len(all)) == size {
			return all, nil
		}
	}
}
