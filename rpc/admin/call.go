package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/client"
)

// ErrNoServer: nobody listens on the socket; the server is not running.
var ErrNoServer = errors.New("no server listens on the admin socket")

// answerTimeout is how long an answer may take: what the server takes at most,
// and a little.
const answerTimeout = readTimeout + callTimeout + writeTimeout

// Call sends one request to the server that listens on the socket at path, and
// reads the answer into resp. Errors: ErrNoServer; *client.StatusError when the
// server refuses; else why there is no answer.
func Call(ctx context.Context, path string, req, resp proto.Message) error {
	m, ok := rpc.LocalMethodOf(req)
	if !ok {
		return fmt.Errorf("admin: %T is no request of the admin socket", req)
	}
	c, err := dial(path)
	switch {
	case err == nil:
	case isStale(err):
		return ErrNoServer
	default:
		return fmt.Errorf("can't open the admin socket %s: run this as the server's user (%w)", path, err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	c.SetDeadline(time.Now().Add(answerTimeout))
	body, err := proto.Marshal(req)
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	_, err = c.Write(rpc.AppendRequest(nil, m.ID, 1, body))
	if err == nil {
		err = c.CloseWrite()
	}
	var h rpc.ResponseHeader
	var frame []byte
	if err == nil {
		h, frame, err = rpc.ReadResponse(c, nil, rpc.MaxResponse)
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("the server did not answer on %s: the outcome of %s is unknown, look at its log (%w)", path, m.Name, err)
	}
	if body = frame[rpc.ResponseHeaderSize:]; h.Status == pb.Status_Ok {
		return proto.Unmarshal(body, resp)
	}
	detail := new(pb.ErrorDetail)
	if err := proto.Unmarshal(body, detail); err != nil {
		return fmt.Errorf("the server's refusal of %s can't be read: %w", m.Name, err)
	}
	return &client.StatusError{Method: m.Name, Status: h.Status, Reason: detail.GetReason(), Detail: detail}
}
