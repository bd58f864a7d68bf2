package commands_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/anishathalye/porcupine"
	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/kt/statement"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
)

// banCall is one call of a history about the ban of bob: ban and unban by
// moderators, login and send by bob, mail to bob and a look-up of bob by alice.
type banCall struct {
	kind string
	// session numbers bob's logins: which one this is, or which one's token sends.
	session int
}

// banState is what a server must be like that calls reach one at a time.
type banState struct {
	banned bool
	live   uint64 // bit set: that login's session has not ended
}

// banModel says what each call may be answered; the answer is its reason, empty
// for Ok.
var banModel = porcupine.Model{
	Init: func() any { return banState{} },
	Step: func(state, input, output any) (bool, any) {
		s, call, reason := state.(banState), input.(banCall), output.(string)
		bit := uint64(1) << call.session
		refused := map[string]string{
			"ban": "", "unban": "NOT_BANNED", "login": "BANNED", "send": "TOKEN_INVALID", "mail": "NO_DEVICE", "look": "NO_SUCH_USER",
		}[call.kind]
		allowed := !s.banned
		switch call.kind {
		case "ban":
			allowed = true
		case "unban":
			allowed = s.banned
		case "send":
			allowed = s.live&bit != 0
		}
		if !allowed {
			return reason == refused, s
		}
		switch call.kind {
		case "ban":
			s = banState{banned: true}
		case "unban":
			s.banned = false
		case "login":
			s.live |= bit
		}
		return reason == "", s
	},
	DescribeOperation: func(input, output any) string {
		return fmt.Sprintf("%s %d: %s", input.(banCall).kind, input.(banCall).session, output)
	},
}

// banHistory is what five clients called and got.
type banHistory struct {
	*history
	signer ed25519.PrivateKey
	public ed25519.PublicKey

	mu         sync.Mutex
	time       int64
	operations []porcupine.Operation
	logins     int
}

func (h *banHistory) tick() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.time++
	return h.time
}

// call makes a call and notes what it got.
func (h *banHistory) call(client int, c banCall, req proto.Message) proto.Message {
	began := h.tick()
	resp, err := h.send(h.t.Context(), req)
	reason := ""
	if refusal := commands.AsRefusal(err); refusal != nil {
		reason = refusal.Reason.String()
	} else if err != nil {
		reason = err.Error()
	}
	ended := h.tick()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, porcupine.Operation{ClientId: client, Input: c, Output: reason, Call: began, Return: ended})
	return resp
}

// login is the whole of an OpaqueLoginFinish, whose password was right.
func (h *banHistory) login(req *pb.OpaqueLoginFinishRequest) (proto.Message, error) {
	view := h.view()
	defer view.Release()
	account, _, err := projections.AccountByName(view.Reader, "bob")
	if err != nil {
		return nil, err
	}
	record, _, err := projections.OpaqueRecord(view.Reader, account.ID)
	if err != nil {
		return nil, err
	}
	attempt := commands.LoginAttempt{
		Username: "bob", Account: account.ID, RecordVersion: record.GetVersion(), LoginID: [16]byte{7}, TranscriptHash: seedFrom("transcript"),
	}
	req.Username, req.LoginId, req.IdentityKey = "bob", attempt.LoginID[:], h.public
	req.Signature = statement.Login{
		ServerName: serverName, Username: "bob", LoginID: req.GetLoginId(), TranscriptHash: attempt.TranscriptHash, Key: h.public,
	}.Sign(h.signer)
	login, err := commands.PrepareLogin(serverName, attempt, req)
	if err != nil {
		return nil, err
	}
	method, _ := rpc.MethodOf(req)
	command, err := commands.NewStartSession(method.Rule, req, login)
	if err != nil {
		return nil, err
	}
	return h.engine.Do(h.t.Context(), command)
}

