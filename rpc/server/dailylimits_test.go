package server_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// TestDailyBudgets: what costs others work or room for long is given a number of
// times a day (protocol.md, 400 and 420); the next one is refused and told how long
// to wait, and nobody else is hindered.
func TestDailyBudgets(t *testing.T) {
	w := boot(t, limited)
	alice, a := w.join("alice")
	bob, b := w.join("bob")
	for _, test := range []struct {
		what string
		most int
		make func(by *person) proto.Message
	}{
		{"channels", 100, func(by *person) proto.Message {
			return &pb.CreateChannelRequest{SessionToken: by.token, RequestId: newRequestID()}
		}},
		{"reports", 30, func(by *person) proto.Message {
			return &pb.ReportMessageRequest{SessionToken: by.token, RequestId: newRequestID(), Username: "alice", Category: pb.ReportCategory_SPAM}
		}},
	} {
		for i := range test.most {
			if r := a.send(test.make(alice)); r.status != pb.Status_Ok {
				t.Fatalf("%s: number %d: %v", test.what, i+1, r.detail)
			}
		}
		detail := a.refused(test.make(alice), pb.Status_RateLimited, pb.Reason_RATE)
		wait, interval := time.Duration(detail.GetRetryAfterMs())*time.Millisecond, 24*time.Hour/time.Duration(test.most)
		if wait <= 0 || wait > interval+time.Second {
			t.Errorf("%s: wait %v, one comes back every %v", test.what, wait, interval)
		}
		if r := b.send(test.make(bob)); r.status != pb.Status_Ok {
			t.Errorf("%s: somebody else's first: %v", test.what, r.detail)
		}
	}
}
