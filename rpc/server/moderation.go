package server

import (
	"context"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
)

// reportMessage checks the tag of a reported message with the server's key, outside
// the writer.
func (c *call) reportMessage(ctx context.Context, req *pb.ReportMessageRequest) (*pb.ReportMessageResponse, error) {
	return decided[*pb.ReportMessageResponse](ctx, c, func() (*commands.Command, error) {
		report, err := commands.PrepareReport(c.view, c.service.frank, c.service.serverName, req)
		if err != nil {
			return nil, err
		}
		return commands.NewReportMessage(c.method.Rule, req, report)
	})
}

// frank adds the tags with which the recipient can report. Items that a command has
// just handed out stand in the newest view.
func (c *call) frank(envelopes []*pb.Envelope, decided bool) error {
	if len(envelopes) == 0 {
		return nil
	}
	v := c.view
	if decided || v == nil {
		newest, err := c.service.engine.View()
		if err != nil {
			return err
		}
		defer newest.Release()
		newest.Caller = c.caller
		v = newest
	}
	return commands.FrankEnvelopes(v, c.service.frank, c.service.serverName, envelopes)
}
