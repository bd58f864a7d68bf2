package client

import (
	"context"
	"crypto/sha256"

	pb "quicprochat/proto/qpcv1"
)

// Reported is what a report of a delivered message needs: keep it as long as the
// message may be reported. Nil for an envelope without a tag.
func Reported(e *pb.Envelope) *pb.ReportedMessage {
	if e.GetFrank() == nil {
		return nil
	}
	digest := sha256.Sum256(e.GetPayload())
	return &pb.ReportedMessage{
		MessageId: e.GetMessageId(), ChannelId: e.GetChannelId(), PayloadSha256: digest[:], TimeMs: e.GetEnqueuedMs(), Frank: e.GetFrank(),
	}
}

// ReportMessage tells the server's moderators of a user, and of a message if the
// request has one (Reported). The answer does not tell whether its tag was right.
func (c *Client) ReportMessage(ctx context.Context, req *pb.ReportMessageRequest) (*pb.ReportMessageResponse, error) {
	resp := new(pb.ReportMessageResponse)
	return resp, c.Call(ctx, req, resp)
}

// BanUser shuts a user out of the server; for moderators and administrators.
func (c *Client) BanUser(ctx context.Context, req *pb.BanUserRequest) (*pb.BanUserResponse, error) {
	resp := new(pb.BanUserResponse)
	return resp, c.Call(ctx, req, resp)
}

// UnbanUser lifts a ban.
func (c *Client) UnbanUser(ctx context.Context, req *pb.UnbanUserRequest) (*pb.UnbanUserResponse, error) {
	resp := new(pb.UnbanUserResponse)
	return resp, c.Call(ctx, req, resp)
}

// ListReports answers with reports, newest first, in pages; for moderators and
// administrators.
func (c *Client) ListReports(ctx context.Context, req *pb.ListReportsRequest) (*pb.ListReportsResponse, error) {
	resp := new(pb.ListReportsResponse)
	return resp, c.Call(ctx, req, resp)
}

// ListBanned answers with who is banned, in pages.
func (c *Client) ListBanned(ctx context.Context, req *pb.ListBannedRequest) (*pb.ListBannedResponse, error) {
	resp := new(pb.ListBannedResponse)
	return resp, c.Call(ctx, req, resp)
}

// ResolveReport says what became of a report.
func (c *Client) ResolveReport(ctx context.Context, req *pb.ResolveReportRequest) (*pb.ResolveReportResponse, error) {
	resp := new(pb.ResolveReportResponse)
	return resp, c.Call(ctx, req, resp)
}
