package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/sim"
)

// audienceOfLiar meets a Liar in front of a real server, in whose account list
// alice stands with a home.
type audienceOfLiar struct {
	*audienceOf
	liar  *sim.Liar
	alice *owner
}

func meetLiar(t *testing.T) *audienceOfLiar {
	t.Helper()
	a := &audienceOfLiar{audienceOf: bootServer(t)}
	a.alice = a.register("alice")
	liar, err := sim.NewLiar(a.node, vfs.Default, filepath.Dir(a.node.CAFile()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { liar.Close() })
	a.liar = liar
	return a
}

// in is the audience of one test, with a state folder of its own.
func (a *audienceOfLiar) in(t *testing.T) *audienceOfLiar {
	inner := *a.audienceOf
	inner.t, inner.state = t, filepath.Join(t.TempDir(), "state")
	inner.flags = []string{"--server", a.liar.Addr().String(), "--ca-cert", a.node.CAFile(), "--vkey", a.node.VerifierKeyFile(), "--state", inner.state}
	return &audienceOfLiar{&inner, a.liar, a.alice}
}

func (a *audienceOfLiar) copy() *sim.FalseLog {
	a.t.Helper()
	f, err := a.liar.Copy()
	if err != nil {
		a.t.Fatal(err)
	}
	return f
}

// auditedLie is one lie of a server to qpc-audit.
type auditedLie struct {
	threat, name string
	args         []string
	status       int
	// step is in the evidence that is saved; empty for what leaves none.
	step  kt.Step
	words []string
	// replayed: nobody sees it who does not replay the log.
	replayed bool
	// tell turns a copy of the log, which the audit was satisfied with, into the lie.
	tell func(a *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog
}

var follow, keysOnly = []string{"follow", "--once"}, []string{"follow", "--once", "--kt-only"}

func auditedLies(a *audienceOfLiar) []auditedLie {
	_, mallory, _ := ed25519.GenerateKey(nil)
	identity := a.alice.identity.Public().(ed25519.PublicKey)
	check, monitor := []string{"check", "alice", "--home", a.alice.home}, []string{"monitor", "--once", "--home", a.alice.home}
	revoked := &pb.Revocation{Reason: 1, TimeMs: 1, Authority: pb.Authority_ADMINISTRATOR}
	// shadow shows somebody, under a HEAD of its own, a key of mallory's for alice,
	// and has none of it in the map, the tree of heads or a delta.
	shadow := func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
		f.Bind("alice", mallory)
		f.Seal(nil)
		f.Disown()
		f.Unmap(kt.KindAccount, []byte("alice"), 1, true)
		f.Unmap(kt.KindIdentity, mallory.Public().(ed25519.PublicKey), 0, true)
		f.Seal(nil)
		return f
	}
	return []auditedLie{
		{sim.Hides, "check: a revocation", []string{"check", hex.EncodeToString(identity)}, exitEvidence, kt.StepMap, nil, false, func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
			f.Enter(kt.KindRevocation, identity, revoked)
			f.Hide(kt.KindRevocation, identity, 0)
			f.Seal(nil)
			return f
		}},
		{sim.Hides, "check: a newer binding", check, exitEvidence, kt.StepMap, nil, false, func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
			f.Bind("alice", mallory)
			f.Hide(kt.KindAccount, []byte("alice"), 1)
			f.Seal(nil)
			return f
		}},
		{sim.Adds, "monitor: a binding on the server's word", monitor, exitEvidence, "", []string{"NOT DONE BY THIS HOME", "on the server's word alone"}, false, func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
			f.Bind("alice", mallory)
			f.Seal(nil)
			return f
		}},
		{sim.Adds, "monitor: a revocation on the server's word", monitor, exitEvidence, "", []string{"NOT DONE BY THIS HOME", "the identity key is revoked", "on the server's word"}, false, func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
			f.Enter(kt.KindRevocation, identity, revoked)
			f.Seal(nil)
			return f
		}},
		{sim.Removes, "follow: a key that was removed", follow, exitEvidence, kt.StepHead, []string{"kt_count"}, false, func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
			f.Bind("alice", mallory)
			f.Seal(nil)
			f.Unmap(kt.KindAccount, []byte("alice"), 1, true)
			f.Seal(nil)
			return f
		}},
		{sim.Removes, "follow: a key that was removed, and counted", follow, exitEvidence, kt.StepMap, []string{"map_root"}, true, func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
			f.Bind("alice", mallory)
			f.Unmap(kt.KindAccount, []byte("alice"), 1, true)
			f.Seal(func(h *kt.Head) { h.KTCount++ })
			return f
		}},
		{sim.Shadows, "follow: a shadow HEAD", follow, exitEvidence, kt.StepHead, []string{"epoch"}, false, shadow},
		{sim.Shadows, "follow --kt-only: says that it can't see a shadow HEAD", keysOnly, exitSatisfied, "", []string{"NOT SEEN", "heads that were shown to somebody"}, false, shadow},
		{sim.Erases, "check: erased", check, exitEvidence, kt.StepOpening, nil, false, func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
			f.Unopened = func(kt.Kind, []byte, uint32) bool { return true }
			return f
		}},
		{sim.Erases, "check: labels", check, exitEvidence, kt.StepVRF, nil, false, func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
			f.VRF = kt.NewVRFPrivateKey([32]byte{9})
			f.Hide(kt.KindAccount, []byte("alice"), 0)
			f.Bind("alice", mallory)
			f.Seal(nil)
			return f
		}},
		{sim.Forks, "follow: two histories", follow, exitEvidence, kt.StepConsistency, nil, false, func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
			f = f.Fork(f.Shown() - 1)
			f.Opaque(7)
			f.Seal(nil)
			return f
		}},
		{sim.Forks, "follow --kt-only: two histories", keysOnly, exitEvidence, kt.StepConsistency, nil, false, func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
			f = f.Fork(f.Shown() - 1)
			f.Opaque(7)
			f.Seal(nil)
			return f
		}},
		{sim.RollsBack, "follow: an old copy", follow, exitUnsettled, "", []string{"put back to an old copy"}, false, func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
			f = f.Fork(2)
			return f
		}},
		{sim.RollsBack, "check: an old copy that goes on", check, exitEvidence, kt.StepConsistency, nil, false, func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
			f = f.Fork(f.Shown() - 1)
			f.Opaque(3)
			f.Seal(nil)
			return f
		}},
		{sim.Backdates, "follow: a HEAD of before", follow, exitEvidence, kt.StepHead, []string{"time_ms"}, false, func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
			f.Seal(func(h *kt.Head) { h.TimeMS -= 60_001 })
			return f
		}},
		{sim.Alters, "follow: an altered event", follow, exitEvidence, kt.StepConsistency, nil, false, func(_ *audienceOfLiar, f *sim.FalseLog) *sim.FalseLog {
			f.Replace(1, kt.AppendOpaqueLeaf(nil, kt.Hash{1}))
			f.Seal(nil)
			return f
		}},
	}
}

