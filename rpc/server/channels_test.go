package server_test

import (
	"bytes"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/server"
)

// awaitPush reads pushes until one of a type comes: what else is told on the way
// is not this test's.
func awaitPush[M proto.Message](c *conn, kind pb.PushType) M {
	c.t.Helper()
	for {
		stream, err := c.AcceptUniStream(testContext(c.t))
		if err != nil {
			c.t.Fatalf("no push %v: %v", kind, err)
		}
		b, err := io.ReadAll(stream)
		if err != nil {
			c.t.Fatal(err)
		}
		h, body, err := rpc.ParsePush(b, rpc.MaxPush)
		if err != nil {
			c.t.Fatal(err)
		}
		if h.Type != uint16(kind) {
			continue
		}
		var none M
		m := none.ProtoReflect().New().Interface().(M)
		if err := proto.Unmarshal(body, m); err != nil {
			c.t.Fatal(err)
		}
		return m
	}
}

// bind makes a call with a person's token, so that pushes come.
func (p *person) bind(c *conn) {
	must[*pb.PeekResponse](c, &pb.PeekRequest{SessionToken: p.token})
}

func (p *person) update(c *conn, channel []byte, change *pb.UpdateGroupMetadataRequest) *pb.UpdateGroupMetadataResponse {
	change.SessionToken, change.RequestId, change.ChannelId = p.token, newRequestID(), channel
	return must[*pb.UpdateGroupMetadataResponse](c, change)
}

// TestChannelStory takes three people through a channel on the wire, with what each
// connected device is pushed.
func TestChannelStory(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	carol, c := w.join("carol")
	alice.bind(a)
	bob.bind(b)
	carol.bind(c)

	channel := must[*pb.CreateChannelResponse](a, &pb.CreateChannelRequest{
		SessionToken: alice.token, RequestId: newRequestID(), Name: []byte("sealed"), Members: [][]byte{public(bob.identity)},
		Settings: &pb.ChannelSettings{Presence: true},
	}).GetChannelId()
	added := awaitPush[*pb.PushMembership](b, pb.PushType_MEMBERSHIP)
	if who := added.GetItem().GetMemberAdded(); added.GetSeq() != 0 || !bytes.Equal(who.GetIdentityKey(), public(bob.identity)) || !bytes.Equal(who.GetChannelId(), channel) {
		t.Errorf("bob was told %v", added)
	}
	bob.update(b, channel, &pb.UpdateGroupMetadataRequest{Fields: []pb.ChannelField{pb.ChannelField_ACCEPT, pb.ChannelField_SHARE_PRESENCE}, Presence: true})
	alice.update(a, channel, &pb.UpdateGroupMetadataRequest{Fields: []pb.ChannelField{pb.ChannelField_SHARE_PRESENCE}, Presence: true})

	epoch := uint64(0)
	post := &pb.BatchEnqueueRequest{
		SessionToken: alice.token, RequestId: newRequestID(), ChannelId: channel, Payload: []byte("commit"), ExpectedEpoch: &epoch,
		AddMembers: [][]byte{public(carol.identity)},
		Welcomes:   []*pb.Welcome{{RecipientKeys: [][]byte{public(carol.identity)}, Payload: []byte("welcome")}},
	}
	reply := must[*pb.BatchEnqueueResponse](a, post)
	if reply.GetChannelSeq() != 1 || reply.GetEpoch() != 1 || len(reply.GetResults()) != 1 {
		t.Errorf("the commit got %v", reply)
	}
	if again := must[*pb.BatchEnqueueResponse](a, post); !proto.Equal(again, reply) {
		t.Errorf("repeated: %v, not %v", again, reply)
	}
	news := awaitPush[*pb.PushNewMessage](b, pb.PushType_NEW_MESSAGE)
	if string(news.GetPayload()) != "commit" || news.GetChannelSeq() != 1 || !bytes.Equal(news.GetChannelId(), channel) {
		t.Errorf("bob's push: %v", news)
	}
	welcome := awaitPush[*pb.PushNewMessage](c, pb.PushType_NEW_MESSAGE)
	if string(welcome.GetPayload()) != "welcome" || !welcome.GetWelcome() {
		t.Errorf("carol's push: %v", welcome)
	}
	stale := b.refused(&pb.BatchEnqueueRequest{
		SessionToken: bob.token, RequestId: newRequestID(), ChannelId: channel, Payload: []byte("too late"), ExpectedEpoch: &epoch,
	}, pb.Status_BadRequest, pb.Reason_STALE_EPOCH)
	if stale.GetCurrentEpoch() != 1 {
		t.Errorf("the stale commit was told epoch %d", stale.GetCurrentEpoch())
	}

	unchanged := w.unchanged()
	typing := must[*pb.EnqueueResponse](b, &pb.EnqueueRequest{
		SessionToken: bob.token, RequestId: newRequestID(), ChannelId: channel, Class: pb.MessageClass_EPHEMERAL, Payload: []byte("typing"),
	})
	unchanged()
	if !proto.Equal(typing, &pb.EnqueueResponse{}) {
		t.Errorf("an EPHEMERAL message is answered with %v", typing)
	}
	told := awaitPush[*pb.PushTyping](a, pb.PushType_TYPING)
	if string(told.GetPayload()) != "typing" || !bytes.Equal(told.GetSenderKey(), public(bob.identity)) || !bytes.Equal(told.GetChannelId(), channel) {
		t.Errorf("alice's push: %v", told)
	}

	must[*pb.RotateKeysResponse](a, &pb.RotateKeysRequest{SessionToken: alice.token, RequestId: newRequestID(), ChannelId: channel})
	rotate := awaitPush[*pb.PushMembership](c, pb.PushType_MEMBERSHIP)
	for rotate.GetItem().GetKeyRotationRequested() == nil { // that carol was added comes first
		rotate = awaitPush[*pb.PushMembership](c, pb.PushType_MEMBERSHIP)
	}
	if rotate.GetSeq() != 2 {
		t.Errorf("carol was asked to rotate keys by %v, which must stand in her queue behind the Welcome", rotate)
	}
	must[*pb.RemoveMemberResponse](a, &pb.RemoveMemberRequest{
		SessionToken: alice.token, RequestId: newRequestID(), ChannelId: channel, IdentityKey: public(carol.identity),
	})
	for {
		gone := awaitPush[*pb.PushMembership](c, pb.PushType_MEMBERSHIP).GetItem().GetMemberRemoved()
		if bytes.Equal(gone.GetIdentityKey(), public(carol.identity)) {
			break
		}
	}

	b.CloseWithError(0, "")
	gone := awaitPush[*pb.PushPresence](a, pb.PushType_PRESENCE)
	if gone.GetOnline() { // that he came is told when the server gets to it, which may be once both share
		gone = awaitPush[*pb.PushPresence](a, pb.PushType_PRESENCE)
	}
	if gone.GetOnline() || !bytes.Equal(gone.GetIdentityKey(), public(bob.identity)) {
		t.Errorf("alice was told %v when bob went", gone)
	}
	bob.bind(w.dial())
	if back := awaitPush[*pb.PushPresence](a, pb.PushType_PRESENCE); !back.GetOnline() {
		t.Errorf("alice was told %v when bob came back", back)
	}
}

