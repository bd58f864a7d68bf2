package sim

import (
	"context"
	"fmt"
	"slices"

	pb "quicprochat/proto/qpcv1"
)

// Noticed is a push that told a device of somebody's coming or going, at a time in Unix
// milliseconds.
type Noticed struct {
	at     uint64
	Device Key
	Who    Key // identity key
}

func (h *History) addNoticed(n Noticed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noticed = append(h.noticed, n)
}

// show has the person's presence be seen in a channel, or not any more.
func (p *Person) show(ctx context.Context, room ID) {
	req := &pb.UpdateGroupMetadataRequest{
		ChannelId: room[:], Fields: []pb.ChannelField{pb.ChannelField_SHARE_PRESENCE}, Presence: p.rng.IntN(3) > 0,
	}
	p.insist(ctx, req, new(pb.UpdateGroupMetadataResponse)) // what changes nothing leaves no receipt
}

// Shown is how long somebody's presence was to be seen in a channel, in Unix
// milliseconds.
type Shown struct{ From, To uint64 }

// showings notes who is to be seen in a channel after an event. One that is gone has
// nobody.
func (m *Model) showings(ev *pb.Event) {
	var channel ID
	switch b := ev.Body.(type) {
	case *pb.Event_ChannelCreated:
		channel = ID(b.ChannelCreated.ChannelId)
	case *pb.Event_ChannelMembersChanged:
		channel = ID(b.ChannelMembersChanged.ChannelId)
	case *pb.Event_ChannelMemberUpdated:
		channel = ID(b.ChannelMemberUpdated.ChannelId)
	case *pb.Event_ChannelUpdated:
		channel = ID(b.ChannelUpdated.ChannelId)
	case *pb.Event_ChannelPosted: // who posts has joined
		channel = ID(b.ChannelPosted.ChannelId)
	default:
		return
	}
	c := m.Channels[channel]
	for seat, all := range m.Shown {
		if open := all[len(all)-1]; seat.Channel == channel && open.To == never && !c.shows(seat.Account) {
			open.To = m.TimeMS
		}
	}
	if c == nil {
		return
	}
	for account := range c.Members {
		seat := Seat{channel, account}
		all := m.Shown[seat]
		if c.shows(account) && (len(all) == 0 || all[len(all)-1].To != never) {
			m.Shown[seat] = append(all, &Shown{m.TimeMS, never})
		}
	}
}

func (c *Channel) shows(account ID) bool {
	if c == nil || !c.Settings.GetPresence() {
		return false
	}
	member := c.Members[account]
	return member != nil && member.Joined && member.Presence
}

// presenceGrace is how long a push may lie behind what it was made of, in
// milliseconds: the server's clock may be wrong, and a sync may hang in between.
const presenceGrace = 60_000

// checkNoticed: somebody's coming and going is told only to those with whom they share
// it in some channel.
func (h *History) checkNoticed(m *Model, add adder) {
	for _, n := range h.noticed {
		who := m.bearers[n.Who]
		reader := m.queueOf(n.Device).Owner
		told := func(seat Seat) bool {
			return slices.ContainsFunc(m.Shown[seat], func(s *Shown) bool { return s.From <= n.at && n.at <= s.To+min(presenceGrace, never-s.To) })
		}
		shared := slices.ContainsFunc(h.rooms(m), func(channel ID) bool { return told(Seat{channel, who}) && told(Seat{channel, reader}) })
		if who == (ID{}) || who == reader || !shared {
			add("a device was told of the presence of somebody who does not share it there")
		}
	}
}

// rooms are all channels that ever were.
func (h *History) rooms(m *Model) (all []ID) {
	for channel := range m.Founded {
		all = append(all, channel)
	}
	return all
}

// EpochFrom is an epoch of a channel, and since when, in Unix milliseconds.
type EpochFrom struct{ Since, Epoch uint64 }

// hadEpoch tells whether a channel had an epoch at a moment of a call.
func (m *Model) hadEpoch(channel ID, epoch uint64, call span) bool {
	all := m.Epochs[channel]
	for i, e := range all {
		until := uint64(never)
		if i+1 < len(all) {
			until = all[i+1].Since
		}
		if e.Epoch == epoch && e.Since <= call.end && call.start <= until {
			return true
		}
	}
	return false
}

// repair sets the epoch of a channel, as its owner may when channel and group fell
// apart, forwards or back. From then on nobody knows which epochs come.
func (p *Person) repair(ctx context.Context, room ID) {
	info := p.list(ctx, room)
	if info == nil {
		return
	}
	epoch := info.Epoch + 1 + p.rng.Uint64N(5)
	if p.rng.IntN(3) == 0 {
		epoch = p.rng.Uint64N(info.Epoch + 1)
	}
	req := &pb.UpdateGroupMetadataRequest{ChannelId: room[:], Fields: []pb.ChannelField{pb.ChannelField_SET_EPOCH}, SetEpoch: epoch}
	p.world.History.mayRepair(room)
	resp := new(pb.UpdateGroupMetadataResponse)
	s := begin()
	outcome := p.insist(ctx, req, resp)
	s.finish()
	if outcome != Done {
		return
	}
	if resp.Epoch != epoch {
		p.world.History.Wrong(fmt.Sprintf("%s set epoch %d, and it is %d", p.name, epoch, resp.Epoch))
	}
	p.world.History.addRepair()
	p.rooms[room] = progress{epoch: epoch}
	p.fact(s, "repair", func(m *Model) error {
		if !m.hadEpoch(room, epoch, s) {
			return fmt.Errorf("channel %x had no epoch %d then", room, epoch)
		}
		return nil
	})
}

func (h *History) addRepair() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repairs++
}

// mayRepair notes that somebody asks for another epoch of a channel.
func (h *History) mayRepair(room ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.repaired == nil {
		h.repaired = map[ID]bool{}
	}
	h.repaired[room] = true
}

func (h *History) mayBeRepaired(room ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.repaired[room]
}
