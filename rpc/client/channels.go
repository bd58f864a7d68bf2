package client

import (
	"context"

	pb "quicprochat/proto/qpcv1"
)

// CreateChannel makes a channel; the caller is its owner and has joined, the people
// named are invited.
func (c *Client) CreateChannel(ctx context.Context, req *pb.CreateChannelRequest) (*pb.CreateChannelResponse, error) {
	resp := new(pb.CreateChannelResponse)
	return resp, c.Call(ctx, req, resp)
}

// AddMember invites people into a channel; who is in already stays as they are.
func (c *Client) AddMember(ctx context.Context, req *pb.AddMemberRequest) (*pb.AddMemberResponse, error) {
	resp := new(pb.AddMemberResponse)
	return resp, c.Call(ctx, req, resp)
}

// RemoveMember puts somebody out of a channel, or leaves it.
func (c *Client) RemoveMember(ctx context.Context, req *pb.RemoveMemberRequest) (*pb.RemoveMemberResponse, error) {
	resp := new(pb.RemoveMemberResponse)
	return resp, c.Call(ctx, req, resp)
}

// UpdateGroupMetadata changes what req.Fields names. After VERSION_CONFLICT list
// the members again: the answer has the newest version.
func (c *Client) UpdateGroupMetadata(ctx context.Context, req *pb.UpdateGroupMetadataRequest) (*pb.UpdateGroupMetadataResponse, error) {
	resp := new(pb.UpdateGroupMetadataResponse)
	return resp, c.Call(ctx, req, resp)
}

// ListGroupMembers returns a page of the members with the channel's metadata.
func (c *Client) ListGroupMembers(ctx context.Context, req *pb.ListGroupMembersRequest) (*pb.ListGroupMembersResponse, error) {
	resp := new(pb.ListGroupMembersResponse)
	return resp, c.Call(ctx, req, resp)
}

// Members returns a channel's metadata and all its members.
func (c *Client) Members(ctx context.Context, channelID []byte) (*pb.ChannelInfo, []*pb.ChannelMember, error) {
	var members []*pb.ChannelMember
	var after []byte
	for {
		page, err := c.ListGroupMembers(ctx, &pb.ListGroupMembersRequest{ChannelId: channelID, After: after})
		if err != nil {
			return nil, nil, err
		}
		members = append(members, page.GetMembers()...)
		if !page.GetMore() || len(page.GetMembers()) == 0 {
			return page.GetChannel(), members, nil
		}
		after = members[len(members)-1].GetIdentityKey()
	}
}

// RotateKeys asks every member of a channel, durably, to commit new keys.
func (c *Client) RotateKeys(ctx context.Context, req *pb.RotateKeysRequest) (*pb.RotateKeysResponse, error) {
	resp := new(pb.RotateKeysResponse)
	return resp, c.Call(ctx, req, resp)
}

// Post puts one payload into the queues of all members of a channel, together with
// what belongs to it. A StatusError with reason STALE_EPOCH tells the current epoch
// in its Detail: another commit was faster.
func (c *Client) Post(ctx context.Context, req *pb.BatchEnqueueRequest) (*pb.BatchEnqueueResponse, error) {
	return c.BatchEnqueue(ctx, req)
}
