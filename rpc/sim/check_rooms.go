package sim

import (
	"cmp"
	"maps"
	"slices"
)

// checkRooms: one order of posts for all, one commit for each epoch, one change for
// each version, nothing for those who are gone, and nothing kept of what passes.
func (h *History) checkRooms(m *Model, add adder) {
	h.checkPostOrder(add)
	h.checkSeenPosts(m, add)
	h.checkParted(m, add)
	h.checkPassed(m, add)
	h.checkNoticed(m, add)
	type version struct {
		channel ID
		number  uint64
	}
	changed := map[version]bool{}
	for _, c := range h.changed {
		if v := (version{c.Channel, c.Version}); c.Outcome == Done {
			if changed[v] {
				add("two changes of version %d of a channel were acknowledged", c.Version)
			}
			changed[v] = true
		}
	}
}

// checkPost holds an acknowledged post against its message in the log.
func (h *History) checkPost(s *Sent, m *Model, add adder) {
	msg := m.Messages[s.Message]
	want := Post{Channel: s.Channel, Seq: s.Seq, Welcome: s.Welcome, Commit: s.Epoch != nil}
	got := msg.Post
	if want.Commit {
		want.Epoch = *s.Epoch
	} else {
		got.Epoch = 0
	}
	if sender := m.Accounts[s.By.name]; sender == nil || msg.Sender != sender.ID || got != want {
		add("post %+v of %s is stored as %+v", want, s.By.name, got)
	}
	h.checkStored(s, msg, add)
}

// checkPostOrder: of two acknowledged posts, numbers differ, and the one that was
// acknowledged before the other was sent has the smaller one; so have commits epochs.
func (h *History) checkPostOrder(add adder) {
	for i, a := range h.sent {
		if a.Outcome != Done || a.Channel == (ID{}) || a.Welcome {
			continue
		}
		for _, b := range h.sent[i+1:] {
			if b.Outcome != Done || a.Channel != b.Channel || b.Welcome {
				continue
			}
			first, second := a, b
			if b.before(a.span) {
				first, second = b, a
			}
			ordered := first.before(second.span)
			commits := a.Epoch != nil && b.Epoch != nil && !h.repaired[a.Channel]
			switch {
			case a.Seq == b.Seq:
				add("two posts got number %d", a.Seq)
			case ordered && first.Seq > second.Seq:
				add("post %d was acknowledged before post %d was sent", first.Seq, second.Seq)
			case commits && *a.Epoch == *b.Epoch:
				add("two commits of epoch %d were acknowledged", *a.Epoch)
			case commits && (first.Seq < second.Seq) != (*first.Epoch < *second.Epoch):
				add("commit %d of epoch %d and commit %d of epoch %d", first.Seq, *first.Epoch, second.Seq, *second.Epoch)
			}
		}
	}
}

// checkSeenPosts: each device gets the posts of a channel in their order, and each
// number names the same message for all.
func (h *History) checkSeenPosts(m *Model, add adder) {
	queues := map[Key]map[uint64]Seen{}
	for _, r := range h.reads {
		for _, s := range r.Seen {
			if s.Post.Seq > 0 && !s.Post.Welcome {
				if queues[r.Device] == nil {
					queues[r.Device] = map[uint64]Seen{}
				}
				queues[r.Device][s.Seq] = s
			}
		}
	}
	type place struct {
		channel ID
		seq     uint64
	}
	posts := map[place]ID{}
	for _, queue := range queues {
		last := map[ID]uint64{}
		for _, seq := range slices.SortedFunc(maps.Keys(queue), cmp.Compare) {
			s := queue[seq]
			if s.Post.Seq <= last[s.Post.Channel] {
				add("post %d came after post %d", s.Post.Seq, last[s.Post.Channel])
			}
			last[s.Post.Channel] = s.Post.Seq
			at := place{s.Post.Channel, s.Post.Seq}
			if other, known := posts[at]; known && other != s.Message {
				add("post %d is one message for some and another for others", s.Post.Seq)
			}
			posts[at] = s.Message
		}
	}
}

// checkParted: who was acknowledged to be out of a channel, and whom nobody tried to
// get back, neither gets nor sends a post that began after that.
func (h *History) checkParted(m *Model, add adder) {
	type got struct {
		account ID
		hash    [32]byte
	}
	gotten := map[got]bool{}
	for _, r := range h.reads {
		for _, s := range r.Seen {
			if s.Post.Channel != (ID{}) {
				gotten[got{m.Queues[r.Device].Owner, s.Hash}] = true
			}
		}
	}
	for _, p := range h.parted {
		account := m.Accounts[p.Who.name]
		if p.Outcome != Done || account == nil {
			continue
		}
		for _, s := range h.sent {
			if s.Channel != p.Channel || s.Outcome != Done || s.start <= p.end || h.mayBeBack(p, s.end) {
				continue
			}
			if gotten[got{account.ID, s.Hash}] {
				add("%s was out of a channel and got a post that was sent later", p.Who.name)
			}
			if s.By == p.Who {
				add("%s was out of a channel, and a post of theirs was accepted later", p.Who.name)
			}
		}
	}
}

// mayBeBack tells whether somebody tried to get a person back into a channel before a
// time.
func (h *History) mayBeBack(p *Parted, until uint64) bool {
	return slices.ContainsFunc(h.invited, func(i *Invited) bool {
		return i.Who == p.Who && i.Channel == p.Channel && i.start <= until &&
			(i.Outcome == Unknown || i.Outcome == Done && i.end >= p.start)
	})
}

// checkPassed: an EPHEMERAL message is never stored, and only those hear it who are in
// the channel, after it was sent, from somebody who is.
func (h *History) checkPassed(m *Model, add adder) {
	for _, msg := range m.Messages {
		if h.passed[msg.SHA256] != nil {
			add("an EPHEMERAL message is stored")
		}
	}
	for _, heard := range h.heard {
		passed := h.passed[heard.Hash]
		if passed == nil || passed.Channel != heard.Channel || passed.Outcome == Refused || passed.start > heard.at {
			add("a device was told an EPHEMERAL message that nobody sent there")
			continue
		}
		// It was judged between its sending and its coming.
		judged := span{passed.start, min(passed.end, heard.at)}
		for _, account := range []ID{m.Queues[heard.Device].Owner, m.Accounts[passed.By.name].ID} {
			if !slices.ContainsFunc(m.Stays[Seat{passed.Channel, account}], func(s *Stay) bool { return s.Joined <= judged.end && s.within(judged) }) {
				add("an EPHEMERAL message went from or to somebody who is not in the channel")
			}
		}
	}
}
