package commands_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/commands"
	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// skeptic is somebody who trusts nothing but what is proved.
type skeptic struct {
	w        *world
	verifier kt.Verifier
	state    kt.State
	received *pb.KeyProof // the newest answer's
}

func (w *world) skeptic() *skeptic {
	return &skeptic{w: w, verifier: kt.Verifier{
		ServerName: serverName, LogKey: w.key("log").Public().(ed25519.PublicKey), Freshness: 10 * time.Minute,
	}}
}

// ask asks the engine for a proof and checks what came.
func (c *skeptic) ask(query kt.Query) (*kt.Answer, error) {
	c.w.t.Helper()
	asked := c.state.Ask(query)
	request, err := asked.Request()
	c.w.check(err)
	view, err := c.w.engine.ProofView(c.w.t.Context(), commands.Caller{}, request)
	if err != nil {
		return nil, err
	}
	defer view.Release()
	switch {
	case query.Username != "":
		err = view.Proofs.Person(query.Username)
	case query.IdentityKey != nil:
		err = view.Proofs.Identity(query.IdentityKey)
	case query.RevokedKey != nil:
		err = view.Proofs.Revocation(query.RevokedKey)
	}
	c.w.check(err)
	made, err := view.Proofs.Proof()
	if err != nil {
		return nil, err
	}
	raw, err := proto.Marshal(made)
	c.w.check(err)
	c.received = new(pb.KeyProof)
	c.w.check(proto.Unmarshal(raw, c.received))
	return c.verifier.Verify(&c.state, asked, c.received, c.w.now())
}

func (c *skeptic) mustAsk(query kt.Query) *kt.Answer {
	c.w.t.Helper()
	answer, err := c.ask(query)
	if err != nil {
		c.w.t.Fatalf("%+v: %v", query, err)
	}
	return answer
}

// join registers somebody whose keys are called as the name says.
func (w *world) join(name string) {
	w.t.Helper()
	_, err := w.engine.Do(w.t.Context(), w.registration(name, name, name+"/1"))
	w.check(err)
}

// rekey gives somebody their next KeySet.
func (w *world) rekey(name string, n int) *pb.KeySet {
	w.t.Helper()
	next := w.keySetAfter(name, w.newestKeySet(name), fmt.Sprint(name, n))
	_, err := w.engine.Do(w.t.Context(), w.uploadOf(name, next))
	w.check(err)
	return next
}

func TestPeopleAreProved(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		stranger, friend := w.skeptic(), w.skeptic()
		if p := stranger.mustAsk(kt.Query{Username: "alice"}).Person; p.Exists() || len(p.Bindings) > 0 {
			t.Errorf("nobody yet: %+v", p)
		}
		w.join("alice") // no merge delay: what was answered is proved at once
		p := friend.mustAsk(kt.Query{Username: "alice"}).Person
		if !p.Exists() || string(p.Identity.Key) != string(w.public("alice")) || p.Identity.Versions != 1 {
			t.Errorf("alice: %+v", p)
		}
		if p := stranger.mustAsk(kt.Query{Username: "alice"}).Person; !p.Exists() {
			t.Error("alice is not there for who asked before")
		}
		if r := stranger.mustAsk(kt.Query{RevokedKey: w.public("alice/1")}).Revocation; r.Revocation != nil {
			t.Errorf("a revocation of a good key: %+v", r)
		}
		if r := stranger.mustAsk(kt.Query{RevokedKey: w.public("nobody")}).Revocation; r.Revocation != nil {
			t.Errorf("a revocation of nobody's key: %+v", r)
		}
		if i := friend.mustAsk(kt.Query{IdentityKey: w.public("alice/1")}).Identity; i.KeySet != nil {
			t.Errorf("a device key is an identity: %+v", i)
		}
		if i := friend.mustAsk(kt.Query{IdentityKey: w.public("alice")}).Identity; !proto.Equal(i.KeySet, w.newestKeySet("alice")) {
			t.Errorf("identity of alice: %+v", i)
		}
	})
}

