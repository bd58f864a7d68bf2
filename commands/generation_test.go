package commands_test

import (
	"errors"
	"strings"
	"testing"

	"quicprochat/commands"
	"quicprochat/kt"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// beginGeneration declares a loss on the stopped server's directory, as an
// administrator does.
func (w *world) beginGeneration() commands.Generation {
	w.t.Helper()
	w.startUp()
	g, err := w.engine.BeginGeneration(w.t.Context())
	w.check(err)
	w.shut()
	return g
}

// TestNewGeneration loses the end of a log that a client saw: nothing is signed
// until an operator declares the loss. Then the log goes on under another origin;
// whoever knew the lost end refuses it until told otherwise, and nothing of that
// end counts any more.
func TestNewGeneration(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.people("alice", w.arguments([]string{"bob"}))
		early := w.skeptic() // knows nothing but what is not lost
		early.mustAsk(kt.Query{Username: "alice"})
		w.step("bob Enqueue recipient_key=alice payload=kept", nil)
		w.step(`socket ResetAccount username="bob"`, nil)
		w.shut()
		old := w.backUp()

		w.startUp()
		w.step("bob Enqueue recipient_key=alice payload=lost", nil) // alice reads it: number 2
		w.join("carol")
		witness := w.skeptic()
		lost := witness.mustAsk(kt.Query{Username: "carol"}).Head.Size
		w.shut()
		w.putBack(old)
		w.startUp()
		_, err := witness.ask(kt.Query{Username: "alice"})
		wantReason(t, err, pb.Reason_SIGNING_STOPPED)
		if stopped := w.engine.SigningStopped(); stopped == nil || !strings.Contains(stopped.Error(), "admin new-generation --accept-loss") {
			t.Fatalf("the cause does not say how to go on: %v", stopped)
		}
		w.shut()

		g := w.beginGeneration()
		if g.Before != serverName+"/1" || g.Origin != serverName+"/2" || g.Lost != lost {
			t.Errorf("begun: %+v, want the loss of %d records", g, lost)
		}
		if _, err := w.fs.Stat(w.fs.PathJoin(w.dir, "guard.evidence")); err == nil {
			t.Error("the note that speaks against the log before is still there")
		}
		w.startUp()
		if err := w.engine.SigningStopped(); err != nil {
			t.Fatalf("after the loss was declared: %v", err)
		}
		stranger := w.skeptic()
		if head := stranger.mustAsk(kt.Query{Username: "alice"}).Head; head.Origin != g.Origin {
			t.Errorf("a stranger is shown %s", head.Origin)
		}

		// Who knew the lost end is told so; who knew only what is left sees it in the proof.
		_, err = witness.ask(kt.Query{Username: "alice"})
		wantReason(t, err, pb.Reason_LOG_GENERATION)
		var anew *kt.NewGenerationError
		if _, err := early.ask(kt.Query{Username: "alice"}); !errors.As(err, &anew) || anew.Known != 1 || anew.Shown != 2 {
			t.Errorf("without consent: %v", err)
		}
		for _, c := range []*skeptic{witness, early} {
			c.state.Consent(2)
			c.mustAsk(kt.Query{Username: "bob"})
			c.mustAsk(kt.Query{Username: "alice"})
		}

		// Nothing of the lost end counts: sessions, tokens, numbers of queues.
		if got := w.step("alice Peek", nil)[0]; got != "Unauthorized TOKEN_INVALID" {
			t.Errorf("a session of before: %s", got)
		}
		if got := w.register("bob", w.arguments([]string{"keys=anew", "credential=anew", "reset_token=token1"}))[0]; got != "BadRequest RESET_TOKEN_INVALID" {
			t.Errorf("a reset token of before: %s", got)
		}
		w.login("alice", w.arguments(nil))
		w.login("bob", w.arguments(nil))
		w.step("bob Enqueue recipient_key=alice payload=new", nil)
		fetched := strings.Join(w.step("alice Fetch after_seq=2", nil), " ") // what was read before the loss
		if !strings.Contains(fetched, `[{seq=4294967298 message_id=m3 payload=new `) || strings.Contains(fetched, "kept") {
			t.Errorf("confirming what was read in the lost end gives %s", fetched)
		}
		w.rebuild()
	})
}

// TestGenerationsRise: a second loss goes on above whatever was signed, also when
// the copy knows nothing of the first one.
func TestGenerationsRise(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.join("alice")
		w.shut()
		old := w.backUp()
		if g := w.beginGeneration(); g.Origin != serverName+"/2" || g.Lost != 0 {
			t.Fatalf("begun: %+v", g)
		}
		w.startUp()
		witness := w.skeptic()
		witness.mustAsk(kt.Query{Username: "alice"})
		w.shut()

		w.putBack(old, "guard")
		w.startUp()
		if err := w.engine.SigningStopped(); err == nil || !strings.Contains(err.Error(), "of generation 2") {
			t.Errorf("the guard knows a later generation: %v", err)
		}
		w.shut()
		w.putBack(old)
		w.startUp()
		_, err := witness.ask(kt.Query{Username: "alice"})
		wantReason(t, err, pb.Reason_SIGNING_STOPPED)
		w.shut()
		w.startUp()
		if err := w.engine.SigningStopped(); err == nil || !strings.Contains(err.Error(), "of generation 2") {
			t.Errorf("the kept note is of a later generation: %v", err)
		}
		w.shut()
		if g := w.beginGeneration(); g.Origin != serverName+"/3" {
			t.Errorf("begun after the second loss: %+v", g)
		}
		w.startUp()
		if err := w.engine.SigningStopped(); err != nil {
			t.Fatal(err)
		}
		_, err = witness.ask(kt.Query{Username: "alice"})
		wantReason(t, err, pb.Reason_LOG_GENERATION)
		if configs := w.configs(); len(configs) != 2 {
			t.Errorf("%d CONFIGs", len(configs))
		}
		w.skeptic().mustAsk(kt.Query{Username: "alice"})
	})
}

func (w *world) configs() []projections.ConfigRef {
	view := w.view()
	defer view.Release()
	configs, err := projections.ConfigsFrom(view.Reader, 0)
	w.check(err)
	return configs
}

// TestNewGenerationAfterADamagedGuard: with nothing left of the guard the same
// decision goes on.
func TestNewGenerationAfterADamagedGuard(t *testing.T) {
	inWorld(t, true, func(t *testing.T, w *world) {
		w.join("alice")
		w.shut()
		w.damageGuard()
		w.beginGeneration()
		w.startUp()
		if err := w.engine.SigningStopped(); err != nil {
			t.Fatal(err)
		}
		w.skeptic().mustAsk(kt.Query{Username: "alice"})
	})
}
