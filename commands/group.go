package commands

import (
	"slices"

	"quicprochat/kt"
	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// Bounds of one group. A single command that exceeds one goes alone.
const (
	maxGroupCommands = 512
	maxGroupBytes    = 8 << 20
	maxGroupEntries  = 32_768
)

// group is what becomes durable and visible together: the commands decided
// between two commits. It passes from the writer to the acker; each field has
// one owner at a time.
type group struct {
	calls []*call // whose replies are released with the group
	bytes int     // of these calls

	log       *log.Group         // nil until something is written
	batch     *projections.Batch // nil until something is read or written
	entries   int                // queue entries made
	keyEvents int                // events of class KT
	headDue   bool               // a HEAD was asked for
	sealed    bool               // the last record is a HEAD
	head      []byte             // its leaf
	news      Published

	pending *log.Pending          // nil for a group without events
	snap    *projections.Snapshot // set before viewed is signalled
	viewed  chan struct{}         // one token: the views have the group
}

func newGroup() *group { return &group{viewed: make(chan struct{}, 1)} }

// reset makes a published group usable again.
func (g *group) reset() {
	clear(g.calls)
	*g = group{
		calls:  g.calls[:0],
		viewed: g.viewed,
		head:   g.head[:0],
		news:   Published{Messages: g.news.Messages[:0], Ended: g.news.Ended[:0], Members: g.news.Members[:0], Low: g.news.Low[:0]},
	}
}

// views is the group's batch: everything decided so far.
func (g *group) views(w *writer) *projections.Batch {
	if g.batch == nil {
		g.batch = w.views.NewBatch()
	}
	return g.batch
}

// records is the group's log batch.
func (g *group) records(w *writer) *log.Group {
	if g.log == nil {
		g.log = w.log.NewGroup()
	}
	return g.log
}

// fits tells whether c may still join.
func (g *group) fits(c *call) bool {
	if len(g.calls) == 0 {
		return true
	}
	written := 0
	if g.log != nil {
		written = g.log.Bytes()
	}
	return len(g.calls) < maxGroupCommands &&
		written+c.size <= maxGroupBytes &&
		g.entries+max(c.Entries, 1) <= maxGroupEntries
}

// note remembers what hooks are told of an event that is about to be applied.
func (g *group) note(w *writer, ev *pb.Event) error {
	switch body := ev.GetBody().(type) {
	case *pb.Event_MessageEnqueued:
		m := body.MessageEnqueued
		g.entries += len(m.GetTargets())
		for _, t := range m.GetTargets() {
			g.news.Messages = append(g.news.Messages, NewMessage{
				DeviceKey: key32(t.GetDeviceKey()),
				Seq:       t.GetSeq(),
				MessageID: id16(m.GetMessageId()),
				Owner:     id16(m.GetAccountId()),
				Size:      m.GetPayloadSize(),
				Control:   m.GetControl(),
				Channel:   id16(m.GetChannelId()),
			})
		}
	case *pb.Event_ChannelPosted:
		m := body.ChannelPosted
		g.entries += len(m.GetTargets())
		g.news.Messages = slices.Grow(g.news.Messages, len(m.GetTargets()))
		for _, t := range m.GetTargets() {
			g.news.Messages = append(g.news.Messages, NewMessage{
				DeviceKey:  key32(t.GetDeviceKey()),
				Seq:        t.GetSeq(),
				MessageID:  id16(m.GetMessageId()),
				Owner:      id16(m.GetChannelId()),
				Size:       m.GetPayloadSize(),
				Channel:    id16(m.GetChannelId()),
				ChannelSeq: m.GetChannelSeq(),
				Welcome:    m.GetWelcome(),
			})
		}
	case *pb.Event_ChannelMembersChanged:
		m := body.ChannelMembersChanged
		g.news.Members = append(g.news.Members, MembersChanged{
			Channel: id16(m.GetChannelId()), Added: ids16(m.GetAdded()), Removed: ids16(m.GetRemoved()),
		})
	case *pb.Event_SessionsEnded:
		for _, token := range body.SessionsEnded.GetTokenHashes() {
			g.news.Ended = append(g.news.Ended, key32(token))
		}
	case *pb.Event_KeyTransparencyEntry:
		e := body.KeyTransparencyEntry
		if e.GetKind() != uint32(kt.KindRevocation) {
			return nil
		}
		sessions, err := projections.SessionsEndedBy(g.views(w), key32(e.GetId()))
		if err != nil {
			return err
		}
		for i := range sessions {
			g.news.Ended = append(g.news.Ended, sessions[i].TokenHash)
		}
	case *pb.Event_AccountReset:
		sessions, err := projections.SessionsOf(g.views(w), id16(body.AccountReset.GetAccountId()))
		if err != nil {
			return err
		}
		for i := range sessions {
			g.news.Ended = append(g.news.Ended, sessions[i].TokenHash)
		}
	case *pb.Event_KeyPackagesTaken:
		var err error
		g.news.Low, err = ownersOfLow(g.views(w), body.KeyPackagesTaken, g.news.Low)
		return err
	case *pb.Event_UserBanned:
		sessions, err := projections.SessionsOf(g.views(w), id16(body.UserBanned.GetAccountId()))
		if err != nil {
			return err
		}
		for i := range sessions {
			g.news.Ended = append(g.news.Ended, sessions[i].TokenHash)
		}
	case *pb.Event_PasswordChanged:
		sessions, err := projections.SessionsOf(g.views(w), id16(body.PasswordChanged.GetAccountId()))
		if err != nil {
			return err
		}
		kept := key32(body.PasswordChanged.GetKeptSession())
		for _, s := range sessions {
			if s.TokenHash != kept {
				g.news.Ended = append(g.news.Ended, s.TokenHash)
			}
		}
	}
	return nil
}

// key32 copies a key or hash; one of another length is left zero, Apply refuses
// the event.
func key32(b []byte) (k [32]byte) {
	if len(b) == len(k) {
		copy(k[:], b)
	}
	return k
}

func id16(b []byte) (id [16]byte) {
	if len(b) == len(id) {
		copy(id[:], b)
	}
	return id
}

func ids16(list [][]byte) []projections.ID {
	ids := make([]projections.ID, len(list))
	for i, b := range list {
		ids[i] = id16(b)
	}
	return ids
}
