package commands_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"quicprochat/commands"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// callers are the columns of the authorisation matrix: every kind of token that
// a request can carry.
var callers = []string{
	"no token", "unknown token", "half a token", "expired by age", "expired by silence",
	"ended by a password change", "enroll scope", "old login", "fresh login", "other user",
}

// verdicts say for each level what each caller gets: ok, or why not. None of the
// callers has a role, or is a peer.
var verdicts = map[pb.Auth_Level]map[string]string{
	pb.Auth_NONE:      columns("ok", "ok", "ok", "ok", "ok"),
	pb.Auth_OPTIONAL:  columns("ok", "TOKEN_INVALID", "ok", "ok", "ok"),
	pb.Auth_ENROLL:    columns("TOKEN_MISSING", "TOKEN_INVALID", "ok", "ok", "ok"),
	pb.Auth_SESSION:   columns("TOKEN_MISSING", "TOKEN_INVALID", "SCOPE", "ok", "ok"),
	pb.Auth_FRESH:     columns("TOKEN_MISSING", "TOKEN_INVALID", "SCOPE", "REAUTH", "ok"),
	pb.Auth_MODERATOR: columns("TOKEN_MISSING", "TOKEN_INVALID", "SCOPE", "ROLE", "ROLE"),
	pb.Auth_ADMIN:     columns("TOKEN_MISSING", "TOKEN_INVALID", "SCOPE", "ROLE", "ROLE"),
	// Only the admin socket brings calls of this level; whoever opens it may.
	pb.Auth_LOCAL: columns("ok", "ok", "ok", "ok", "ok"),
	pb.Auth_PEER:  columns("TOKEN_MISSING", "TOKEN_INVALID", "ROLE", "ROLE", "ROLE"),
}

func columns(none, invalid, enroll, old, fresh string) map[string]string {
	return map[string]string{
		"no token": none, "unknown token": invalid, "half a token": invalid, "expired by age": invalid,
		"expired by silence": invalid, "ended by a password change": invalid,
		"enroll scope": enroll, "old login": old, "fresh login": fresh, "other user": fresh,
	}
}

// statuses are those of the reasons of the matrix.
var statuses = map[string]pb.Status{
	"TOKEN_MISSING": pb.Status_Unauthorized, "TOKEN_INVALID": pb.Status_Unauthorized,
	"SCOPE": pb.Status_Forbidden, "REAUTH": pb.Status_Forbidden, "ROLE": pb.Status_Forbidden,
}

// matrixTokens lets half a year pass, in which carol gets a session that is used
// again and again and ends by its age all the same, and one that nobody uses.
func matrixTokens(w *world) map[string][]byte {
	w.people("alice", w.arguments([]string{"bob", "carol"}))
	session := func(name, as string, more ...string) []byte {
		if got := w.login(name, w.arguments(append(more, "session="+as))); !strings.HasPrefix(got[0], "Ok") {
			w.t.Fatalf("%s: %v", as, got)
		}
		return w.tokens[as]
	}
	unknown := seedFrom("nobody's token")
	tokens := map[string][]byte{"no token": nil, "unknown token": unknown[:], "expired by age": session("carol", "carol+age")}
	for i := range 7 {
		if i == 6 {
			tokens["expired by silence"] = session("carol", "carol+silent")
		}
		w.sleep(25 * 24 * time.Hour)
		use := &pb.PeekRequest{SessionToken: tokens["expired by age"]}
		method, _ := rpc.MethodOf(use)
		_, err := w.dispatch(method, use)
		w.check(err)
	}
	w.sleep(7 * 24 * time.Hour)
	tokens["ended by a password change"] = session("alice", "alice+ended")
	session("alice", "alice")
	if got := w.password("alice", w.arguments(nil)); !strings.HasPrefix(got[0], "Ok") {
		w.t.Fatalf("password: %v", got)
	}
	tokens["enroll scope"] = session("alice", "alice+enroll", "key=alice/new")
	tokens["old login"] = session("alice", "alice+old")
	time.Sleep(5 * time.Minute)
	tokens["fresh login"] = session("alice", "alice")
	tokens["other user"] = session("bob", "bob")
	tokens["half a token"] = tokens["fresh login"][:16]
	w.settle()
	return tokens
}

