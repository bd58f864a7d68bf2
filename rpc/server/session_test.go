package server_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// withToken is the empty request of a method with a session token.
func withToken(m *rpc.Method, token []byte) proto.Message {
	req := m.NewRequest()
	if len(token) > 0 {
		req.ProtoReflect().Set(m.Input.Descriptor().Fields().ByNumber(m.TokenField), protoreflect.ValueOfBytes(token))
	}
	return req
}

// TestAuthorisationMatrix calls every method of the table with every kind of
// token that it must not take. The rows come from the table, so that a new
// method is in here from its first day.
func TestAuthorisationMatrix(t *testing.T) {
	w := boot(t, nil)
	alice, aliceConn := w.join("alice")
	bob, bobConn := w.join("bob")
	// A login without a device key has a session of scope enroll.
	enroll := alice.login(w.dial(), keyOf("a new device of alice"))
	if enroll.GetScope() != pb.SessionScope_ENROLL_ONLY {
		t.Fatalf("scope %v", enroll.GetScope())
	}
	must[*pb.PeekResponse](aliceConn, &pb.PeekRequest{SessionToken: alice.token}) // binds
	must[*pb.PeekResponse](bobConn, &pb.PeekRequest{SessionToken: bob.token})
	unknown := bytes.Repeat([]byte{7}, 32)
	stranger := w.dial()
	// A session that a password change ended.
	carol, carolConn := w.join("carol")
	ended := carol.login(w.dial(), carol.device).GetSessionToken()
	must[*pb.OpaqueRegisterFinishResponse](carolConn, carol.passwordChange(carolConn, "another password"))

	unchanged := w.unchanged()
	for _, m := range rpc.Methods() {
		t.Run(m.Name, func(t *testing.T) {
			refused := func(c *conn, token []byte, status pb.Status, reason pb.Reason) {
				t.Helper()
				(&conn{Conn: c.Conn, t: t}).refused(withToken(m, token), status, reason)
			}
			switch m.Rule.Auth {
			case pb.Auth_NONE:
				if r := stranger.send(m.NewRequest()); r.status == pb.Status_Unauthorized || r.status == pb.Status_Forbidden {
					t.Errorf("public, but refused with %v", r.detail)
				}
				return
			case pb.Auth_OPTIONAL:
				if r := stranger.send(m.NewRequest()); r.status == pb.Status_Unauthorized {
					t.Errorf("public without a token, but refused with %v", r.detail)
				}
			case pb.Auth_SESSION, pb.Auth_FRESH:
				refused(stranger, nil, pb.Status_Unauthorized, pb.Reason_TOKEN_MISSING)
				refused(stranger, enroll.GetSessionToken(), pb.Status_Forbidden, pb.Reason_SCOPE)
				refused(aliceConn, enroll.GetSessionToken(), pb.Status_Forbidden, pb.Reason_SCOPE)
				refused(aliceConn, bob.token, pb.Status_Forbidden, pb.Reason_CONNECTION_BOUND)
				refused(bobConn, alice.token, pb.Status_Forbidden, pb.Reason_CONNECTION_BOUND)
			case pb.Auth_ENROLL:
				refused(stranger, nil, pb.Status_Unauthorized, pb.Reason_TOKEN_MISSING)
				refused(bobConn, enroll.GetSessionToken(), pb.Status_Forbidden, pb.Reason_CONNECTION_BOUND)
			default:
				refused(stranger, nil, pb.Status_Unauthorized, pb.Reason_TOKEN_MISSING)
				refused(aliceConn, alice.token, pb.Status_Forbidden, pb.Reason_ROLE)
			}
			for _, token := range [][]byte{ended, unknown, unknown[:31], append(bytes.Clone(unknown), 1), {0}, alice.token[:31], append(bytes.Clone(alice.token), 0)} {
				refused(stranger, token, pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID)
				refused(aliceConn, token, pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID)
			}
		})
	}
	unchanged()
	// The stranger's connection is still nobody's.
	must[*pb.PeekResponse](stranger, &pb.PeekRequest{SessionToken: bob.token})
}

// TestBoundConnectionTakesNewerSession logs in again on a bound connection.
func TestBoundConnectionTakesNewerSession(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	must[*pb.PeekResponse](c, &pb.PeekRequest{SessionToken: alice.token})
	newer := alice.login(c, alice.device).GetSessionToken()
	must[*pb.PeekResponse](c, &pb.PeekRequest{SessionToken: newer})
	must[*pb.PeekResponse](c, &pb.PeekRequest{SessionToken: alice.token})
	must[*pb.PeekResponse](c, &pb.PeekRequest{SessionToken: newer})
}

// TestPublicMethodsOnBoundConnection: 100 to 103 are allowed, also for others.
func TestPublicMethodsOnBoundConnection(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	must[*pb.PeekResponse](c, &pb.PeekRequest{SessionToken: alice.token})
	bob := newPerson(t, "bob")
	must[*pb.OpaqueRegisterFinishResponse](c, bob.registration(c))
	bob.token = bob.login(c, bob.device).GetSessionToken()
	c.refused(&pb.PeekRequest{SessionToken: bob.token}, pb.Status_Forbidden, pb.Reason_CONNECTION_BOUND)
}

// TestEndOfSessionClosesConnection changes the password on one connection: the
// others' sessions end, and their connections with code 3.
func TestEndOfSessionClosesConnection(t *testing.T) {
	w := boot(t, nil)
	alice, c := w.join("alice")
	other := w.dial()
	stolen := alice.login(other, alice.device).GetSessionToken()
	must[*pb.PeekResponse](other, &pb.PeekRequest{SessionToken: stolen})
	bob, b := w.join("bob")
	must[*pb.PeekResponse](b, &pb.PeekRequest{SessionToken: bob.token})

	change := alice.passwordChange(c, "a better password")
	must[*pb.OpaqueRegisterFinishResponse](c, change)
	select {
	case <-other.Context().Done():
	case <-time.After(time.Minute):
		t.Fatal("the connection of the ended session is still open")
	}
	wantClosed(t, other, rpc.CodeSessionEnded)
	// The token is worth nothing elsewhere.
	w.dial().refused(&pb.PeekRequest{SessionToken: stolen}, pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID)
	// The session that changed the password, and other people's, live on.
	must[*pb.PeekResponse](c, &pb.PeekRequest{SessionToken: alice.token})
	must[*pb.PeekResponse](b, &pb.PeekRequest{SessionToken: bob.token})
}

func wantClosed(t *testing.T, c *conn, code quic.ApplicationErrorCode) {
	t.Helper()
	_, err := c.AcceptStream(testContext(t))
	var closed *quic.ApplicationError
	if !errors.As(err, &closed) || closed.ErrorCode != code || !closed.Remote {
		t.Errorf("connection ended with %v, want code %d", err, code)
	}
}
