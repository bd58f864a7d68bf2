package commands_test

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// settleIn makes so many accounts with a device and a session each, called person 0,
// person 1, …: by their events alone, for a crowd is dear to register.
func (w *world) settleIn(people int) {
	_, err := w.engine.Do(w.t.Context(), &commands.Command{Auth: pb.Auth_NONE, Decide: func(tx *commands.Tx) (proto.Message, error) {
		for i := range people {
			name := fmt.Sprint("person ", i)
			account, identity, device, token := seedFrom("account of "+name), keyOfPerson(i), seedFrom("device of "+name), seedFrom("token of "+name)
			hash := sha256.Sum256(token[:])
			w.tokens[name] = token[:]
			err := tx.Emit(&pb.Event{Body: &pb.Event_AccountRegistered{AccountRegistered: &pb.AccountRegistered{
				AccountId: account[:16], Username: fmt.Sprint("person", i), IdentityKey: identity, DeviceKey: device[:],
				Opaque:           &pb.OpaqueRecord{Upload: recordOf(name), CredentialId: make([]byte, 32), KeyVersion: 1},
				RegistrationHash: make([]byte, 32),
			}}})
			if err != nil {
				return nil, err
			}
			err = tx.Emit(&pb.Event{Body: &pb.Event_SessionStarted{SessionStarted: &pb.SessionStarted{
				TokenHash: hash[:], AccountId: account[:16], DeviceKey: device[:], Scope: pb.SessionScope_DEVICE,
				ExpiresMs: tx.Now() + commands.SessionLifetimeMS,
			}}})
			if err != nil {
				return nil, err
			}
		}
		return nil, nil
	}})
	w.check(err)
}

func keyOfPerson(i int) []byte {
	key := seedFrom(fmt.Sprint("identity of person ", i))
	return key[:]
}

func keysOfPeople(from, to int) (keys [][]byte) {
	for i := from; i < to; i++ {
		keys = append(keys, keyOfPerson(i))
	}
	return keys
}

// ask sends a request in the name of a person.
func (w *world) ask(i int, req proto.Message) (proto.Message, error) {
	setBytes(req, "session_token", w.tokens[fmt.Sprint("person ", i)])
	if _, is := req.(interface{ GetRequestId() []byte }); is {
		w.counts["request"]++
		setBytes(req, "request_id", w.requestID(fmt.Sprint("#", w.counts["request"]), 0))
	}
	method, _ := rpc.MethodOf(req)
	return w.dispatch(method, req)
}

// waiting is how many messages a person's device has, and the newest one's id.
func (w *world) waiting(view *commands.View, i int) (n int, newest projections.ID) {
	items, _, err := projections.QueueItems(view.Reader, seedFrom(fmt.Sprint("device of person ", i)), 1, 100, 1<<30)
	w.check(err)
	for _, it := range items {
		n, newest = n+1, it.MessageID
	}
	return n, newest
}

// countMembers goes through all pages of a channel's members.
func (w *world) countMembers(channel []byte) (told, counted int) {
	req := &pb.ListGroupMembersRequest{ChannelId: channel}
	for {
		answer, err := w.ask(0, req)
		w.check(err)
		page := answer.(*pb.ListGroupMembersResponse)
		told, counted = int(page.GetChannel().GetMembers()), counted+len(page.GetMembers())
		if !page.GetMore() {
			return told, counted
		}
		req.After = page.GetMembers()[len(page.GetMembers())-1].GetIdentityKey()
	}
}

