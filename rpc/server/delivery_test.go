package server_test

import (
	"bytes"
	"crypto/sha256"
	"sync"
	"testing"
	"time"

	"github.com/cloudflare/circl/kem/xwing"
	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// TestLargeMessages passes the largest message both ways: it is larger than the
// windows of a stranger, so they have to grow.
func TestLargeMessages(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	payload := bytes.Repeat([]byte("0123456789abcdef"), commands.MaxPayload/16)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() { must[*pb.EnqueueResponse](a, alice.enqueue(bob, payload)) })
	}
	group.Wait()
	var after uint64
	for n := range 4 {
		page := must[*pb.FetchResponse](b, &pb.FetchRequest{SessionToken: bob.token, AfterSeq: &after})
		if len(page.GetEnvelopes()) != 1 || page.GetMore() != (n < 3) || !bytes.Equal(page.GetEnvelopes()[0].GetPayload(), payload) {
			t.Fatalf("page %d: %d envelopes, more %v", n, len(page.GetEnvelopes()), page.GetMore())
		}
		after = page.GetEnvelopes()[0].GetSeq()
	}
	unchanged := w.unchanged()
	d := a.refused(alice.enqueue(bob, append(payload, 0)), pb.Status_BadRequest, pb.Reason_PAYLOAD_TOO_LARGE)
	if d.GetLimit() != commands.MaxPayload {
		t.Errorf("limit %d", d.GetLimit())
	}
	a.refused(alice.enqueue(bob, nil), pb.Status_BadRequest, pb.Reason_MISSING_FIELD)
	unchanged()
}

// TestRequestIDs repeats, misuses and mistimes request ids.
func TestRequestIDs(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	req := alice.enqueue(alice, []byte("once"))
	first := must[*pb.EnqueueResponse](a, req)
	unchanged := w.unchanged()
	if again := must[*pb.EnqueueResponse](a, req); !bytes.Equal(first.GetMessageId(), again.GetMessageId()) {
		t.Errorf("the repeat is another message: %v, %v", first, again)
	}
	// Also on another connection, under another session of the device.
	other := proto.Clone(req).(*pb.EnqueueRequest)
	c := w.dial()
	login := alice.finish(c, alice.device)
	unchanged()
	other.SessionToken = must[*pb.OpaqueLoginFinishResponse](c, login).GetSessionToken()
	unchanged = w.unchanged()
	if again := must[*pb.EnqueueResponse](c, other); !bytes.Equal(first.GetMessageId(), again.GetMessageId()) {
		t.Errorf("under another session it is another message: %v, %v", first, again)
	}
	changed := proto.Clone(req).(*pb.EnqueueRequest)
	changed.Payload = []byte("twice")
	a.refused(changed, pb.Status_BadRequest, pb.Reason_REQUEST_ID_REUSED)
	for name, test := range map[string]struct {
		id     []byte
		reason pb.Reason
	}{
		"none":        {nil, pb.Reason_MISSING_FIELD},
		"short":       {newRequestID()[:15], pb.Reason_REQUEST_ID_INVALID},
		"version 4":   {versioned(newRequestID(), 4), pb.Reason_REQUEST_ID_INVALID},
		"yesterday's": {timed(-25 * time.Hour), pb.Reason_REQUEST_ID_TIME},
		"tomorrow's":  {timed(25 * time.Hour), pb.Reason_REQUEST_ID_TIME},
	} {
		req := alice.enqueue(alice, []byte(name))
		req.RequestId = test.id
		a.refused(req, pb.Status_BadRequest, test.reason)
	}
	unchanged()
}

func versioned(id []byte, version byte) []byte {
	id[6] = version<<4 | id[6]&0x0f
	return id
}

func timed(shift time.Duration) []byte {
	id := newRequestID()
	ms := time.Now().Add(shift).UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

// TestHybridKeys publishes KeySets, several at once: each version is decided
// once, and the losers are told.
func TestHybridKeys(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	seed := sha256.Sum256([]byte("hybrid"))
	_, hybrid := xwing.DeriveKeyPairPacked(seed[:])
	b.refused(&pb.FetchHybridKeyRequest{SessionToken: bob.token, IdentityKey: public(alice.identity)}, pb.Status_NotFound, pb.Reason_NO_SUCH_KEY)

	fresh := newPerson(t, "carol")
	c := w.dial()
	registration := fresh.registration(c)
	must[*pb.OpaqueRegisterFinishResponse](c, registration)
	fresh.token = fresh.login(c, fresh.device).GetSessionToken()
	upload := func() *pb.UploadHybridKeyRequest {
		hash := statement.KeySetHash(serverName, registration.Keyset)
		next := &pb.KeySet{
			IdentityKey: public(fresh.identity), Version: 1, PreviousHash: hash[:], DeviceKeys: [][]byte{public(fresh.device)},
			KemId: statement.KEMXWing, HybridKey: hybrid, TimeMs: registration.Keyset.TimeMs,
		}
		statement.SignKeySet(serverName, next, fresh.identity)
		return &pb.UploadHybridKeyRequest{SessionToken: fresh.token, RequestId: newRequestID(), Keyset: next}
	}
	foreign := upload()
	foreign.SessionToken = alice.token
	unchanged := w.unchanged()
	a.refused(foreign, pb.Status_Forbidden, pb.Reason_WRONG_ACCOUNT)
	unchanged()

	var calls []*pendingCall
	for range 8 {
		calls = append(calls, c.begin(upload()))
	}
	won := 0
	for _, call := range calls {
		switch r := call.get(); {
		case r.status == pb.Status_Ok:
			won++
		case r.status != pb.Status_BadRequest || r.detail.GetReason() != pb.Reason_KEYSET_VERSION:
			t.Errorf("a loser got %v %v", r.status, r.detail)
		}
	}
	if won != 1 {
		t.Errorf("%d of 8 wrote version 1", won)
	}
	got := must[*pb.FetchHybridKeyResponse](b, &pb.FetchHybridKeyRequest{SessionToken: bob.token, IdentityKey: public(fresh.identity)})
	if got.GetKeyset().GetVersion() != 1 || !bytes.Equal(got.GetKeyset().GetHybridKey(), hybrid) {
		t.Errorf("fetched %v", got)
	}
	many := must[*pb.FetchHybridKeysResponse](b, &pb.FetchHybridKeysRequest{SessionToken: bob.token, IdentityKeys: [][]byte{
		public(bob.identity), public(fresh.identity), make([]byte, 32),
	}})
	if e := many.GetEntries(); len(e) != 3 || e[0].GetKeyset() != nil || e[1].GetKeyset() == nil || e[2].GetKeyset() != nil {
		t.Errorf("fetched many: %v", many)
	}
	b.refused(&pb.ResolveUserRequest{SessionToken: bob.token, Username: "nobody"}, pb.Status_NotFound, pb.Reason_NO_SUCH_USER)
}