// TestPresenceIsOptIn has people connect who do not share presence: all that alice is
// told is about the one who does, and her coming at most once.
func TestPresenceIsOptIn(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	carol, c := w.join("carol")
	var keys [][]byte
	for _, p := range []*person{bob, carol} {
		keys = append(keys, public(p.identity))
	}
	channel := must[*pb.CreateChannelResponse](a, &pb.CreateChannelRequest{
		SessionToken: alice.token, RequestId: newRequestID(), Members: keys, Settings: &pb.ChannelSettings{Presence: true},
	}).GetChannelId()
	share := func(p *person, c *conn, presence bool) {
		p.update(c, channel, &pb.UpdateGroupMetadataRequest{
			Fields: []pb.ChannelField{pb.ChannelField_ACCEPT, pb.ChannelField_SHARE_PRESENCE}, Presence: presence,
		})
	}
	share(alice, a, true)
	share(bob, b, false)
	share(carol, c, true)
	b.CloseWithError(0, "")
	bob.bind(w.dial())
	second := w.dial()
	carol.bind(second) // she is there already
	c.CloseWithError(0, "")
	second.CloseWithError(0, "")
	// That carol came is told when the server gets to it, which may be once she shares.
	for came := 0; ; came++ {
		told := awaitPush[*pb.PushPresence](a, pb.PushType_PRESENCE)
		if !bytes.Equal(told.GetIdentityKey(), public(carol.identity)) || told.GetOnline() && came > 0 {
			t.Fatalf("alice was told %v, not that carol went", told)
		}
		if !told.GetOnline() {
			return
		}
	}
}

// TestChannelRates holds the budgets of channels.
func TestChannelRates(t *testing.T) {
	w := boot(t, func(c *server.Config) { c.Limits = server.LimitsDefault })
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	channel := must[*pb.CreateChannelResponse](a, &pb.CreateChannelRequest{
		SessionToken: alice.token, RequestId: newRequestID(), Members: [][]byte{public(bob.identity)},
	}).GetChannelId()
	bob.update(b, channel, &pb.UpdateGroupMetadataRequest{Fields: []pb.ChannelField{pb.ChannelField_ACCEPT}})
	post := func(payload string) reply {
		return a.send(&pb.BatchEnqueueRequest{SessionToken: alice.token, RequestId: newRequestID(), ChannelId: channel, Payload: []byte(payload)})
	}
	for range 60 {
		if r := post("x"); r.status != pb.Status_Ok {
			t.Fatalf("within the budget: %v", r.detail)
		}
	}
	refusals := 0
	for range 20 { // a second gives one back
		if r := post("x"); r.status == pb.Status_RateLimited && r.detail.GetReason() == pb.Reason_RATE {
			refusals++
		}
	}
	if refusals == 0 {
		t.Error("80 posts at once were all taken")
	}
}