// TestAuthorisationMatrix asks for every method of the table, and for every level
// that no method has yet, what each caller gets: at the gate, which looks at the
// published view, and from the writer, which trusts no gate. Of the rows nobody
// has to think: a new method is in here with its rule.
func TestAuthorisationMatrix(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		tokens := matrixTokens(w)
		rows := map[string]pb.Auth_Level{}
		for _, m := range rpc.Methods() {
			rows[m.Name] = m.Rule.GetAuth()
		}
		levels := pb.Auth_UNSPECIFIED.Descriptor().Values()
		for i := range levels.Len() {
			if level := pb.Auth_Level(levels.Get(i).Number()); level != pb.Auth_UNSPECIFIED {
				rows["level "+level.String()] = level
			}
		}
		// With a token a registration is a password change, which must be fresh.
		rows["OpaqueRegisterFinish with a token"] = pb.Auth_FRESH
		cells := 0
		for name, level := range rows {
			for _, caller := range callers {
				cells++
				want := verdicts[level][caller]
				var hash [32]byte
				if len(tokens[caller]) > 0 {
					hash = sha256.Sum256(tokens[caller])
				}
				view, err := w.engine.Query(hash, level)
				if err == nil {
					view.Release()
				}
				verdict(t, name+" at the gate, "+caller, err, want)
				decided := false
				_, err = w.engine.Do(t.Context(), &commands.Command{
					Auth: level, Token: hash,
					Decide: func(*commands.Tx) (proto.Message, error) { decided = true; return nil, nil },
				})
				verdict(t, name+" in the writer, "+caller, err, want)
				if decided != (want == "ok") {
					t.Errorf("%s, %s: decided %v", name, caller, decided)
				}
			}
		}
		if want := (len(rpc.Methods()) + levels.Len()) * len(callers); cells != want {
			t.Errorf("%d cells, want %d", cells, want)
		}
	})
}

func verdict(t *testing.T, cell string, err error, want string) {
	t.Helper()
	got := "ok"
	if refusal := commands.AsRefusal(err); refusal != nil {
		if got = refusal.Reason.String(); refusal.Status != statuses[got] {
			t.Errorf("%s: %s has status %s", cell, got, refusal.Status)
		}
	} else if err != nil {
		t.Errorf("%s: %v", cell, err)
		return
	}
	if got != want {
		t.Errorf("%s: %s, want %s", cell, got, want)
	}
}

// wholeCalls are well-formed requests of alice's, one per method that the engine
// answers; what they name is hers. Methods without one are the server's own: they
// begin a ceremony or tell of its health, for anybody.
func wholeCalls(w *world) []proto.Message {
	keySet := w.keySetAfter("alice", w.newestKeySet("alice"), "matrix")
	w.step("alice CreateChannel members=carol", nil)
	channel := w.literal("ch1")
	return []proto.Message{
		&pb.EnqueueRequest{Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: w.public("bob")}, Payload: []byte("x")},
		&pb.BatchEnqueueRequest{Items: []*pb.BatchEnqueueRequest_Item{{
			Recipient: &pb.BatchEnqueueRequest_Item_RecipientKey{RecipientKey: w.public("bob")}, Payload: []byte("x"),
		}}},
		&pb.FetchRequest{}, &pb.FetchRequest{AfterSeq: proto.Uint64(1)}, &pb.FetchWaitRequest{AfterSeq: proto.Uint64(1)},
		&pb.PeekRequest{IncludeDrained: true}, &pb.AckRequest{UpTo: 1},
		&pb.UploadKeyPackageRequest{KeyPackages: [][]byte{w.keyPackage("alice/1:matrix")}},
		&pb.FetchKeyPackageRequest{IdentityKey: w.public("bob")},
		&pb.UploadHybridKeyRequest{Keyset: keySet},
		&pb.FetchHybridKeyRequest{IdentityKey: w.public("bob")}, &pb.FetchHybridKeysRequest{IdentityKeys: [][]byte{w.public("bob")}},
		&pb.ResolveUserRequest{Username: "bob"}, &pb.ListDevicesRequest{},
		&pb.CreateChannelRequest{Name: []byte("x")},
		&pb.ListGroupMembersRequest{ChannelId: channel},
		&pb.UpdateGroupMetadataRequest{ChannelId: channel, Fields: []pb.ChannelField{pb.ChannelField_CHANNEL_NAME}, ExpectedVersion: 1},
		&pb.BatchEnqueueRequest{ChannelId: channel, Payload: []byte("x")},
		&pb.RotateKeysRequest{ChannelId: channel},
		&pb.RemoveMemberRequest{ChannelId: channel, IdentityKey: w.public("carol")},
		&pb.AddMemberRequest{ChannelId: channel, Members: [][]byte{w.public("carol")}},
		&pb.ReportMessageRequest{Username: "bob", Category: pb.ReportCategory_SPAM},
		&pb.ListReportsRequest{}, &pb.ResolveReportRequest{ReportId: make([]byte, 16), State: pb.ReportState_ACTED},
	}
}

