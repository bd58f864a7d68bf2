package projections

import (
	"testing"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

func channelID(name string) ID { return idOf("channel", name) }

func channelCreated(channel, creator string) *pb.ChannelCreated {
	id, account := channelID(channel), accountID(creator)
	return &pb.ChannelCreated{ChannelId: id[:], CreatorId: account[:], Name: []byte("name of " + channel), Description: []byte("text")}
}

func accounts(names []string) (ids [][]byte) {
	for _, name := range names {
		id := accountID(name)
		ids = append(ids, id[:])
	}
	return ids
}

func membersChanged(channel, actor string, added, removed []string) *pb.ChannelMembersChanged {
	id, account := channelID(channel), accountID(actor)
	return &pb.ChannelMembersChanged{ChannelId: id[:], ActorId: account[:], Added: accounts(added), Removed: accounts(removed)}
}

func memberUpdated(channel, name string, joined bool, presence *bool) *pb.ChannelMemberUpdated {
	id, account := channelID(channel), accountID(name)
	return &pb.ChannelMemberUpdated{ChannelId: id[:], AccountId: account[:], Joined: joined, Presence: presence}
}

func channelUpdated(channel, actor string, version uint64) *pb.ChannelUpdated {
	id, account := channelID(channel), accountID(actor)
	return &pb.ChannelUpdated{ChannelId: id[:], ActorId: account[:], Version: version}
}

func posted(n int, channel, from string, seq uint64, expiresMS uint64, targets ...*pb.MessageEnqueued_Target) *pb.ChannelPosted {
	id, message, sender := channelID(channel), messageID(n), accountID(from)
	return &pb.ChannelPosted{
		ChannelId: id[:], MessageId: message[:], SenderId: sender[:], ChannelSeq: seq, Targets: targets,
		PayloadSize: 10, PayloadSha256: bytesOf("payload", n), ExpiresMs: expiresMS,
	}
}

func (w *world) member(channel, name string) ChannelMember {
	w.t.Helper()
	m, found, err := MemberOf(w.reader(), channelID(channel), accountID(name))
	if err != nil || !found {
		w.t.Fatalf("%s in %s: %v, %v", name, channel, found, err)
	}
	return m
}

func (w *world) channel(name string) Channel {
	w.t.Helper()
	c, found, err := ChannelByID(w.reader(), channelID(name))
	if err != nil || !found {
		w.t.Fatalf("channel %s: %v, %v", name, found, err)
	}
	return c
}

func TestChannelMembers(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob", "carol")
	w.do(channelCreated("c", "alice"))
	w.do(membersChanged("c", "alice", []string{"bob", "carol"}, nil))
	w.do(memberUpdated("c", "bob", true, proto.Bool(true)))
	if m := w.member("c", "bob"); m.State != pb.MemberState_JOINED || !m.Shows() || m.JoinedMS != w.now || m.Role != pb.ChannelRole_CHANNEL_MEMBER {
		t.Errorf("bob is %+v", m)
	}
	if m := w.member("c", "carol"); m.State != pb.MemberState_INVITED || m.Receives() {
		t.Errorf("carol is %+v", m)
	}
	channels, err := ChannelsOf(w.reader(), accountID("carol"), 5)
	if err != nil || len(channels) != 1 || channels[0] != channelID("c") {
		t.Errorf("carol is in %x, %v", channels, err)
	}

	w.refuse(channelCreated("c", "alice"), "channel exists")
	w.refuse(channelCreated("d", "nobody"), "account does not exist")
	w.refuse(&pb.ChannelCreated{ChannelId: make([]byte, 15)}, "channel id of 15 bytes")
	long := channelCreated("d", "alice")
	long.Name = make([]byte, MaxChannelName+1)
	w.refuse(long, "a channel name of 1025 bytes")
	odd := channelCreated("d", "alice")
	odd.Settings = &pb.ChannelSettings{Posting: 9}
	w.refuse(odd, "posting rule 9")
	w.refuse(membersChanged("d", "alice", []string{"bob"}, nil), "channel does not exist")
	w.refuse(membersChanged("c", "nobody", []string{"bob"}, nil), "no member of the channel")
	w.refuse(membersChanged("c", "alice", nil, nil), "a change of no members")
	w.refuse(membersChanged("c", "alice", []string{"bob"}, nil), "is a member of the channel")
	w.refuse(membersChanged("c", "alice", []string{"nobody"}, nil), "account does not exist")
	w.refuse(membersChanged("c", "alice", nil, []string{"nobody"}), "removed account is no member")
	w.refuse(membersChanged("c", "alice", nil, []string{"alice"}), "without an owner")
	w.refuse(memberUpdated("c", "bob", true, nil), "has joined")
	w.refuse(memberUpdated("c", "bob", false, nil), "without a change")

	leave := membersChanged("c", "alice", nil, []string{"alice"})
	leave.NewOwner = accounts([]string{"carol"})[0]
	w.do(leave)
	if c := w.channel("c"); c.Members != 2 || c.Owners != 1 || w.member("c", "carol").Role != pb.ChannelRole_CHANNEL_OWNER {
		t.Errorf("after the owner left: %+v", c)
	}
	w.do(membersChanged("c", "carol", nil, []string{"bob", "carol"}))
	if _, found, err := ChannelByID(w.reader(), channelID("c")); found || err != nil {
		t.Errorf("a channel of nobody: %v, %v", found, err)
	}
	if name, text, err := ChannelText(w.reader(), channelID("c")); len(name)+len(text) > 0 || err != nil {
		t.Errorf("its name stayed: %q, %q, %v", name, text, err)
	}
	if channels, err := ChannelsOf(w.reader(), accountID("carol"), 5); len(channels) > 0 || err != nil {
		t.Errorf("carol is in %x, %v", channels, err)
	}
}

func TestChannelMetadata(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob")
	w.do(channelCreated("c", "alice"))
	w.do(membersChanged("c", "alice", []string{"bob"}, nil))
	bob := accounts([]string{"bob"})[0]

	update := channelUpdated("c", "alice", 2)
	update.Name, update.Settings = []byte{}, &pb.ChannelSettings{Posting: pb.PostingRule_POST_ADMINS, TypingOff: true, Presence: true}
	update.Roles = []*pb.ChannelUpdated_Role{{AccountId: bob, Role: pb.ChannelRole_CHANNEL_OWNER}}
	w.do(update)
	name, text, err := ChannelText(w.reader(), channelID("c"))
	c := w.channel("c")
	if err != nil || len(name) > 0 || string(text) != "text" || c.Version != 2 || c.Owners != 2 ||
		c.Settings != (ChannelSettings{Posting: pb.PostingRule_POST_ADMINS, TypingOff: true, Presence: true}) {
		t.Errorf("%+v, %q, %q, %v", c, name, text, err)
	}
	w.refuse(channelUpdated("c", "alice", 2), "version 2 of a channel, the next is 3")
	demote := channelUpdated("c", "alice", 3)
	demote.Roles = []*pb.ChannelUpdated_Role{
		{AccountId: bob, Role: pb.ChannelRole_CHANNEL_MEMBER},
		{AccountId: accounts([]string{"alice"})[0], Role: pb.ChannelRole_CHANNEL_ADMIN},
	}
	w.refuse(demote, "without an owner")
	demote.Roles[1].Role = pb.ChannelRole_CHANNEL_OWNER
	w.refuse(demote, "role 3 for a member of role 3")
	demote.Roles[1].AccountId = accounts([]string{"nobody"})[0]
	w.refuse(demote, "no member of the channel")

	id, alice := channelID("c"), accountID("alice")
	w.do(&pb.ChannelEpochSet{ChannelId: id[:], ActorId: alice[:], Epoch: 7})
	if c := w.channel("c"); c.Epoch != 7 {
		t.Errorf("epoch %d", c.Epoch)
	}
	demote.Roles = demote.Roles[:1]
	w.do(demote)
	w.refuse(&pb.ChannelEpochSet{ChannelId: id[:], ActorId: bob, Epoch: 8}, "set by an owner")
	w.refuse(&pb.ChannelRotationRequested{ChannelId: id[:], ActorId: bob}, "who has joined")
	w.do(&pb.ChannelRotationRequested{ChannelId: id[:], ActorId: alice[:]})
	if c := w.channel("c"); c.Rotation != (Rotation{AskedMS: w.now, By: alice}) {
		t.Errorf("rotation %+v", c.Rotation)
	}
}

// TestPostsShareOnePayload has a post in queues of two accounts: its payload is
// released with the last reference, under the channel, also when the channel is
// gone.
func TestPostsShareOnePayload(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob", "carol", "dave")
	w.do(channelCreated("c", "alice"))
	w.do(membersChanged("c", "alice", []string{"bob", "carol"}, nil))
	w.do(memberUpdated("c", "bob", true, nil))
	expires := w.now + dayMS
	alice, bob, carol, dave := deviceKey("alice"), deviceKey("bob"), deviceKey("carol"), deviceKey("dave")

	w.refuse(posted(1, "c", "alice", 1, expires, target(carol, 1)), "its readers")
	w.refuse(posted(1, "c", "alice", 1, expires, target(dave, 1)), "its readers")
	w.refuse(posted(1, "c", "alice", 2, expires, target(bob, 1)), "post 2 of a channel, the next is 1")
	w.refuse(posted(1, "c", "dave", 1, expires, target(bob, 1)), "no member of the channel")
	w.refuse(posted(1, "d", "alice", 1, expires, target(bob, 1)), "channel does not exist")
	welcome := posted(1, "c", "alice", 0, expires, target(carol, 1))
	welcome.Welcome = true
	w.refuse(welcome, "a Welcome of post 0")
	skipped := posted(1, "c", "alice", 1, expires, target(bob, 1))
	skipped.Skipped = [][]byte{carol[:]}
	w.refuse(skipped, "skipped device is none")

	commit := posted(1, "c", "carol", 1, expires, target(alice, 1), target(bob, 1))
	commit.Commit = true
	w.do(commit)
	if m := w.member("c", "carol"); m.State != pb.MemberState_JOINED || m.CommitSeq != 1 {
		t.Errorf("carol posted and is %+v", m)
	}
	if c := w.channel("c"); c.Epoch != 1 || c.LastSeq != 1 {
		t.Errorf("after a commit: %+v", c)
	}
	items, _, err := QueueItems(w.reader(), bob, 0, 10, 1<<20)
	if err != nil || len(items) != 1 || items[0].Owner != channelID("c") || items[0].Channel != channelID("c") || items[0].ChannelSeq != 1 {
		t.Errorf("bob has %+v, %v", items, err)
	}
	w.do(membersChanged("c", "alice", nil, []string{"bob"}))
	w.do(membersChanged("c", "alice", nil, []string{"carol"}))
	w.do(membersChanged("c", "alice", nil, []string{"alice"}))
	w.reader().Released()
	w.do(acked(bob, 1))
	if released := w.reader().Released(); len(released) != 0 {
		t.Errorf("released while alice's device refers to it: %v", released)
	}
	w.do(acked(alice, 1))
	if released := w.reader().Released(); len(released) != 1 || released[0] != (PayloadRef{Owner: channelID("c"), ID: messageID(1)}) {
		t.Errorf("released %v", released)
	}
}

// TestWelcomedMembersReceive has an invited member get posts from a Welcome on.
func TestWelcomedMembersReceive(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob", "carol")
	w.do(channelCreated("c", "alice"))
	expires := w.now + dayMS
	w.do(posted(1, "c", "alice", 1, expires))
	w.do(membersChanged("c", "alice", []string{"bob", "carol"}, nil))
	bob, carol := deviceKey("bob"), deviceKey("carol")
	welcome := posted(2, "c", "alice", 1, expires, target(bob, 1))
	welcome.Welcome = true
	w.do(welcome)
	w.refuse(posted(3, "c", "alice", 2, expires, target(carol, 1)), "its readers")
	w.do(posted(3, "c", "alice", 2, expires, target(bob, 2)))
	if m := w.member("c", "bob"); !m.Welcomed || m.State != pb.MemberState_INVITED {
		t.Errorf("bob is %+v", m)
	}
	items, _, err := QueueItems(w.reader(), bob, 0, 10, 1<<20)
	if err != nil || len(items) != 2 || !items[0].Welcome || items[1].Welcome {
		t.Errorf("bob has %+v, %v", items, err)
	}
	late := posted(4, "c", "alice", 1, expires, target(bob, 3))
	late.Welcome = true
	w.refuse(late, "a Welcome of post 1, the newest is 2")
}