// TestProofsAtAnyKnowledge lets clients with states of any age ask for anybody,
// while people join and change their keys, over restarts and minutes. Every
// answer verifies and says what the views say.
func TestProofsAtAnyKnowledge(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		random := rand.New(rand.NewPCG(1, 2))
		clients := []*skeptic{w.skeptic(), w.skeptic(), w.skeptic()}
		known := map[*skeptic]map[string]*kt.KnownPerson{}
		for _, c := range clients {
			known[c] = map[string]*kt.KnownPerson{}
		}
		var people []string
		versions := map[string]uint32{}
		for step := range 150 {
			switch n := random.IntN(10); {
			case n == 0 && len(people) < 20:
				name := fmt.Sprint("person", len(people))
				w.join(name)
				w.check(startSession(w, name))
				people = append(people, name)
			case n == 1 && len(people) > 0:
				name := people[random.IntN(len(people))]
				w.rekey(name, step)
				versions[name]++
			case n == 2:
				w.sleep(time.Duration(random.IntN(90)) * time.Second)
			case n == 3 && random.IntN(6) == 0:
				w.stop()
				w.boot()
			default:
				c, name := clients[random.IntN(len(clients))], fmt.Sprint("person", random.IntN(22))
				p := c.mustAsk(kt.Query{Username: name, Known: known[c][name]}).Person
				index := 0
				if _, err := fmt.Sscanf(name, "person%d", &index); err != nil {
					t.Fatal(err)
				}
				if p.Exists() != (index < len(people)) {
					t.Fatalf("step %d: %s exists: %v", step, name, p.Exists())
				}
				if p.Exists() && p.Identity.Versions != versions[name]+1 {
					t.Fatalf("step %d: %s has %d versions, want %d", step, name, p.Identity.Versions, versions[name]+1)
				}
				known[c][name] = p.Known()
			}
		}
	})
}

// startSession gives somebody a session of their first device, named as they are.
func startSession(w *world, name string) error {
	lines := w.step("login "+name, nil)
	if len(lines) == 0 || lines[0][:2] != "Ok" {
		return fmt.Errorf("login of %s: %v", name, lines)
	}
	return nil
}

func TestCosignedHeadsAreProvedToo(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.join("alice")
		c := w.skeptic()
		wantReason(t, second(c.ask(kt.Query{Username: "alice", Cosigned: true})), pb.Reason_NOT_SUPPORTED)
		signed := c.mustAsk(kt.Query{}).Head
		witness := ed25519.NewKeyFromSeed(make([]byte, 32))
		lines, err := kt.Cosign(signed.Note, "witness.example", witness, uint64(time.Now().Unix()))
		w.check(err)
		by, err := kt.NewWitness("witness.example", witness.Public().(ed25519.PublicKey))
		w.check(err)
		note, _, err := kt.AddCosignature(signed.Note, lines, by)
		w.check(err)
		if w.engine.Cosigned(note, signed.Size-1) || !w.engine.Cosigned(note, signed.Size) {
			t.Fatal("cosigned: another size was taken, or the right one not")
		}
		c.verifier.Policy, err = kt.ParsePolicy(1, []string{by.String()})
		w.check(err)
		w.join("bob")
		if p := c.mustAsk(kt.Query{Username: "alice", Cosigned: true}); !p.Person.Exists() || !p.Head.Cosigned {
			t.Errorf("alice under the cosigned head: %+v", p.Person)
		}
		// What the witness has not seen is not there yet; that is no lie, although
		// the client has seen a newer head meanwhile.
		if p := c.mustAsk(kt.Query{Username: "bob"}); !p.Person.Exists() {
			t.Error("bob is not under the signed head")
		}
		if p := c.mustAsk(kt.Query{Username: "bob", Cosigned: true}); p.Person.Exists() {
			t.Error("bob is under the cosigned head")
		}
	})
}

