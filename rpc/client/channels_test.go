package client

import (
	"bytes"
	"testing"

	pb "quicprochat/proto/qpcv1"
)

// TestMembersReadsAllPages has a server that gives two members a page.
func TestMembersReadsAllPages(t *testing.T) {
	f := newFake(t)
	keys := [][]byte{{1}, {2}, {3}, {4}, {5}}
	f.on("ListGroupMembers", func(c *fakeCall) {
		req := c.req.(*pb.ListGroupMembersRequest)
		from := 0
		for i, key := range keys {
			if bytes.Equal(key, req.GetAfter()) {
				from = i + 1
			}
		}
		to := min(from+2, len(keys))
		resp := &pb.ListGroupMembersResponse{Channel: &pb.ChannelInfo{Version: 7}, More: to < len(keys)}
		for _, key := range keys[from:to] {
			resp.Members = append(resp.Members, &pb.ChannelMember{IdentityKey: key})
		}
		c.ok(resp)
	})
	info, members, err := f.dial(onItsWord).Members(t.Context(), []byte("channel"))
	if err != nil || info.GetVersion() != 7 || len(members) != len(keys) || f.count("ListGroupMembers") != 3 {
		t.Fatalf("%v, %d members after %d calls, %v", info, len(members), f.count("ListGroupMembers"), err)
	}
	for i, m := range members {
		if !bytes.Equal(m.GetIdentityKey(), keys[i]) {
			t.Errorf("member %d is %x", i, m.GetIdentityKey())
		}
	}
}
