package commands_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/kt"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// caller is who the engine finds behind a session.
func (w *world) caller(session string) commands.Caller {
	w.t.Helper()
	view := w.view()
	defer view.Release()
	caller, err := commands.Authorize(view.Reader, sha256.Sum256(w.tokens[session]), pb.Auth_SESSION, w.now())
	w.check(err)
	return caller
}

// audit calls AuditKeyTransparency.
func (w *world) audit(caller commands.Caller, req *pb.AuditKeyTransparencyRequest) *pb.AuditKeyTransparencyResponse {
	w.t.Helper()
	resp, err := w.engine.Audit(w.t.Context(), caller, req)
	w.check(err)
	return resp
}

// TestAuditOfPersons: what 520 tells of a person verifies, over a revocation and
// a hand-over, and says who revoked what.
func TestAuditOfPersons(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.people("alice", w.arguments([]string{"bob"}))
		c, bob := w.skeptic(), w.caller("bob")
		ask := func(query kt.Query, request func(*pb.ProofRequest) *pb.AuditKeyTransparencyRequest) *kt.Answer {
			t.Helper()
			asked := c.state.Ask(query)
			known, err := asked.Request()
			w.check(err)
			answer, err := c.verifier.Verify(&c.state, asked, w.audit(bob, request(known)).GetProof(), w.now())
			w.check(err)
			return answer
		}
		person := func() *kt.Person {
			t.Helper()
			return ask(kt.Query{Username: "alice"}, func(known *pb.ProofRequest) *pb.AuditKeyTransparencyRequest {
				return &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Username{Username: "Alice"}, Proof: known}
			}).Person
		}
		if p := person(); !p.Exists() || len(p.Bindings) != 1 || p.Identity.Revocation != nil {
			t.Errorf("alice: %+v", p)
		}
		answer := ask(kt.Query{IdentityKey: w.public("alice")}, func(known *pb.ProofRequest) *pb.AuditKeyTransparencyRequest {
			return &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_IdentityKey{IdentityKey: w.public("alice")}, Proof: known}
		})
		if answer.Identity.Versions != 1 {
			t.Errorf("identity: %+v", answer.Identity)
		}
		head := ask(kt.Query{}, func(known *pb.ProofRequest) *pb.AuditKeyTransparencyRequest {
			return &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Head{Head: new(pb.HeadQuery)}, Proof: known}
		})
		if head.Head == nil {
			t.Error("no head")
		}
		if lines := w.step("alice RevokeKey successor=alice2 reason=4 by=alice", nil); lines[0][:2] != "Ok" {
			t.Fatal(lines)
		}
		if p := person(); len(p.Bindings) != 2 || !bytes.Equal(p.Identity.Key, w.public("alice2")) || p.Bindings[1].Authority != pb.Authority_OLD_KEY {
			t.Errorf("alice after the hand-over: %+v", p)
		}
		r := c.mustAsk(kt.Query{RevokedKey: w.public("alice"), Owner: w.public("alice")}).Revocation.Revocation
		if r == nil || !r.Signed || r.Authority != pb.Authority_KEY || r.Reason != 4 {
			t.Errorf("revocation of the old key: %+v", r)
		}
		w.step("nobody RevokeKey key=alice/1 reason=1 by=alice2", nil)
		r = c.mustAsk(kt.Query{RevokedKey: w.public("alice/1"), Owner: w.public("alice2")}).Revocation.Revocation
		if r == nil || !r.Signed || r.Authority != pb.Authority_IDENTITY {
			t.Errorf("revocation of the device: %+v", r)
		}
		p := person()
		if r := p.Identity.DeviceRevocations; len(r) != 1 || len(p.Identity.DeviceKeys()) != 0 {
			t.Errorf("alice's device: %+v", p.Identity)
		}
		w.step("socket RevokeAnyKey key=alice2", nil)
		if p := person(); p.Identity.Revocation == nil || p.Identity.Revocation.Authority != pb.Authority_ADMINISTRATOR {
			t.Errorf("alice's second identity: %+v", p.Identity)
		}
	})
}

