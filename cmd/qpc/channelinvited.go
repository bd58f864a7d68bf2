package main

import (
	"context"
	"encoding/hex"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client/seal"
)

// invitationPages is how far into the queue 'channel list' looks for invitations: a
// thousand messages.
const invitationPages = 4

// invitation is a channel that somebody invites to by a message that waits unread.
type invitation struct {
	digits string // the channel's id
	from   string
	room   *channelRoom
}

// invitations finds those to channels that this home does not know. The messages stay
// in the queue, unconfirmed and unnoted: only 'recv' takes an invitation in. What does
// not open, or is not by whom it says, is for 'recv' to warn of.
func (s *channelSession) invitations(ctx context.Context) ([]invitation, error) {
	r, err := newReader(s.app, s.home, s.keys, s.Client)
	if err != nil {
		return nil, err
	}
	known, err := s.home.channels()
	if err != nil {
		return nil, err
	}
	var found []invitation
	from, more := r.inbox.AfterSeq+1, true
	for page := 0; more && page < invitationPages; page++ {
		reply, err := s.Peek(ctx, &pb.PeekRequest{FromSeq: from})
		if err != nil {
			return nil, err
		}
		for _, envelope := range reply.GetEnvelopes() {
			from = envelope.GetSeq() + 1
			i, is, err := r.invitation(ctx, envelope)
			if err != nil {
				return nil, err
			}
			if is && known[i.digits] == nil {
				known[i.digits] = i.room
				found = append(found, i)
			}
		}
		more = reply.GetMore() && len(reply.GetEnvelopes()) > 0
	}
	if more {
		s.warn("this is of the next %d messages only: 'qpc recv' reads them all", invitationPages*256)
	}
	return found, nil
}

// invitation reads an envelope as an invitation; is is false for all else. An error
// means that its sender could not be checked now.
func (r *reader) invitation(ctx context.Context, envelope *pb.Envelope) (i invitation, is bool, err error) {
	if envelope.GetControl() != nil || envelope.GetChannelSeq() > 0 || seal.IsSecrets(envelope.GetPayload()) {
		return i, false, nil
	}
	content, err := seal.Open(r.client.ServerName(), r.identity, r.pairs, envelope.GetPayload())
	if err != nil || len(content.GetChannelId()) == 0 {
		return i, false, nil
	}
	note, is := parseChannelNote(content.GetPlaintext())
	if !is {
		return i, false, nil
	}
	from, err := r.sender(ctx, content)
	if isRejection(err) {
		return i, false, nil
	}
	if err != nil {
		return i, false, err
	}
	r.greet(from)
	return invitation{hex.EncodeToString(content.GetChannelId()), from.name, &channelRoom{Name: note.Name, Key: note.Key, Members: note.Members}}, true, nil
}
