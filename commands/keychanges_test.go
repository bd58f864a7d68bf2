package commands_test

import (
	"testing"
	"time"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
)

// TestKeyChangesAreCapped: an account changes its keys so many times on a UTC day
// and no more; what ends a key is never refused.
func TestKeyChangesAreCapped(t *testing.T) {
	for _, quotas := range []bool{true, false} {
		inWorld(t, quotas, func(t *testing.T, w *world) {
			w.people("alice", w.arguments([]string{"bob"}))
			for n := range commands.MaxKeyChanges {
				w.rekey("alice", n)
			}
			next := w.keySetAfter("alice", w.newestKeySet("alice"), "too many")
			_, err := w.engine.Do(t.Context(), w.uploadOf("alice", next))
			if !quotas {
				w.check(err)
				return
			}
			wantReason(t, err, pb.Reason_RATE)
			refusal := commands.AsRefusal(err)
			day := uint64((24 * time.Hour).Milliseconds())
			if refusal.Status != pb.Status_RateLimited || refusal.Limit != commands.MaxKeyChanges || refusal.RetryAfterMS != day-w.now()%day {
				t.Errorf("refused with %+v", refusal)
			}
			if got := w.step("alice RevokeKey successor=alice/next by=alice", nil)[0]; got[:len("RateLimited RATE")] != "RateLimited RATE" {
				t.Errorf("a hand-over after that: %s", got)
			}
			w.rekey("bob", 0)
			w.shut()
			w.startUp() // the count is no memory of the process
			_, err = w.engine.Do(t.Context(), w.uploadOf("alice", next))
			wantReason(t, err, pb.Reason_RATE)
			w.sleep(time.Duration(refusal.RetryAfterMS) * time.Millisecond)
			_, err = w.engine.Do(t.Context(), w.uploadOf("alice", next))
			w.check(err)
			if got := w.step("alice RevokeKey key=alice/1 by=alice/1", nil)[0]; got[:2] != "Ok" {
				t.Errorf("a revocation: %s", got)
			}
			w.rebuild()
		})
	}
}