// TestFullChannel: 1,000 people are in a channel and no more, whichever way one would
// come in, and a post reaches all of them but the sending device.
func TestFullChannel(t *testing.T) {
	const most = commands.MaxChannelMembers
	inWorld(t, true, func(t *testing.T, w *world) {
		w.settleIn(most + 2)
		w.counts["request"] = 0
		wantRefusal(t, "a channel of 1,001", pb.Reason_TOO_MANY_ITEMS, most-1, func() error {
			_, err := w.ask(0, &pb.CreateChannelRequest{Members: keysOfPeople(1, most+1)})
			return err
		})
		answer, err := w.ask(0, &pb.CreateChannelRequest{Members: keysOfPeople(1, most-1)})
		w.check(err)
		channel := answer.(*pb.CreateChannelResponse).GetChannelId()
		for i, want := range []uint32{1, 0} { // the thousandth, and once more the same
			answer, err := w.ask(0, &pb.AddMemberRequest{ChannelId: channel, Members: keysOfPeople(most-1, most)})
			if added := answer.(*pb.AddMemberResponse).GetAdded(); err != nil || added != want {
				t.Fatalf("call %d added %d (%v)", i, added, err)
			}
		}
		w.acceptAll(channel, most)
		size := w.log.Size()
		for name, req := range map[string]proto.Message{
			"AddMember":           &pb.AddMemberRequest{ChannelId: channel, Members: keysOfPeople(most, most+1)},
			"AddMember, also old": &pb.AddMemberRequest{ChannelId: channel, Members: keysOfPeople(most-1, most+2)},
			"UpdateGroupMetadata": &pb.UpdateGroupMetadataRequest{
				ChannelId: channel, Fields: []pb.ChannelField{pb.ChannelField_ADD_MEMBERS}, AddMembers: keysOfPeople(most, most+1),
			},
			"BatchEnqueue": &pb.BatchEnqueueRequest{
				ChannelId: channel, Payload: []byte("commit"), ExpectedEpoch: proto.Uint64(0), AddMembers: keysOfPeople(most, most+1),
			},
		} {
			wantRefusal(t, name, pb.Reason_CHANNEL_FULL, most, func() error {
				_, err := w.ask(0, req)
				return err
			})
		}
		if told, counted := w.countMembers(channel); w.log.Size() != size || told != most || counted != most {
			t.Errorf("%d records of refusals; the channel tells of %d members, and lists %d", w.log.Size()-size, told, counted)
		}
		w.postToAll(t, channel, most)
		// What a post allocates is not a matter of how many members there are.
		least := uint64(most)
		for range 4 {
			before := mallocs()
			_, err := w.ask(7, &pb.BatchEnqueueRequest{ChannelId: channel, Payload: []byte("once more")})
			w.check(err)
			least = min(least, mallocs()-before)
		}
		if least > most/2 {
			t.Errorf("a post to %d members makes %d allocations", most, least)
		}
		// One for another: the room that a removal makes counts at once.
		_, err = w.ask(0, &pb.BatchEnqueueRequest{
			ChannelId: channel, Payload: []byte("commit"), ExpectedEpoch: proto.Uint64(0),
			RemoveMembers: keysOfPeople(5, 6), AddMembers: keysOfPeople(most, most+1),
		})
		if told, counted := w.countMembers(channel); err != nil || told != most || counted != most {
			t.Errorf("after one for another: %v; the channel tells of %d members, and lists %d", err, told, counted)
		}
	})
}

// acceptAll has everybody but the owner join, many at once.
func (w *world) acceptAll(channel []byte, people int) {
	method, _ := rpc.MethodByName("UpdateGroupMetadata")
	errs := make(chan error, people)
	var all sync.WaitGroup
	for i := 1; i < people; i++ {
		req := &pb.UpdateGroupMetadataRequest{
			SessionToken: w.tokens[fmt.Sprint("person ", i)], RequestId: w.requestID(fmt.Sprint("accept ", i), 0),
			ChannelId: channel, Fields: []pb.ChannelField{pb.ChannelField_ACCEPT},
		}
		all.Go(func() {
			_, err := w.dispatch(method, req)
			errs <- err
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		w.check(err)
	}
}

func (w *world) postToAll(t *testing.T, channel []byte, people int) {
	t.Helper()
	answer, err := w.ask(7, &pb.BatchEnqueueRequest{ChannelId: channel, Payload: []byte("hello all")})
	w.check(err)
	post := projections.ID(answer.(*pb.BatchEnqueueResponse).GetMessageId())
	view := w.view()
	defer view.Release()
	for i := range people {
		n, newest := w.waiting(view, i)
		if sender := i == 7; sender && n != 0 || !sender && (n != 1 || newest != post) {
			t.Fatalf("person %d has %d messages, the newest %x", i, n, newest)
		}
	}
	if n, _ := w.waiting(view, people); n != 0 {
		t.Errorf("somebody who is not in the channel has %d messages", n)
	}
	payload, found, err := w.engine.Payload(projections.ID(channel), post)
	if err != nil || !found || string(payload) != "hello all" {
		t.Errorf("the payload is %q (found %v, %v)", payload, found, err)
	}
}

func wantRefusal(t *testing.T, what string, reason pb.Reason, limit uint64, call func() error) {
	t.Helper()
	err := call()
	if refusal := commands.AsRefusal(err); refusal == nil || refusal.Status != pb.Status_BadRequest || refusal.Reason != reason || refusal.Limit != limit {
		t.Errorf("%s: %v (%+v), not BadRequest %v with limit %d", what, err, refusal, reason, limit)
	}
}