// resource reads a whole resource by 520.
func (w *world) resource(path string) []byte {
	w.t.Helper()
	var all []byte
	for {
		part := w.audit(commands.Caller{}, &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Resource{
			Resource: &pb.LogResource{Path: path, Offset: uint64(len(all))},
		}}).GetResource()
		if all = append(all, part.GetData()...); uint64(len(all)) >= part.GetSize() {
			return all
		}
	}
}

// TestAuditOfTheLog: the public forms are enough to replay all heads, and they
// are the log's.
func TestAuditOfTheLog(t *testing.T) {
	inWorld(t, false, func(t *testing.T, w *world) {
		w.people("alice", w.arguments([]string{"bob"}))
		for n := range 300 { // more than one delta, and than a day's quota
			w.rekey("alice", n)
		}
		time.Sleep(2 * time.Minute)
		w.settle()
		logKey := w.key("log").Public().(ed25519.PublicKey)
		note, err := kt.OpenCheckpoint(w.resource("checkpoint"), w.origin(), logKey)
		w.check(err)
		if note.Size == 0 || note.Size > w.log.Size() {
			t.Fatalf("a checkpoint of %d records", note.Size)
		}
		last := w.audit(commands.Caller{}, &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Index{Index: note.Size - 1}}).GetLeaf()
		w.check(proof.VerifyInclusion(rfc6962.DefaultHasher, note.Size-1, note.Size, rfc6962.DefaultHasher.HashLeaf(last.GetLeaf()), last.GetPath(), note.Root[:]))
		leaf, err := kt.ParseLeaf(last.GetLeaf())
		w.check(err)
		epochs := leaf.Head.Epoch + 1
		if epochs < 300 {
			t.Fatalf("%d epochs", epochs)
		}
		replayer := kt.NewKTReplayer()
		for n := uint64(0); n*kt.EpochsPerDelta < epochs; n++ {
			width := int(min(kt.EpochsPerDelta, epochs-n*kt.EpochsPerDelta))
			d, err := kt.ParseDelta(w.resource(kt.TilePath{Kind: kt.DeltaBundle, N: n, Width: width}.String()))
			w.check(err)
			w.check(replayer.Apply(d))
		}
		w.check(replayer.Check(note, last.GetPath()))

		want, err := w.log.Tile(0, 0, 256)
		w.check(err)
		if !bytes.Equal(w.resource("tile/0/000"), want) {
			t.Error("another tile")
		}
		if want, err = w.log.EntryBundle(0, 200); err != nil || !bytes.Equal(w.resource("tile/entries/000.p/200"), want) {
			t.Errorf("another bundle: %v", err)
		}
		root, err := w.log.RootAt(100)
		w.check(err)
		sizes := w.audit(commands.Caller{}, &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Sizes{
			Sizes: &pb.SizePair{From: 100, To: note.Size},
		}}).GetConsistency()
		w.check(proof.VerifyConsistency(rfc6962.DefaultHasher, 100, note.Size, sizes.GetHashes(), root[:], note.Root[:]))
	})
}

// origin is the log's name.
func (w *world) origin() string {
	record, err := w.log.Record(0)
	w.check(err)
	leaf, err := kt.ParseLeaf(record.Leaf)
	w.check(err)
	return leaf.Config.Origin
}

