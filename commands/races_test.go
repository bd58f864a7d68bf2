package commands_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/cryptotest"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/kt"
	"quicprochat/kt/statement"
	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// inWorld runs a test with an engine of its own in virtual time.
func inWorld(t *testing.T, quotas bool, test func(t *testing.T, w *world)) {
	cryptotest.SetGlobalRandom(t, 1)
	bubble(t, func(t *testing.T) { test(t, newWorld(t, quotas)) })
}

// together sends commands at once and counts what they got, "Ok" or the reason.
func (w *world) together(made []*commands.Command) map[string]int {
	var mu sync.Mutex
	var all sync.WaitGroup
	got := map[string]int{}
	for _, command := range made {
		all.Go(func() {
			_, err := w.engine.Do(w.t.Context(), command)
			result := "Ok"
			if refusal := commands.AsRefusal(err); refusal != nil {
				result = refusal.Reason.String()
			} else if err != nil {
				result = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			got[result]++
		})
	}
	all.Wait()
	return got
}

// registrationRequest is a person's registration under a username, signed, with
// the challenge that it answers.
func (w *world) registrationRequest(username, identity, device string) (*pb.OpaqueRegisterFinishRequest, commands.Challenge) {
	req := &pb.OpaqueRegisterFinishRequest{
		Username: username, Upload: recordOf(identity), IdentityKey: w.public(identity), Challenge: []byte("c"),
		Device: &pb.DeviceConsent{DeviceKey: w.public(device)},
		Keyset: &pb.KeySet{IdentityKey: w.public(identity), DeviceKeys: [][]byte{w.public(device)}, TimeMs: w.now()},
	}
	w.signRegister(req, username, w.key(identity))
	consent := statement.Device{ServerName: serverName, IdentityKey: req.GetIdentityKey(), DeviceKey: req.GetDevice().GetDeviceKey()}
	req.Device.Signature = consent.Sign(w.key(device))
	statement.SignKeySet(serverName, req.GetKeyset(), w.key(identity))
	return req, commands.Challenge{Username: username, CredentialID: seedFrom(identity), KeyVersion: 1}
}

// registration makes the command of a person's registration under a username.
func (w *world) registration(username, identity, device string) *commands.Command {
	req, c := w.registrationRequest(username, identity, device)
	registration, err := commands.PrepareRegistration(serverName, w.vrf, c, req)
	w.check(err)
	method, _ := rpc.MethodOf(req)
	command, err := commands.NewRegister(method.Rule, req, registration)
	w.check(err)
	return command
}

// TestRegistrationRaces: of registrations that meet in one group, one gets the
// name, one gets the key, and the same one twice is one.
func TestRegistrationRaces(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		var sameName, sameKey, sameDevice, same []*commands.Command
		for i := range 8 {
			sameName = append(sameName, w.registration("wanted", fmt.Sprint("n", i), fmt.Sprint("n/", i)))
			sameKey = append(sameKey, w.registration(fmt.Sprint("user", i), "shared", fmt.Sprint("k/", i)))
			sameDevice = append(sameDevice, w.registration(fmt.Sprint("other", i), fmt.Sprint("d", i), "shared/1"))
			same = append(same, w.registration("twin", "twin", "twin/1"))
		}
		for name, test := range map[string]struct {
			commands []*commands.Command
			ok       int
			reason   string
		}{
			"name":     {sameName, 1, "USERNAME_TAKEN"},
			"identity": {sameKey, 1, "KEY_IN_USE"},
			"device":   {sameDevice, 1, "KEY_IN_USE"},
			"twins":    {same, 8, "none"},
		} {
			got := w.together(test.commands)
			if got["Ok"] != test.ok || got[test.reason] != 8-test.ok {
				t.Errorf("%s: %v", name, got)
			}
		}
		if n := w.countRecords(); n != 1+4*3 {
			t.Errorf("the log has %d records beside HEADs, four registrations make 12 beside the first", n)
		}
		w.rebuild()
	})
}

// countRecords is the number of records that are no HEAD.
func (w *world) countRecords() (n int) {
	w.check(w.log.Iterate(0, w.log.Size(), func(_ uint64, r log.Record) error {
		if kt.Class(r.Leaf[0]) != kt.ClassHead {
			n++
		}
		return nil
	}))
	return n
}

// keySetAfter is a signed successor of a KeySet.
func (w *world) keySetAfter(name string, current *pb.KeySet, hybrid string) *pb.KeySet {
	hash := statement.KeySetHash(serverName, current)
	next := &pb.KeySet{
		IdentityKey: current.GetIdentityKey(), Version: current.GetVersion() + 1, PreviousHash: hash[:],
		DeviceKeys: current.GetDeviceKeys(), KemId: statement.KEMXWing, HybridKey: hybridKeyFrom(hybrid), TimeMs: w.now(),
	}
	statement.SignKeySet(serverName, next, w.key(name))
	return next
}

// uploadOf makes the command of an upload as prepared on the view of now.
func (w *world) uploadOf(session string, keySet *pb.KeySet) *commands.Command {
	req := &pb.UploadHybridKeyRequest{Keyset: keySet}
	w.identify(req, session, w.arguments(nil))
	view := w.view()
	defer view.Release()
	prepared, err := commands.PrepareHybridKey(view.Reader, serverName, w.vrf, req)
	w.check(err)
	method, _ := rpc.MethodOf(req)
	command, err := commands.NewUploadHybridKey(method.Rule, req, prepared)
	w.check(err)
	return command
}

