package server_test

import (
	"testing"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// TestDeviceJoinsAndLeaves goes the whole way over the wire: a key that no device has
// gives scope enroll, the first device lets it in with the proof in the reply, then
// it has a full session and gets messages. Revoked, it is disconnected.
func TestDeviceJoinsAndLeaves(t *testing.T) {
	w := boot(t, nil)
	alice, first := w.join("alice")
	must[*pb.PeekResponse](first, &pb.PeekRequest{SessionToken: alice.token}) // binds
	device := keyOf("alice's second device")
	second := w.dial()
	enroll := alice.login(second, device)
	if enroll.GetScope() != pb.SessionScope_ENROLL_ONLY {
		t.Fatalf("scope %v", enroll.GetScope())
	}
	list := must[*pb.ListDevicesResponse](second, &pb.ListDevicesRequest{SessionToken: enroll.GetSessionToken(), Proof: new(pb.ProofRequest)})
	if len(list.GetDevices()) != 1 || len(list.GetProof().GetHistories()) == 0 {
		t.Errorf("devices %v", list)
	}
	next := alice.keySetAfter(list.GetKeyset(), list.GetServerTimeMs(), public(alice.device), public(device))
	consent := statement.Device{ServerName: serverName, IdentityKey: public(alice.identity), DeviceKey: public(device)}
	resp := must[*pb.RegisterDeviceResponse](first, &pb.RegisterDeviceRequest{
		SessionToken: alice.token, Keyset: next, Proof: new(pb.ProofRequest),
		Device: &pb.DeviceConsent{DeviceKey: public(device), Signature: consent.Sign(device)},
	})
	// The identity with both versions, its own revocation and those of both devices.
	if resp.GetKeysetVersion() != 1 || len(resp.GetProof().GetHistories()) != 4 {
		t.Errorf("version %d, proof of %d histories", resp.GetKeysetVersion(), len(resp.GetProof().GetHistories()))
	}
	full := alice.login(second, device)
	if full.GetScope() != pb.SessionScope_DEVICE {
		t.Fatalf("scope %v", full.GetScope())
	}
	bob, b := w.join("bob")
	must[*pb.EnqueueResponse](b, bob.enqueue(alice, []byte("to both")))
	for token, c := range map[string]*conn{string(alice.token): first, string(full.GetSessionToken()): second} {
		got := must[*pb.FetchResponse](c, &pb.FetchRequest{SessionToken: []byte(token)}).GetEnvelopes()
		if len(got) == 0 || string(got[len(got)-1].GetPayload()) != "to both" {
			t.Errorf("fetched %v", got)
		}
	}
	must[*pb.RevokeDeviceResponse](first, &pb.RevokeDeviceRequest{SessionToken: alice.token, DeviceKey: public(device), Reason: 1})
	wantClosed(t, second, rpc.CodeSessionEnded)
	w.dial().refused(&pb.PeekRequest{SessionToken: full.GetSessionToken()}, pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID)
}

// keySetAfter is the next KeySet of a person with these devices.
func (p *person) keySetAfter(current *pb.KeySet, timeMS uint64, devices ...[]byte) *pb.KeySet {
	hash := statement.KeySetHash(serverName, current)
	next := &pb.KeySet{
		IdentityKey: public(p.identity), Version: current.GetVersion() + 1, PreviousHash: hash[:], DeviceKeys: devices,
		KemId: current.GetKemId(), HybridKey: current.GetHybridKey(), TimeMs: timeMS,
	}
	statement.SignKeySet(serverName, next, p.identity)
	return next
}