// TestAuditorMeetsALiar: for every lie the audit was satisfied before, and then
// names the step that finds it, in a file that shows it to others.
func TestAuditorMeetsALiar(t *testing.T) {
	a := meetLiar(t)
	for _, lie := range auditedLies(a) {
		t.Run(lie.name, func(t *testing.T) {
			a := a.in(t)
			a.liar.Show(nil)
			a.want(exitSatisfied, lie.args)
			a.liar.Show(lie.tell(a, a.copy()))
			said := a.want(lie.status, lie.args, lie.words...)
			if lie.step != "" && !strings.Contains(said, "EVIDENCE AGAINST THE SERVER ("+string(lie.step)+")") {
				t.Errorf("it does not name step %s:\n%s", lie.step, said)
			}
			a.checkEvidence(lie.step, lie.replayed)
		})
	}
}

// checkEvidence reads what was saved and verifies it offline; without a step
// nothing may be saved. What only a replay shows is not believed of a file.
func (a *audienceOfLiar) checkEvidence(step kt.Step, replayed bool) {
	a.t.Helper()
	files, err := filepath.Glob(filepath.Join(a.state, "evidence-*.json"))
	if err != nil || len(files) != len(step[:min(1, len(step))]) {
		a.t.Fatalf("files of evidence for step %q: %v, %v", step, files, err)
	}
	if step == "" {
		return
	}
	code, stdout, stderr := call(a.t, "verify", "--vkey", a.node.VerifierKeyFile(), files[0])
	want, words := exitEvidence, "EVIDENCE AGAINST THE SERVER ("+string(step)+")"
	if replayed {
		want, words = exitUnsettled, "the file alone does not prove what it says ("+string(step)+":"
	}
	if code != want || !strings.Contains(stderr, words) {
		a.t.Errorf("verify: %d\n%s%s", code, stdout, stderr)
	}
}