// TestHybridKeyRaces: compare and set on the version, and proofs that were
// prepared on an older view are asked for again instead of being made up.
func TestHybridKeyRaces(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.people("alice", w.arguments(nil))
		var uploads []*commands.Command
		for i := range 8 {
			uploads = append(uploads, w.uploadOf("alice", w.keySetAfter("alice", w.newestKeySet("alice"), fmt.Sprint(i))))
		}
		if got := w.together(uploads); got["Ok"] != 1 || got["KEYSET_VERSION"] != 7 {
			t.Errorf("eight successors of one KeySet: %v", got)
		}

		second := w.keySetAfter("alice", w.newestKeySet("alice"), "second")
		third := w.keySetAfter("alice", second, "third")
		first, early := w.uploadOf("alice", second), w.uploadOf("alice", third)
		if _, err := w.engine.Do(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		size := w.log.Size()
		if _, err := w.engine.Do(t.Context(), early); !errors.Is(err, commands.ErrStale) {
			t.Errorf("prepared before its predecessor was there: %v", err)
		}
		if w.log.Size() != size {
			t.Error("a stale upload left an event")
		}
		response, err := w.engine.Do(t.Context(), w.uploadOf("alice", third))
		if err != nil || response.(*pb.UploadHybridKeyResponse).GetVersion() != 3 {
			t.Errorf("prepared again: %v, %v", response, err)
		}
		w.rebuild()
	})
}

// TestPasswordChangeMeetsLogin: of a password change and logins that began before
// it, those decided after it fail, and no session from before it lives on.
func TestPasswordChangeMeetsLogin(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.people("alice", w.arguments(nil))
		w.login("alice", w.arguments([]string{"session=alice+2"}))
		w.password("alice", w.arguments(nil))
		if got := w.login("alice", w.arguments([]string{"session=alice+3", "record=0"})); got[0] != "BadRequest LOGIN_FAILED" {
			t.Errorf("a login with the old record: %v", got)
		}
		view := w.view()
		defer view.Release()
		account, _, err := projections.AccountByName(view.Reader, "alice")
		w.check(err)
		sessions, err := projections.SessionsOf(view.Reader, account.ID)
		w.check(err)
		if len(sessions) != 1 || sessions[0].TokenHash != commands.TokenHash(&pb.FetchRequest{SessionToken: w.tokens["alice"]}) {
			t.Errorf("sessions %v", sessions)
		}
	})
}

// TestEnqueueKeepsOrder: messages of one sender, each sent when the one before is
// answered, stand in that order, whatever others send between them.
func TestEnqueueKeepsOrder(t *testing.T) {
	inWorld(t, false, func(t *testing.T, w *world) {
		w.people("alice", w.arguments([]string{"bob", "carol"}))
		method, _ := rpc.MethodByName("Enqueue")
		var all sync.WaitGroup
		var mu sync.Mutex // the world's maps are not for several goroutines
		for _, sender := range []string{"alice", "carol"} {
			all.Go(func() {
				for i := range 100 {
					mu.Lock()
					req := &pb.EnqueueRequest{
						Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: w.public("bob")},
						Payload:   fmt.Appendf(nil, "%s %03d", sender, i),
					}
					w.identify(req, sender, w.arguments(nil))
					mu.Unlock()
					if _, err := w.dispatch(method, req); err != nil {
						t.Errorf("%s %d: %v", sender, i, err)
					}
				}
			})
		}
		all.Wait()
		fetch := &pb.FetchRequest{}
		w.identify(fetch, "bob", w.arguments(nil))
		fetchMethod, _ := rpc.MethodOf(fetch)
		response, err := w.dispatch(fetchMethod, fetch)
		w.check(err)
		last := map[string]string{}
		for i, envelope := range response.(*pb.FetchResponse).GetEnvelopes() {
			sender, payload := string(envelope.GetPayload()[:5]), string(envelope.GetPayload())
			if envelope.GetSeq() != uint64(i+1) || payload <= last[sender] {
				t.Errorf("item %d has position %d and says %q after %q", i, envelope.GetSeq(), payload, last[sender])
			}
			last[sender] = payload
		}
		if n := len(response.(*pb.FetchResponse).GetEnvelopes()); n != 200 {
			t.Errorf("%d messages, want 200", n)
		}
	})
}

// TestFillPayloadsSkipsReleased: what another stream acknowledged between the
// decision and the reading is left out, in order, and is no error.
func TestFillPayloadsSkipsReleased(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.people("alice", w.arguments([]string{"bob"}))
		w.fill("bob/1", w.arguments([]string{"by=alice", "count=5", "size=3"}))
		req := &pb.FetchRequest{AfterSeq: proto.Uint64(0)}
		w.identify(req, "bob", w.arguments(nil))
		method, _ := rpc.MethodOf(req)
		view, err := w.engine.Query(commands.TokenHash(req), method.Rule.GetAuth())
		w.check(err)
		defer view.Release()
		response, answered, err := commands.ReadFetch(view, req)
		if err != nil || !answered {
			t.Fatalf("a read that changes nothing: %v, %v", answered, err)
		}
		w.step("bob Ack seqs=2,4", nil)
		envelopes, _, err := commands.FillPayloads(w.engine.Payloads, view.Caller.Account, response.GetEnvelopes(), nil)
		w.check(err)
		var seqs []uint64
		for _, envelope := range envelopes {
			if len(envelope.GetPayload()) != 3 {
				t.Errorf("position %d has a payload of %d bytes", envelope.GetSeq(), len(envelope.GetPayload()))
			}
			seqs = append(seqs, envelope.GetSeq())
		}
		if fmt.Sprint(seqs) != "[1 3 5]" {
			t.Errorf("positions %v, want 1, 3 and 5", seqs)
		}
	})
}
