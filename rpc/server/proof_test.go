package server_test

import (
	"bytes"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/cloudflare/circl/kem/xwing"

	"quicprochat/kt"
	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
)

// skeptic believes only what is proved to it.
type skeptic struct {
	t        *testing.T
	verifier kt.Verifier
	state    kt.State
}

func newSkeptic(t *testing.T) *skeptic {
	return &skeptic{t: t, verifier: kt.Verifier{ServerName: serverName, Freshness: 10 * time.Minute}}
}

// check makes a question, sends what send makes of it, and verifies the proof.
func (s *skeptic) check(query kt.Query, send func(*pb.ProofRequest) *pb.KeyProof) *kt.Answer {
	s.t.Helper()
	asked := s.state.Ask(query)
	request, err := asked.Request()
	if err != nil {
		s.t.Fatal(err)
	}
	answer, err := s.verifier.Verify(&s.state, asked, send(request), uint64(time.Now().UnixMilli()))
	if err != nil {
		s.t.Fatalf("%+v: %v", query, err)
	}
	return answer
}

// TestProofsOverTheWire: every method that may be asked for a proof gives one that
// a verifier accepts, from the reply of the change itself on.
func TestProofsOverTheWire(t *testing.T) {
	w := boot(t, nil)
	bob, b := w.join("bob")
	owner, friend := newSkeptic(t), newSkeptic(t)
	alice, a := newPerson(t, "alice"), w.dial()

	registration := alice.registration(a)
	first := owner.check(kt.Query{Username: "alice"}, func(r *pb.ProofRequest) *pb.KeyProof {
		registration.Proof = r
		return must[*pb.OpaqueRegisterFinishResponse](a, registration).GetProof()
	})
	if !first.Person.Exists() || !bytes.Equal(first.Person.Identity.Key, public(alice.identity)) {
		t.Fatalf("the registration's own proof: %+v", first.Person)
	}
	// The same again is Ok, and proved from what is known now.
	owner.check(kt.Query{Username: "alice"}, func(r *pb.ProofRequest) *pb.KeyProof {
		registration.Proof = r
		return must[*pb.OpaqueRegisterFinishResponse](a, registration).GetProof()
	})
	alice.token = alice.login(a, alice.device).GetSessionToken()

	resolve := func(name string) *pb.ResolveUserResponse {
		var resp *pb.ResolveUserResponse
		p := friend.check(kt.Query{Username: name}, func(r *pb.ProofRequest) *pb.KeyProof {
			resp = must[*pb.ResolveUserResponse](b, &pb.ResolveUserRequest{SessionToken: bob.token, Username: name, Proof: r})
			return resp.GetProof()
		}).Person
		if p.Exists() != (len(resp.GetIdentityKey()) > 0) {
			t.Errorf("%s: the reply and its proof differ", name)
		}
		return resp
	}
	if got := resolve("alice"); !bytes.Equal(got.GetIdentityKey(), public(alice.identity)) {
		t.Errorf("alice resolves to %x", got.GetIdentityKey())
	}
	if got := resolve("nobody"); len(got.GetIdentityKey()) > 0 {
		t.Errorf("nobody resolves to %x", got.GetIdentityKey())
	}
	b.refused(&pb.ResolveUserRequest{SessionToken: bob.token, Username: "nobody"}, pb.Status_NotFound, pb.Reason_NO_SUCH_USER)

	upload := alice.hybridUpload(registration.GetKeyset())
	for range 2 { // the second is answered from the receipt, with a fresh proof
		renewed := owner.check(kt.Query{IdentityKey: public(alice.identity)}, func(r *pb.ProofRequest) *pb.KeyProof {
			upload.Proof = r
			return must[*pb.UploadHybridKeyResponse](a, upload).GetProof()
		})
		if renewed.Identity.Versions != 2 {
			t.Errorf("the new KeySet is version %d", renewed.Identity.Versions-1)
		}
	}
	fetched := friend.check(kt.Query{IdentityKey: public(alice.identity)}, func(r *pb.ProofRequest) *pb.KeyProof {
		return must[*pb.FetchHybridKeyResponse](b, &pb.FetchHybridKeyRequest{SessionToken: bob.token, IdentityKey: public(alice.identity), Proof: r}).GetProof()
	})
	if !bytes.Equal(fetched.Identity.KeySet.GetHybridKey(), upload.GetKeyset().GetHybridKey()) {
		t.Error("another hybrid key is proved than was uploaded")
	}
	several := must[*pb.FetchHybridKeysResponse](b, &pb.FetchHybridKeysRequest{
		SessionToken: bob.token, IdentityKeys: [][]byte{public(alice.identity), public(bob.device)}, Proof: &pb.ProofRequest{},
	})
	if n := len(several.GetProof().GetHistories()); n != 3+2 {
		t.Errorf("%d histories for an identity with one device and for nobody", n)
	}
	b.refused(&pb.FetchHybridKeyRequest{SessionToken: bob.token, IdentityKey: public(alice.identity), Proof: &pb.ProofRequest{KnownNote: []byte("x")}},
		pb.Status_BadRequest, pb.Reason_INVALID_FIELD)
}

// hybridUpload is a request that puts a hybrid key into the KeySet after current.
func (p *person) hybridUpload(current *pb.KeySet) *pb.UploadHybridKeyRequest {
	seed := sha256.Sum256([]byte("hybrid key of " + p.name))
	_, hybrid := xwing.DeriveKeyPairPacked(seed[:])
	hash := statement.KeySetHash(serverName, current)
	next := &pb.KeySet{
		IdentityKey: current.GetIdentityKey(), Version: current.GetVersion() + 1, PreviousHash: hash[:], DeviceKeys: current.GetDeviceKeys(),
		KemId: statement.KEMXWing, HybridKey: hybrid, TimeMs: current.GetTimeMs(),
	}
	statement.SignKeySet(serverName, next, p.identity)
	return &pb.UploadHybridKeyRequest{SessionToken: p.token, RequestId: newRequestID(), Keyset: next}
}
