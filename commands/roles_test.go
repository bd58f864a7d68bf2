package commands_test

import (
	"crypto/sha256"
	"errors"
	"testing"
	"testing/cryptotest"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
)

// TestAuthorizeRoles: levels MODERATOR and ADMIN want a device session of an
// account that has the role at that point of the log, and a role that was taken
// away is gone at once.
func TestAuthorizeRoles(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, true)
		w.people("alice", w.arguments([]string{"bob", "carol"}))
		w.login("alice", w.arguments([]string{"session=alice+enroll", "key=stranger"}))
		role := func(name string, role pb.Role) {
			t.Helper()
			c, err := commands.NewGrantRole(&pb.Rule{Auth: pb.Auth_LOCAL}, &pb.GrantRoleRequest{Username: name, Role: role}, pb.Actor_SOCKET)
			w.check(err)
			_, err = w.engine.Do(t.Context(), c)
			w.check(err)
		}
		may := func(session string, level pb.Auth_Level, want pb.Reason) {
			t.Helper()
			view := w.view()
			defer view.Release()
			token := [32]byte{}
			if session != "" {
				token = sha256.Sum256(w.tokens[session])
			}
			_, err := commands.Authorize(view.Reader, token, level, w.now())
			if refusal := commands.AsRefusal(err); (want == 0) != (err == nil) || (refusal != nil && refusal.Reason != want) {
				t.Errorf("%s at level %s: %v, want %v", session, level, err, want)
			}
		}
		role("alice", pb.Role_ADMIN)
		role("bob", pb.Role_MODERATOR)
		for _, level := range []pb.Auth_Level{pb.Auth_MODERATOR, pb.Auth_ADMIN} {
			may("alice", level, 0)
			may("carol", level, pb.Reason_ROLE)
			may("alice+enroll", level, pb.Reason_SCOPE)
			may("", level, pb.Reason_TOKEN_MISSING)
		}
		may("bob", pb.Auth_MODERATOR, 0)
		may("bob", pb.Auth_ADMIN, pb.Reason_ROLE)
		may("alice", pb.Auth_PEER, pb.Reason_ROLE)

		// The writer asks at its point of the log, not the view that a guard saw.
		c, err := commands.NewRevokeRole(&pb.Rule{Auth: pb.Auth_LOCAL}, &pb.RevokeRoleRequest{Username: "alice"}, pb.Actor_SOCKET)
		w.check(err)
		_, err = w.engine.Do(t.Context(), c)
		w.check(err)
		may("alice", pb.Auth_ADMIN, pb.Reason_ROLE)
		_, err = w.engine.Do(t.Context(), &commands.Command{Auth: pb.Auth_MODERATOR, Token: sha256.Sum256(w.tokens["alice"])})
		if !errors.Is(err, &commands.Refusal{Status: pb.Status_Forbidden, Reason: pb.Reason_ROLE}) {
			t.Errorf("the writer: %v", err)
		}
	})
}