// foreign is what another user gets for a whole request of alice's that is about
// what is hers; empty for requests that anybody may make.
func foreign(req proto.Message) string {
	switch r := req.(type) {
	case *pb.UploadHybridKeyRequest:
		return "WRONG_ACCOUNT"
	case interface{ GetChannelId() []byte }:
		if len(r.GetChannelId()) > 0 {
			return "NOT_A_MEMBER"
		}
	}
	return ""
}

// TestWholeCallsByEveryCaller sends a whole request of each method of a session
// with each kind of token: who may not call changes nothing, and another user
// with the same request never touches what is alice's.
func TestWholeCallsByEveryCaller(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		tokens := matrixTokens(w)
		w.step("bob Enqueue recipient_key=alice payload=\"hello\"", nil)
		w.step("bob Enqueue recipient_key=alice payload=\"again\"", nil)
		w.step("bob UploadHybridKey", nil)
		w.settle()
		// Of the last ones a call means something else for each caller: their scenario
		// files tell.
		seen := map[string]bool{"OpaqueRegisterStart": true, "OpaqueLoginStart": true, "OpaqueLoginFinish": true, "OpaqueRegisterFinish": true, "Health": true, "CheckRevocation": true, "RevokeKey": true, "AuditKeyTransparency": true,
			"RegisterDevice": true, "RevokeDevice": true, "BanUser": true, "UnbanUser": true, "ListBanned": true}
		for i, req := range wholeCalls(w) {
			method, _ := rpc.MethodOf(req)
			seen[method.Name] = true
			for _, caller := range append(slices.Clone(callers[:len(callers)-2]), "other user", "fresh login") {
				want := verdicts[method.Rule.GetAuth()][caller]
				if other := foreign(req); caller == "other user" && other != "" {
					want = other
				}
				if caller == "other user" && method.Name == "UploadKeyPackage" {
					want = "KEY_PACKAGE_DEVICE"
				}
				before, size := propertyOf(w, "alice"), w.log.Size()
				got := callAs(w, method, proto.Clone(req), tokens[caller], i)
				if got != want {
					t.Errorf("%s, %s: %s, want %s", method.Name, caller, got, want)
				}
				if want != "ok" && w.log.Size() != size {
					t.Errorf("%s, %s: refused, and the log grew", method.Name, caller)
				}
				if after := propertyOf(w, "alice"); caller == "other user" && after != before {
					t.Errorf("%s by another user changed what is alice's:\n%s\n%s", method.Name, before, after)
				}
			}
		}
		for _, m := range rpc.Methods() {
			if !seen[m.Name] {
				t.Errorf("%s has no whole request in wholeCalls", m.Name)
			}
		}
		w.rebuild()
	})
}

// callAs sends a request under a token. The same request_id for all callers:
// a receipt is its device's alone.
func callAs(w *world, method *rpc.Method, req proto.Message, token []byte, number int) string {
	m := req.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByNumber(method.TokenField), protoreflect.ValueOfBytes(token))
	if method.RequestIDField != 0 {
		id := w.requestID(fmt.Sprint("matrix ", number), 0)
		m.Set(m.Descriptor().Fields().ByNumber(method.RequestIDField), protoreflect.ValueOfBytes(id))
	}
	_, err := w.dispatch(method, req)
	w.settle()
	if refusal := commands.AsRefusal(err); refusal != nil {
		return refusal.Reason.String()
	}
	w.check(err)
	return "ok"
}

// propertyOf prints what is a person's own: keys, password, sessions, queue.
func propertyOf(w *world, name string) string {
	view := w.view()
	defer view.Release()
	account, _, err := projections.AccountByName(view.Reader, name)
	w.check(err)
	record, _, err := projections.OpaqueRecord(view.Reader, account.ID)
	w.check(err)
	keySet, _, err := projections.KeySet(view.Reader, account.IdentityKey)
	w.check(err)
	sessions, err := projections.SessionsOf(view.Reader, account.ID)
	w.check(err)
	slices.SortFunc(sessions, func(a, b projections.Session) int { return bytes.Compare(a.TokenHash[:], b.TokenHash[:]) })
	out := fmt.Sprintf("%+v %v %v %+v", account, record, keySet, sessions)
	for _, device := range account.Devices {
		state, _, err := projections.Queue(view.Reader, device)
		w.check(err)
		items, _, err := projections.QueueItems(view.Reader, device, 1, 1<<20, 1<<40)
		w.check(err)
		packages, err := projections.KeyPackageStocks(view.Reader, device)
		w.check(err)
		out += fmt.Sprintf(" %+v %+v %+v", state, items, packages)
	}
	return out
}