// TestAuditOfOwnDoings: what a leaf commits to is told to the account that did it
// and to nobody else; a message is found by its id.
func TestAuditOfOwnDoings(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.people("alice", w.arguments([]string{"bob"}))
		method, _ := rpc.MethodByName("BatchEnqueue")
		batch := &pb.BatchEnqueueRequest{SessionToken: w.tokens["alice"], RequestId: w.requestID("batch", 0)}
		for range 20 {
			batch.Items = append(batch.Items, &pb.BatchEnqueueRequest_Item{
				Recipient: &pb.BatchEnqueueRequest_Item_RecipientKey{RecipientKey: w.public("bob")}, Payload: []byte("x"),
			})
		}
		response, err := w.dispatch(method, batch)
		w.check(err)
		sent := response.(*pb.BatchEnqueueResponse).GetResults()
		message := func(id []byte) *pb.AuditKeyTransparencyRequest {
			return &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Message{
				Message: &pb.SentMessage{MessageId: id, RequestId: batch.GetRequestId()},
			}}
		}
		alice, bob := w.caller("alice"), w.caller("bob")
		if r := w.audit(alice, message(sent[0].GetMessageId())); !r.GetPending() || r.GetRetryAfterMs() < 1000 || r.GetRetryAfterMs() > 60_000 || r.GetAnswer() != nil {
			t.Errorf("before the checkpoint: %v", r)
		}
		time.Sleep(time.Minute)
		w.settle()
		for i, result := range sent {
			leaf := w.audit(alice, message(result.GetMessageId())).GetLeaf()
			note, err := kt.OpenCheckpoint(leaf.GetNote(), w.origin(), w.key("log").Public().(ed25519.PublicKey))
			w.check(err)
			w.check(proof.VerifyInclusion(rfc6962.DefaultHasher, leaf.GetIndex(), note.Size, rfc6962.DefaultHasher.HashLeaf(leaf.GetLeaf()), leaf.GetPath(), note.Root[:]))
			event, err := projections.DecodeEvent(leaf.GetEvent())
			w.check(err)
			if !bytes.Equal(event.GetMessageEnqueued().GetMessageId(), result.GetMessageId()) {
				t.Errorf("message %d: %v", i, event)
			}
			if !bytes.Equal(leaf.GetLeaf(), projections.AppendLeaf(nil, event, leaf.GetEvent(), kt.Opening(leaf.GetOpening()), kt.Label{})) {
				t.Errorf("message %d: the leaf does not commit to the event", i)
			}
			byIndex := &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Index{Index: leaf.GetIndex()}}
			for name, caller := range map[string]commands.Caller{"bob": bob, "nobody": {}} {
				if other := w.audit(caller, byIndex).GetLeaf(); len(other.GetEvent())+len(other.GetOpening()) > 0 || !bytes.Equal(other.GetLeaf(), leaf.GetLeaf()) {
					t.Errorf("%s is told of message %d: %v", name, i, other)
				}
			}
			if own := w.audit(alice, byIndex).GetLeaf(); !proto.Equal(own, leaf) {
				t.Errorf("by index: %v", own)
			}
		}
	})
}

// TestEveryEventHasItsActor: each event that somebody's request makes is shown to
// that account by index, and the server's own are shown to nobody.
func TestEveryEventHasItsActor(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.people("alice", w.arguments([]string{"bob"}))
		for _, step := range []string{
			"bob Enqueue recipient_key=alice payload=x", "alice Fetch after_seq=0", "alice Fetch", "alice Ack seqs=1", "alice UploadHybridKey",
			"socket GrantRole username=bob role=ADMIN", "bob RevokeKey key=alice/1 reason=1",
		} {
			if lines := w.step(step, nil); lines[0][:2] != "Ok" {
				t.Fatal(step, lines)
			}
		}
		time.Sleep(time.Minute)
		w.settle()
		bob := w.caller("bob")
		got := map[string]int{}
		for index := range w.log.Size() {
			leaf := w.audit(bob, &pb.AuditKeyTransparencyRequest{Query: &pb.AuditKeyTransparencyRequest_Index{Index: index}}).GetLeaf()
			if len(leaf.GetEvent()) == 0 {
				continue
			}
			event, err := projections.DecodeEvent(leaf.GetEvent())
			w.check(err)
			got[string(event.ProtoReflect().WhichOneof(event.ProtoReflect().Descriptor().Oneofs().ByName("body")).Name())]++
		}
		for name, want := range map[string]int{
			"account_registered": 1, "key_transparency_entry": 2, "session_started": 1, "message_enqueued": 1, "key_revoked": 1,
			"messages_drained": 0, "messages_acked": 0, "role_changed": 0, "head_sealed": 0, "server_configured": 0, "request_answered": 0,
		} {
			if got[name] != want {
				t.Errorf("bob is shown %d of %s, want %d", got[name], name, want)
			}
		}
	})
}
