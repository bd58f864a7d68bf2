package server_test

import (
	"testing"

	pb "quicprochat/proto/qpcv1"
)

// TestStory is the way of a message: register, log in, send, fetch, confirm.
func TestStory(t *testing.T) {
	w := boot(t, nil)
	alice, a := w.join("alice")
	bob, b := w.join("bob")

	resolved := must[*pb.ResolveUserResponse](a, &pb.ResolveUserRequest{SessionToken: alice.token, Username: "BOB"})
	if string(resolved.GetIdentityKey()) != string(public(bob.identity)) || resolved.GetUsername() != "bob" {
		t.Errorf("resolved to %v", resolved)
	}
	sent := must[*pb.EnqueueResponse](a, alice.enqueue(bob, []byte("hello")))

	var none uint64
	page := must[*pb.FetchResponse](b, &pb.FetchRequest{SessionToken: bob.token, AfterSeq: &none})
	if len(page.GetEnvelopes()) != 1 || string(page.GetEnvelopes()[0].GetPayload()) != "hello" ||
		string(page.GetEnvelopes()[0].GetMessageId()) != string(sent.GetMessageId()) {
		t.Fatalf("fetched %v", page)
	}
	seq := page.GetEnvelopes()[0].GetSeq()
	page = must[*pb.FetchResponse](b, &pb.FetchRequest{SessionToken: bob.token, AfterSeq: &seq})
	if len(page.GetEnvelopes()) != 0 {
		t.Errorf("after confirming: %v", page)
	}
	health := must[*pb.HealthResponse](w.dial(), &pb.HealthRequest{})
	if !health.GetReady() || health.GetStatus() != "ok" || health.GetServerName() != serverName || health.GetVersion() != "test" {
		t.Errorf("health: %v", health)
	}
}