// playBans has two moderators ban bob and take it back, while bob logs in and sends
// from two places and alice writes to bob, all at once.
func playBans(t *testing.T, seed uint64, fault func(next sender) sender) *banHistory {
	h := &banHistory{history: newHistory(t, seed)}
	h.people("mona", h.arguments([]string{"adam"}))
	h.step("socket GrantRole username=mona role=MODERATOR", nil)
	h.step("socket GrantRole username=adam role=ADMIN", nil)
	h.signer, h.public = h.key("bob/1"), h.world.public("bob/1")
	alice, bob := h.world.public("alice"), h.world.public("bob")
	next := h.send
	h.send = func(ctx context.Context, req proto.Message) (proto.Message, error) {
		if r, ok := req.(*pb.OpaqueLoginFinishRequest); ok {
			return h.login(r)
		}
		return next(ctx, req)
	}
	if fault != nil {
		h.send = fault(h.send)
	}
	var running sync.WaitGroup
	for client := range 5 {
		rng := rand.New(rand.NewPCG(seed, uint64(20+client)))
		requests := 0
		request := func() []byte {
			requests++
			random := seedFrom(fmt.Sprint("bans ", seed, client, requests))
			id := append([]byte(nil), random[:16]...)
			now := h.now()
			for i := range 6 {
				id[i] = byte(now >> (40 - 8*i))
			}
			id[6], id[8] = 0x70|id[6]&0x0f, 0x80|id[8]&0x3f
			return id
		}
		token, session := []byte(nil), 0
		running.Go(func() {
			for range 8 {
				switch {
				case client < 2: // moderators
					by := h.tokens[[]string{"mona", "adam"}[client]]
					if rng.IntN(2) == 0 {
						h.call(client, banCall{kind: "ban"}, &pb.BanUserRequest{
							SessionToken: by, RequestId: request(), Scope: pb.BanScope_WHOLE_SERVER, Username: "bob",
						})
					} else {
						h.call(client, banCall{kind: "unban"}, &pb.UnbanUserRequest{
							SessionToken: by, RequestId: request(), Scope: pb.BanScope_WHOLE_SERVER, Username: "bob",
						})
					}
				case client == 2:
					if rng.IntN(2) == 0 {
						h.call(client, banCall{kind: "mail"}, &pb.EnqueueRequest{
							SessionToken: h.tokens["alice"], RequestId: request(), Payload: []byte("x"),
							Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: bob},
						})
					} else {
						h.call(client, banCall{kind: "look"}, &pb.ResolveUserRequest{SessionToken: h.tokens["alice"], Username: "bob"})
					}
				case token == nil || rng.IntN(3) == 0:
					h.mu.Lock()
					number := h.logins
					h.logins++
					h.mu.Unlock()
					resp := h.call(client, banCall{"login", number}, new(pb.OpaqueLoginFinishRequest))
					if r, ok := resp.(*pb.OpaqueLoginFinishResponse); ok && len(r.GetSessionToken()) > 0 {
						token, session = r.GetSessionToken(), number
					}
				default:
					h.call(client, banCall{"send", session}, &pb.EnqueueRequest{
						SessionToken: token, RequestId: request(), Payload: []byte("x"),
						Recipient: &pb.EnqueueRequest_RecipientKey{RecipientKey: alice},
					})
				}
			}
		})
	}
	running.Wait()
	return h
}

// TestBansAreLinearizable: whatever comes together, there is one order of calls that
// explains every answer. In it nothing by bob is accepted between a ban and the next
// login after its end.
func TestBansAreLinearizable(t *testing.T) {
	n := runs(t, "QPC_BAN_HISTORIES", map[string]int{"": 20, "race": 2, "nightly": 500, "release": 5_000})
	refused := 0
	for seed := uint64(1); seed <= uint64(n); seed++ {
		ok := t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			h := playBans(t, seed, nil)
			if !porcupine.CheckOperations(banModel, h.operations) {
				t.Errorf("no order explains:\n%s", h.print())
			}
			for _, op := range h.operations {
				if op.Output != "" {
					refused++
				}
			}
		})
		if !ok {
			return
		}
	}
	if n >= 20 && refused < n {
		t.Errorf("%d histories with %d refusals are too tame", n, refused)
	}
}

func (h *banHistory) print() string {
	var out strings.Builder
	for _, op := range h.operations {
		fmt.Fprintf(&out, "%3d to %3d  client %d  %s\n", op.Call, op.Return, op.ClientId, banModel.DescribeOperation(op.Input, op.Output))
	}
	return out.String()
}

// brokenBans are servers with one fault each.
var brokenBans = map[string]func(next sender) sender{
	"sessions that outlive a ban": forgiving(func(req proto.Message) (proto.Message, bool) {
		r, ok := req.(*pb.EnqueueRequest)
		return new(pb.EnqueueResponse), ok && len(r.GetRecipientKey()) > 0
	}, pb.Reason_TOKEN_INVALID),
	"mail to somebody who is banned": forgiving(func(req proto.Message) (proto.Message, bool) {
		_, ok := req.(*pb.EnqueueRequest)
		return new(pb.EnqueueResponse), ok
	}, pb.Reason_NO_DEVICE),
	"logins despite a ban": forgiving(func(req proto.Message) (proto.Message, bool) {
		_, ok := req.(*pb.OpaqueLoginFinishRequest)
		return new(pb.OpaqueLoginFinishResponse), ok
	}, pb.Reason_BANNED),
	"bans that are not carried out": func(next sender) sender {
		return func(ctx context.Context, req proto.Message) (proto.Message, error) {
			if _, ban := req.(*pb.BanUserRequest); ban {
				return new(pb.BanUserResponse), nil
			}
			return next(ctx, req)
		}
	},
}

// forgiving answers Ok where the server refuses for a reason.
func forgiving(answer func(proto.Message) (proto.Message, bool), reason pb.Reason) func(next sender) sender {
	return func(next sender) sender {
		return func(ctx context.Context, req proto.Message) (proto.Message, error) {
			resp, err := next(ctx, req)
			if refusal := commands.AsRefusal(err); refusal != nil && refusal.Reason == reason {
				if forgiven, ok := answer(req); ok {
					return forgiven, nil
				}
			}
			return resp, err
		}
	}
}

// TestBrokenBansAreNotLinearizable is the negative control.
func TestBrokenBansAreNotLinearizable(t *testing.T) {
	for name, fault := range brokenBans {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(1); seed <= historiesToFind; seed++ {
				legal := true
				t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
					legal = porcupine.CheckOperations(banModel, playBans(t, seed, fault).operations)
				})
				if !legal {
					return
				}
			}
			t.Errorf("%d histories were explained", historiesToFind)
		})
	}
}
