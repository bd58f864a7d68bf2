package client_test

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// next gives the next push that is none of new messages.
func next(t *testing.T, pushes <-chan client.Push) client.Push {
	t.Helper()
	for push := range pushes {
		if push.Type != pb.PushType_NEW_MESSAGE {
			return push
		}
	}
	t.Fatal("no more pushes")
	return client.Push{}
}

// subscribe waits until the server knows whose connection this is.
func (u *user) subscribe(t *testing.T) <-chan client.Push {
	t.Helper()
	pushes := u.Subscribe(t.Context())
	if first := <-pushes; !first.NewMessage.GetResync() {
		t.Fatalf("the first push is %v", first)
	}
	return pushes
}

// TestDevicesOnTheRealServer links a second device, which reads what the account
// gets from then on, and takes it out again: it is told nothing more.
func TestDevicesOnTheRealServer(t *testing.T) {
	l := startLive(t)
	ctx := t.Context()
	alice, bob := l.join("alice"), l.join("bob")
	pushes := alice.subscribe(t)

	_, key, _ := ed25519.GenerateKey(nil)
	device := key.Public().(ed25519.PublicKey)
	identity := alice.identity.Public().(ed25519.PublicKey)
	// The new device proves the password and may link itself, and no more.
	phone := &user{Client: l.dial(), name: "alice", identity: alice.identity, device: key}
	session, err := phone.Login(ctx, "alice", alice.password, key)
	if err != nil || session.Scope != pb.SessionScope_ENROLL_ONLY {
		t.Fatalf("scope %v, %v", session, err)
	}
	if _, err := phone.Peek(ctx, new(pb.PeekRequest)); client.ReasonOf(err) != pb.Reason_SCOPE {
		t.Errorf("a device that is not linked reads: %v", err)
	}
	known, err := alice.ListDevices(ctx)
	if err != nil || len(known.Devices) != 1 || len(known.Active()) != 1 {
		t.Fatalf("%+v, %v", known, err)
	}
	linked, err := alice.RegisterDevice(ctx, client.NewDevice{Identity: alice.identity, Known: known, Consent: phone.Consent(identity, key)})
	if err != nil || len(linked.GetDeviceKeys()) != 2 || !bytes.Equal(linked.GetDeviceKeys()[1], device) {
		t.Fatalf("linked: %v, %v", linked, err)
	}
	_, third, _ := ed25519.GenerateKey(nil)
	if _, err := alice.RegisterDevice(ctx, client.NewDevice{Identity: alice.identity, Known: known, Consent: phone.Consent(identity, third)}); client.ReasonOf(err) != pb.Reason_KEYSET_VERSION {
		t.Errorf("with a list of before: %v", err)
	}
	if push := next(t, pushes); push.Type != pb.PushType_MEMBERSHIP || push.Membership.GetSeq() == 0 || !bytes.Equal(push.Membership.GetItem().GetDeviceAdded().GetDeviceKey(), device) {
		t.Errorf("the other device is told %v", push)
	}

	// It logs in with its key and gets what the account gets.
	if session, err = phone.Login(ctx, "alice", alice.password, key); err != nil || session.Scope != pb.SessionScope_DEVICE {
		t.Fatalf("scope %v, %v", session, err)
	}
	if _, err := bob.Enqueue(ctx, alice.to("to both")); err != nil {
		t.Fatal(err)
	}
	last := uint64(0) // number of the newest item in the phone's queue
	for _, u := range []*user{alice, phone} {
		var got []string
		page, err := u.Fetch(ctx, &pb.FetchRequest{AfterSeq: new(uint64)})
		for _, envelope := range page.GetEnvelopes() {
			last = envelope.GetSeq()
			if payload := envelope.GetPayload(); payload != nil {
				got = append(got, string(payload))
			}
		}
		if err != nil || len(got) != 1 || got[0] != "to both" {
			t.Errorf("device %x reads %q, %v", u.device.Public(), got, err)
		}
	}

	// The removed device's session ends while it is connected, and no new one begins.
	if known, err = alice.ListDevices(ctx); err != nil || len(known.Active()) != 2 || known.RotationDue {
		t.Fatalf("%+v, %v", known, err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := phone.FetchWait(ctx, &pb.FetchWaitRequest{AfterSeq: &last, TimeoutMs: 60_000})
		waited <- err
	}()
	removed, err := alice.RevokeDevice(ctx, client.LostDevice{Device: device, Reason: statement.ReasonKeyCompromise, Identity: alice.identity, Known: known})
	if err != nil || len(removed.GetDeviceKeys()) != 1 {
		t.Fatalf("removed: %v, %v", removed, err)
	}
	if push := next(t, pushes); !bytes.Equal(push.Membership.GetItem().GetDeviceRemoved().GetDeviceKey(), device) {
		t.Errorf("the other device is told %v", push)
	}
	if err := <-waited; client.ReasonOf(err) != pb.Reason_TOKEN_INVALID {
		t.Errorf("the removed device's wait for messages ends with %v", err)
	}
	if _, err := phone.Peek(ctx, new(pb.PeekRequest)); client.ReasonOf(err) != pb.Reason_TOKEN_INVALID {
		t.Errorf("the removed device reads: %v", err)
	}
	if session, err = phone.Login(ctx, "alice", alice.password, key); err != nil || session.Scope != pb.SessionScope_ENROLL_ONLY {
		t.Errorf("the removed device logs in: %+v, %v", session, err)
	}
	if known, err = alice.ListDevices(ctx); err != nil || len(known.Active()) != 1 || len(known.Devices) != 1 {
		t.Errorf("%+v, %v", known, err)
	}
	if _, err := alice.RegisterDevice(ctx, client.NewDevice{Identity: alice.identity, Known: known, Consent: phone.Consent(identity, key)}); client.ReasonOf(err) != pb.Reason_KEY_REVOKED {
		t.Errorf("the removed key comes back: %v", err)
	}
}

// TestChannelPushes: who came into a channel and left it (1003), who is typing
// (1001), and who is there (1002), as the SDK tells it.
func TestChannelPushes(t *testing.T) {
	l := startLive(t)
	ctx := t.Context()
	alice, bob, carol := l.join("alice"), l.join("bob"), l.join("carol")
	key := func(u *user) []byte { return u.identity.Public().(ed25519.PublicKey) }
	pushes := alice.subscribe(t)

	created, err := alice.CreateChannel(ctx, &pb.CreateChannelRequest{Members: [][]byte{key(bob)}, Settings: &pb.ChannelSettings{Presence: true}})
	if err != nil {
		t.Fatal(err)
	}
	channel := created.GetChannelId()
	for _, u := range []*user{alice, bob} {
		fields := []pb.ChannelField{pb.ChannelField_SHARE_PRESENCE}
		if u == bob {
			fields = append(fields, pb.ChannelField_ACCEPT)
		}
		if _, err := u.UpdateGroupMetadata(ctx, &pb.UpdateGroupMetadataRequest{ChannelId: channel, Fields: fields, Presence: true}); err != nil {
			t.Fatal(err)
		}
	}
	// want skips pushes of other kinds until one fits.
	want := func(what string, fits func(client.Push) bool) {
		t.Helper()
		for push := range pushes {
			if fits(push) {
				return
			}
		}
		t.Fatalf("never: %s", what)
	}
	if _, err := bob.Enqueue(ctx, &pb.EnqueueRequest{ChannelId: channel, Class: pb.MessageClass_EPHEMERAL, Payload: []byte("typing")}); err != nil {
		t.Fatal(err)
	}
	want("bob is typing", func(p client.Push) bool {
		return p.Type == pb.PushType_TYPING && string(p.Typing.GetPayload()) == "typing" && bytes.Equal(p.Typing.GetSenderKey(), key(bob))
	})
	if _, err := alice.AddMember(ctx, &pb.AddMemberRequest{ChannelId: channel, Members: [][]byte{key(carol)}}); err != nil {
		t.Fatal(err)
	}
	want("carol was added", func(p client.Push) bool {
		who := p.Membership.GetItem().GetMemberAdded()
		return p.Type == pb.PushType_MEMBERSHIP && p.Membership.GetSeq() == 0 && bytes.Equal(who.GetIdentityKey(), key(carol))
	})
	if _, err := carol.RemoveMember(ctx, &pb.RemoveMemberRequest{ChannelId: channel, IdentityKey: key(carol)}); err != nil {
		t.Fatal(err)
	}
	want("carol left", func(p client.Push) bool {
		who := p.Membership.GetItem().GetMemberRemoved()
		return p.Type == pb.PushType_MEMBERSHIP && bytes.Equal(who.GetIdentityKey(), key(carol))
	})
	if err := bob.Close(); err != nil {
		t.Fatal(err)
	}
	want("bob is gone", func(p client.Push) bool {
		return p.Type == pb.PushType_PRESENCE && !p.Presence.GetOnline() && bytes.Equal(p.Presence.GetIdentityKey(), key(bob))
	})
	again := l.dial()
	if _, err := again.Login(ctx, "bob", bob.password, bob.device); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Peek(ctx, new(pb.PeekRequest)); err != nil {
		t.Fatal(err)
	}
	want("bob is back", func(p client.Push) bool {
		return p.Type == pb.PushType_PRESENCE && p.Presence.GetOnline() && bytes.Equal(p.Presence.GetIdentityKey(), key(bob))
	})
}