func TestLookupsCarryTheirProof(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.join("alice")
		view, err := w.engine.ProofView(t.Context(), commands.Caller{}, &pb.ProofRequest{})
		w.check(err)
		resolved, err := commands.ResolveUser(view, &pb.ResolveUserRequest{Username: "alice", Proof: &pb.ProofRequest{}})
		view.Release()
		w.check(err)
		if string(resolved.GetIdentityKey()) != string(w.public("alice")) || len(resolved.GetProof().GetHistories()) != 4 {
			t.Errorf("alice: %d histories", len(resolved.GetProof().GetHistories()))
		}
		for _, read := range []func(*commands.View) (*pb.KeyProof, error){
			func(v *commands.View) (*pb.KeyProof, error) {
				r, err := commands.ResolveUser(v, &pb.ResolveUserRequest{Username: "nobody"})
				return r.GetProof(), err
			},
			func(v *commands.View) (*pb.KeyProof, error) {
				r, err := commands.FetchHybridKey(v, &pb.FetchHybridKeyRequest{IdentityKey: w.public("nobody")})
				return r.GetProof(), err
			},
			func(v *commands.View) (*pb.KeyProof, error) {
				r, err := commands.FetchHybridKeys(v, &pb.FetchHybridKeysRequest{IdentityKeys: [][]byte{w.public("nobody"), w.public("alice")}})
				return r.GetProof(), err
			},
		} {
			view, err := w.engine.ProofView(t.Context(), commands.Caller{}, &pb.ProofRequest{})
			w.check(err)
			if made, err := read(view); err != nil || made.GetMap() == nil {
				t.Errorf("nobody is not proved: %v", err)
			}
			view.Release()
		}
		view, err = w.engine.ProofView(t.Context(), commands.Caller{}, &pb.ProofRequest{})
		w.check(err)
		defer view.Release()
		many := make([][]byte, commands.MaxProvedKeys+1)
		for i := range many {
			many[i] = w.public("alice")
		}
		_, err = commands.FetchHybridKeys(view, &pb.FetchHybridKeysRequest{IdentityKeys: many})
		wantReason(t, err, pb.Reason_TOO_MANY_ITEMS)
	})
}

func TestProofRequestsThatAreWrong(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.join("alice")
		c := w.skeptic()
		note := c.mustAsk(kt.Query{}).Head.Note
		forged := kt.Checkpoint{Origin: serverName + "/1", Size: 5, Root: kt.Hash{1}}
		other, err := kt.SignCheckpoint(forged, w.key("somebody"))
		w.check(err)
		for name, req := range map[string]*pb.ProofRequest{
			"no note":        {KnownNote: []byte("note")},
			"another's key":  {KnownNote: other},
			"cut":            {KnownNote: note[:len(note)-3]},
			"config without": {KnownConfig: 1},
		} {
			view, err := w.engine.ProofView(t.Context(), commands.Caller{}, req)
			if err == nil {
				_, err = view.Proofs.Proof()
				view.Release()
			}
			t.Log(name)
			wantReason(t, err, pb.Reason_INVALID_FIELD)
		}
		if err := w.engine.SigningStopped(); err != nil {
			t.Errorf("a bad request stopped signing: %v", err)
		}
	})
}

func TestProofsWaitForTheSigner(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w.join("alice")
		if _, err := w.engine.ProveOwn(ctx, nil, nil); err != nil {
			t.Errorf("nothing asked: %v", err)
		}
		own, err := w.engine.ProveOwn(ctx, &pb.ProofRequest{}, func(p *commands.Proofs) error { return p.Person("alice") })
		if err != nil || own.GetMap() == nil {
			t.Errorf("own proof: %v", err)
		}
		boom := errors.New("boom")
		if _, err := w.engine.ProveOwn(ctx, &pb.ProofRequest{}, func(*commands.Proofs) error { return boom }); !errors.Is(err, boom) {
			t.Errorf("an internal failure: %v", err)
		}
	})
}

func second(_ *kt.Answer, err error) error { return err }

func wantReason(t *testing.T, err error, reason pb.Reason) {
	t.Helper()
	if r := commands.AsRefusal(err); r == nil || r.Reason != reason {
		t.Errorf("got %v, want %v", err, reason)
	}
}