// TestMirrorMeetsALiar: a mirror of an altered log does not get the signed root.
func TestMirrorMeetsALiar(t *testing.T) {
	a := meetLiar(t).in(t)
	f := a.copy()
	note := f.Note(f.Shown())
	f.Replace(3, kt.AppendOpaqueLeaf(nil, kt.Hash{1}))
	a.liar.Show(f)
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/checkpoint" {
			_, _ = w.Write(note)
			return
		}
		a.liar.ServeHTTP(w, r)
	}))
	defer served.Close()
	code, stdout, stderr := call(t, "mirror", "--url", served.URL, "--vkey", a.node.VerifierKeyFile(), filepath.Join(t.TempDir(), "copy"))
	if code != exitEvidence || !strings.Contains(stderr, "(consistency)") {
		t.Errorf("%d\n%s%s", code, stdout, stderr)
	}
}

// TestWitnessMeetsALiar: a witness signs one history, never an older or another
// one, and none in which it finds evidence.
func TestWitnessMeetsALiar(t *testing.T) {
	a := meetLiar(t).in(t)
	f := a.copy()
	a.liar.Show(f)
	served := httptest.NewServer(a.liar)
	defer served.Close()
	w := &testWitness{log: &fakeLog{t: t}, dir: t.TempDir()}
	key, err := openWitnessKey(filepath.Join(w.dir, "key"), "witness.example.net")
	if err != nil {
		t.Fatal(err)
	}
	flags := auditFlags{sourceFlags: sourceFlags{URL: served.URL}, trustFlags: trustFlags{VKey: a.node.VerifierKeyFile(), Freshness: time.Hour}, State: filepath.Join(w.dir, "state")}
	audit, err := flags.auditor(&app{stderr: &w.stderr})
	if err != nil {
		t.Fatal(err)
	}
	defer audit.close()
	metrics, err := openMetrics("", &w.stderr)
	if err != nil {
		t.Fatal(err)
	}
	w.witness = &witness{ctx: t.Context(), audit: audit, key: key, metrics: metrics, stderr: &w.stderr}
	submit := func(what string, from uint64, f *sim.FalseLog, want int) {
		t.Helper()
		a.liar.Show(f)
		status, body, _ := w.submit(kt.AddCheckpoint{Old: from, Proof: f.Consistency(from), Note: f.Note(f.Shown())})
		if status != want || (status == http.StatusOK) != strings.Contains(body, "—") {
			t.Errorf("%s: %d %q, want %d\n%s", what, status, body, want, &w.stderr)
		}
	}
	size := f.Shown()
	submit("the first", 0, f, http.StatusOK)
	longer := f.Fork(size)
	longer.Opaque(2)
	longer.Seal(nil)
	submit("what follows", size, longer, http.StatusOK)
	signed := longer.Shown()
	other := f.Fork(size)
	other.Opaque(5)
	other.Seal(nil)
	submit("another history, from before", size, other, http.StatusConflict)
	submit("another history, as if it were the same", signed, other, http.StatusUnprocessableEntity)
	submit("an old copy", size, f, http.StatusConflict)
	wrong := longer.Fork(signed)
	wrong.Seal(func(h *kt.Head) { h.MapRoot[0] ^= 1 })
	submit("a HEAD that does not hold", signed, wrong, http.StatusForbidden)
	if !strings.Contains(w.stderr.String(), "EVIDENCE AGAINST THE SERVER (map)") {
		t.Errorf("the operator is told %q", &w.stderr)
	}
}

// TestThreatsAreDocumented holds the rows of docs/transparency.md that are of this
// package's tests.
func TestThreatsAreDocumented(t *testing.T) {
	document, err := os.ReadFile("../../docs/transparency.md")
	if err != nil {
		t.Fatal(err)
	}
	told := []sim.Told{
		{Threat: sim.Forks, Test: "TestWitnessMeetsALiar", Found: "not cosigned"},
		{Threat: sim.Alters, Test: "TestMirrorMeetsALiar", Found: string(kt.StepConsistency)},
	}
	someone := &audienceOfLiar{alice: &owner{identity: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}}
	for _, lie := range auditedLies(someone) {
		found := string(lie.step)
		if lie.step == "" {
			found = strings.ToLower(lie.words[0])
		}
		told = append(told, sim.Told{Threat: lie.threat, Test: "TestAuditorMeetsALiar/" + lie.name, Found: found})
	}
	if err := sim.CheckThreats(string(document), told); err != nil {
		t.Error(err)
	}
}
