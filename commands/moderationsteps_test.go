package commands_test

import (
	"crypto/sha256"

	"quicprochat/commands"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// frankKey is the server's in all worlds.
var frankKey = commands.NewFrankKey(1, seedFrom("frank"))

// report completes a ReportMessageRequest: seq=N takes the message of that number in
// the session's queue, or in that of the session of=NAME, with its tag as it is
// delivered.
func (w *world) report(req *pb.ReportMessageRequest, session string, a *arguments) {
	if seq := a.number("seq", 0); seq != 0 {
		token := sha256.Sum256(w.tokens[a.take("of", session)])
		view, err := w.engine.Query(token, pb.Auth_SESSION)
		w.check(err)
		defer view.Release()
		item, found, err := projections.QueueItemAt(view.Reader, view.Caller.DeviceKey, uint64(seq))
		w.check(err)
		if !found {
			w.t.Fatalf("%s has no message %d", session, seq)
		}
		data, _, err := view.Payload(item.Owner, item.MessageID)
		w.check(err)
		e := &pb.Envelope{Seq: item.Seq, Payload: data}
		w.check(commands.FrankEnvelopes(view, frankKey, serverName, []*pb.Envelope{e}))
		digest := sha256.Sum256(data)
		req.Message = &pb.ReportedMessage{
			MessageId: item.MessageID[:], ChannelId: e.GetChannelId(), PayloadSha256: digest[:], TimeMs: item.EnqueuedMS, Frank: e.GetFrank(),
		}
	}
	a.apply(req, false)
	a.apply(req, true)
}
