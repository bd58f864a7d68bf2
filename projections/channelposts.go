package projections

import (
	pb "quicprochat/proto/qpcv1"
)

// applyChannelPosted puts a post, or a Welcome that came with one, into queues of
// members. Posts of a channel are numbered without holes; a commit moves the
// epoch.
func applyChannelPosted(b *Batch, ev *pb.ChannelPosted, nowMS uint64) error {
	c, sender, err := b.channelOf(ev.GetChannelId(), ev.GetSenderId())
	if err != nil {
		return err
	}
	it, err := itemOf(ev, nowMS)
	if err != nil {
		return err
	}
	it.Owner, it.Channel, it.ChannelSeq, it.Welcome = c.ID, c.ID, ev.GetChannelSeq(), ev.GetWelcome()
	if ev.GetWelcome() {
		return b.welcome(ev, &c, &it)
	}
	if it.ChannelSeq != c.LastSeq+1 {
		return invalid("post %d of a channel, the next is %d", it.ChannelSeq, c.LastSeq+1)
	}
	if err := b.notePoster(&c, &sender, ev, nowMS); err != nil {
		return err
	}
	readers, err := b.membersWho(&c, (*ChannelMember).Receives)
	if err != nil {
		return err
	}
	if err := b.distribute(ev, &it, func(account ID) bool { return readers[account] }); err != nil {
		return err
	}
	return b.putChannel(&c)
}

// notePoster moves what a post moves of channel and sender.
func (b *Batch) notePoster(c *Channel, sender *ChannelMember, ev *pb.ChannelPosted, nowMS uint64) error {
	c.LastSeq++
	before := *sender
	if sender.State != pb.MemberState_JOINED {
		sender.join(nowMS)
	}
	if ev.GetCommit() {
		if c.Settings.CommitOrder != pb.CommitOrder_COMMITS_ORDERED {
			return invalid("a commit in a channel without an epoch")
		}
		c.Epoch++
		sender.CommitSeq = c.LastSeq
	}
	if *sender == before {
		return nil
	}
	return b.putMember(c.ID, sender)
}

// welcome distributes a Welcome; invited members who got it are sent every post
// from now on.
func (b *Batch) welcome(ev *pb.ChannelPosted, c *Channel, it *QueueItem) error {
	if ev.GetCommit() || it.ChannelSeq != c.LastSeq || c.LastSeq == 0 {
		return invalid("a Welcome of post %d, the newest is %d", it.ChannelSeq, c.LastSeq)
	}
	members, err := b.membersWho(c, func(*ChannelMember) bool { return true })
	if err != nil {
		return err
	}
	if err := b.distribute(ev, it, func(account ID) bool { return members[account] }); err != nil {
		return err
	}
	for _, target := range ev.GetTargets() {
		_, q, err := b.queueOf(target.GetDeviceKey())
		if err != nil {
			return err
		}
		m, _, err := MemberOf(b, c.ID, q.Owner)
		if err != nil {
			return err
		}
		if m.Receives() {
			continue
		}
		m.Welcomed = true
		if err := b.putMember(c.ID, &m); err != nil {
			return err
		}
	}
	return nil
}

// membersWho is the set of the members for whom want holds. One scan costs less
// than a look-up for each target.
func (b *Batch) membersWho(c *Channel, want func(*ChannelMember) bool) (map[ID]bool, error) {
	members := make(map[ID]bool, c.Members)
	err := ScanMembers(b, c.ID, ID{}, func(m *ChannelMember) bool {
		if want(m) {
			members[m.Account] = true
		}
		return true
	})
	return members, err
}
