package server

import (
	"context"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
)

// enqueue serves method 200. An EPHEMERAL message goes to connections and not into
// the log; its answer is empty, whoever was there.
func (c *call) enqueue(ctx context.Context, req *pb.EnqueueRequest) (*pb.EnqueueResponse, error) {
	if req.GetClass() != pb.MessageClass_EPHEMERAL {
		return decided[*pb.EnqueueResponse](ctx, c, func() (*commands.Command, error) {
			return commands.NewEnqueue(c.method.Rule, req)
		})
	}
	if err := c.refreshView(); err != nil {
		return nil, err
	}
	passing, err := commands.Pass(c.view, req)
	if err != nil {
		return nil, err
	}
	c.service.hub.Tell(passing.Devices, pb.PushType_TYPING, passing.Push)
	return &pb.EnqueueResponse{}, nil
}
