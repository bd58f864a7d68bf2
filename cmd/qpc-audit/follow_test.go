package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quicprochat/kt"
)

// bothModes runs a test on a full audit and on one of key events alone.
func bothModes(t *testing.T, test func(t *testing.T, a *audited)) {
	t.Run("full", func(t *testing.T) { test(t, newAudited(t)) })
	t.Run("kt-only", func(t *testing.T) { test(t, newAudited(t, "--kt-only")) })
}

func TestFollowAnHonestLog(t *testing.T) {
	bothModes(t, func(t *testing.T, a *audited) {
		a.want(exitSatisfied, "satisfied: 2 leaves (+2), 1 heads, 0 key events")
		for _, events := range []int{1, 5, 700, 1} {
			a.grow(events)
			said := a.want(exitSatisfied, "satisfied", "log         chat.example.org/1", "NOT SEEN")
			if (len(a.flags) > 0) != strings.Contains(said, "deltas leave out") {
				t.Errorf("the report does not say what it can't see:\n%s", said)
			}
		}
		// Nothing new: nothing but the checkpoint and what ties it is read.
		a.asked()
		a.want(exitSatisfied, "(+0)")
		if n := a.asked(); n > 6 {
			t.Errorf("%d requests when nothing is new", n)
		}
		// A run after a kill has an older replay state, or none.
		if err := os.Remove(filepath.Join(a.state, replayFile)); err != nil {
			t.Fatal(err)
		}
		a.grow(10)
		a.want(exitSatisfied, "satisfied")
		var s state
		content, err := os.ReadFile(filepath.Join(a.state, stateFile))
		if err != nil || json.Unmarshal(content, &s) != nil || s.Newest != string(a.signed) || s.Log != a.vkey() {
			t.Errorf("the state does not hold the full note (%v):\n%s", err, content)
		}
		if info, err := os.Stat(filepath.Join(a.state, stateFile)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode of the state file: %v, %v", info.Mode(), err)
		}
	})
}

// TestFollowFindsLies has one case for each thing that a replay is there for.
func TestFollowFindsLies(t *testing.T) {
	cases := map[string]struct {
		step kt.Step
		lie  func(a *audited)
		// hidden: an audit of key events alone can't see it, and says so.
		hidden bool
		// proved: the file shows it to whoever does not have the log.
		proved bool
	}{
		"a second commitment for a label": {kt.StepMap, func(a *audited) {
			leaf := bytes.Clone(a.leaves[3])
			for kt.Class(leaf[0]) != kt.ClassKT {
				a.t.Fatal("leaf 3 is no KT leaf")
			}
			leaf[40] ^= 1
			a.force(leaf)
			a.force(kt.AppendHeadLeaf(nil, a.head()))
		}, false, false},
		"a map root that is not that of the leaves": {kt.StepMap, func(a *audited) {
			h := a.head()
			h.MapRoot[3] ^= 1
			a.force(kt.AppendHeadLeaf(nil, h))
		}, false, true},
		"a KT leaf that the head does not count": {kt.StepHead, func(a *audited) {
			h := a.head()
			a.force(ktLeaf(99999))
			a.force(kt.AppendHeadLeaf(nil, h))
		}, false, false},
		"a heads root that hides a head": {kt.StepHeads, func(a *audited) {
			h := a.head()
			h.HeadsRoot[0] ^= 1
			a.force(kt.AppendHeadLeaf(nil, h))
		}, false, false},
		"a time that goes back": {kt.StepHead, func(a *audited) {
			h := a.head()
			h.TimeMS -= 1000
			a.force(kt.AppendHeadLeaf(nil, h))
		}, false, true},
		"an epoch twice": {kt.StepHead, func(a *audited) {
			h := a.head()
			h.Epoch--
			a.force(kt.AppendHeadLeaf(nil, h))
		}, false, true},
		"no head at the end": {kt.StepHead, func(a *audited) { a.force(opaqueLeaf(5)) }, false, true},
		"an unknown class": {kt.StepLeaf, func(a *audited) {
			a.force([]byte{9, 9})
			if err := a.replayer.Append(opaqueLeaf(1)); err != nil {
				a.t.Fatal(err)
			}
			a.seal()
		}, true, true},
		"an opaque leaf with more in it": {kt.StepLeaf, func(a *audited) {
			a.force(append(opaqueLeaf(1), 1))
			if err := a.replayer.Append(opaqueLeaf(1)); err != nil {
				a.t.Fatal(err)
			}
			a.seal()
		}, true, true},
		"a second first CONFIG": {kt.StepConfig, func(a *audited) {
			a.force(kt.AppendConfigLeaf(nil, a.config()))
			a.force(kt.AppendHeadLeaf(nil, a.head()))
		}, false, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, a *audited) {
				a.grow(50)
				a.want(exitSatisfied)
				c.lie(a)
				a.publish()
				if c.hidden && len(a.flags) > 0 {
					a.want(exitSatisfied, "NOT SEEN", "the form of all other leaves")
					return
				}
				a.want(exitEvidence, "EVIDENCE AGAINST THE SERVER", "("+string(c.step)+")", "saved in")
				a.checkEvidence(c.step, c.proved)
			})
		})
	}
}

// checkEvidence reads the evidence file and verifies it offline. proved is whether
// the file shows by itself that the log lied.
func (a *audited) checkEvidence(step kt.Step, proved bool) {
	a.t.Helper()
	files, err := filepath.Glob(filepath.Join(a.state, "evidence-*.json"))
	if err != nil || len(files) == 0 {
		a.t.Fatalf("no evidence file: %v", err)
	}
	newest := files[len(files)-1]
	status, words := exitEvidence, "EVIDENCE AGAINST THE SERVER ("+string(step)+")"
	if !proved {
		status, words = exitUnsettled, "the file alone does not prove what it says ("+string(step)+":"
	}
	code, stdout, stderr := call(a.t, "verify", "--vkey", a.vkey(), newest)
	if code != status || !strings.Contains(stdout, "signed by the log") || !strings.Contains(stderr, words) {
		a.t.Errorf("verify: %d\n%s%s", code, stdout, stderr)
	}
	// Evidence that somebody made up shows nothing.
	content, err := os.ReadFile(newest)
	if err != nil {
		a.t.Fatal(err)
	}
	forged := filepath.Join(a.t.TempDir(), "forged.json")
	if err := os.WriteFile(forged, bytes.Replace(content, []byte(`"note": "chat.example.org/1\n`), []byte(`"note": "chat.example.org/1\n1`), 1), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if code, stdout, stderr := call(a.t, "verify", "--vkey", a.vkey(), forged); code != exitUnsettled {
		a.t.Errorf("verify of forged evidence: %d\n%s%s", code, stdout, stderr)
	}
}

// TestFollowFindsTwoHistories: another log that is signed by the same key.
func TestFollowFindsTwoHistories(t *testing.T) {
	bothModes(t, func(t *testing.T, a *audited) {
		a.grow(300)
		a.want(exitSatisfied)
		size := a.size()
		other := newFakeLog(t)
		other.now++
		other.grow(200)
		for other.size() < size-1 {
			other.add(opaqueLeaf(77))
		}
		other.seal()
		other.publish()
		a.url = other.serve()
		a.want(exitEvidence, "consistency", "two histories")
		a.checkEvidence(kt.StepConsistency, true)
		other.grow(100)
		a.want(exitEvidence, "consistency", "saved in")
		a.checkEvidence(kt.StepConsistency, true)
	})
}

// TestFollowFindsAHiddenHead: a head that is in the log and in no delta, as it
// was shown to one victim. The audit of key events alone says that it can't see
// such a thing; reading every leaf does.
func TestFollowFindsAHiddenHead(t *testing.T) {
	bothModes(t, func(t *testing.T, a *audited) {
		a.grow(50)
		shadow := a.head()
		shadow.MapRoot[0] ^= 1
		a.force(kt.AppendHeadLeaf(nil, shadow))
		a.heads = a.heads[:len(a.heads)-1] // of no delta
		// The log goes on as if that leaf were another one.
		if err := a.replayer.Append(opaqueLeaf(1)); err != nil {
			t.Fatal(err)
		}
		a.hidden = len(a.leaves) - 1
		a.seal()
		a.publish()
		if len(a.flags) > 0 {
			a.want(exitSatisfied, "heads that were shown to somebody")
			return
		}
		a.want(exitEvidence, "(map)")
	})
}

// TestFollowAccusesNobody: what looks odd and is no evidence.
func TestFollowAccusesNobody(t *testing.T) {
	bothModes(t, func(t *testing.T, a *audited) {
		a.grow(100)
		older := a.signed
		a.grow(100)
		a.want(exitSatisfied)
		a.show(older)
		a.want(exitUnsettled, "unsettled", "put back to an old copy")
		a.show([]byte("no note"))
		a.want(exitUnsettled, "no checkpoint")
		a.publish()
		a.want(exitSatisfied)
		a.tell(func(path string, body []byte) []byte {
			if path == "checkpoint" {
				return nil
			}
			return body
		})
		a.want(exitUnreachable)
		a.tell(nil)
		a.flags = append(a.flags, "--freshness", "1ns")
		a.want(exitUnsettled, "stale")
	})
}

// TestFollowAsksTwice: a byte that a proxy broke once accuses nobody; one that
// stays broken does.
func TestFollowAsksTwice(t *testing.T) {
	bothModes(t, func(t *testing.T, a *audited) {
		a.grow(100)
		times := 1
		a.tell(func(path string, body []byte) []byte {
			if strings.HasPrefix(path, "tile/entries/") || strings.HasPrefix(path, "kt/delta/") {
				if times > 0 {
					times--
					body[len(body)-3] ^= 1
				}
			}
			return body
		})
		a.want(exitSatisfied)
		a.grow(1)
		times = 1000
		a.want(exitEvidence)
	})
}

// TestFollowMissesWhatWasSigned: a server that does not serve what it signed.
func TestFollowMissesWhatWasSigned(t *testing.T) {
	bothModes(t, func(t *testing.T, a *audited) {
		a.grow(600)
		a.tell(func(path string, body []byte) []byte {
			if strings.HasPrefix(path, "tile/entries/001") || strings.HasPrefix(path, "kt/delta/") {
				return nil
			}
			return body
		})
		a.want(exitEvidence, "does not serve what it covers")
	})
}

// TestFollowWantsTheRightKey: another key than the one given, at first contact
// and later.
func TestFollowWantsTheRightKey(t *testing.T) {
	bothModes(t, func(t *testing.T, a *audited) {
		a.grow(20)
		right := a.key
		a.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
		wrong := a.vkey()
		otherLog, err := kt.VerifierKey("other.example.org/1", right.Public().(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		a.key = right
		code, stdout, stderr := call(t, append([]string{"follow", "--once", "--url", a.url, "--state", a.state, "--vkey", wrong}, a.flags...)...)
		if code != exitUnsettled || !strings.Contains(stderr, "--vkey") {
			t.Errorf("%d\n%s%s", code, stdout, stderr)
		}
		a.want(exitSatisfied)
		// A folder that knows the log does not hide that the key given is another one.
		for _, line := range []string{wrong, otherLog} {
			code, stdout, stderr = call(t, append([]string{"follow", "--once", "--url", a.url, "--state", a.state, "--vkey", line}, a.flags...)...)
			if code != exitUnsettled || !strings.Contains(stderr, "does not have the key given with --vkey") {
				t.Errorf("%d\n%s%s", code, stdout, stderr)
			}
		}
		a.grow(20)
		a.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
		a.publish()
		forged := a.signed
		a.key = right
		a.show(forged)
		a.want(exitUnsettled, "not signed by the key that its log names")
	})
}

// TestFollowTheKeyChange: the log passes itself on to a new key, in the log.
func TestFollowTheKeyChange(t *testing.T) {
	bothModes(t, func(t *testing.T, a *audited) {
		vkey := a.vkey()
		a.grow(20)
		a.want(exitSatisfied)
		before := a.key
		a.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
		next := a.config()
		next.Link(0, before)
		a.add(kt.AppendConfigLeaf(nil, next))
		a.grow(20)
		code, stdout, stderr := call(t, append([]string{"follow", "--once", "--url", a.url, "--state", a.state, "--vkey", vkey}, a.flags...)...)
		if code != exitSatisfied {
			t.Errorf("%d\n%s%s", code, stdout, stderr)
		}
		// Begun anew after a loss: only a person may decide to go on.
		a.show(a.sign("chat.example.org/2", a.size(), kt.Hash(a.tree.Hash())))
		a.want(exitEvidence, "begun anew")
	})
}

// TestFollowPolicy asks for witnesses.
func TestFollowPolicy(t *testing.T) {
	a := newAudited(t)
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))
	w, err := kt.NewWitness("witness.example.net", key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	a.flags = []string{"--witness", w.String()}
	a.grow(5)
	a.want(exitUnsettled, "policy", "1 wanted")
	line, err := kt.Cosign(a.signed, w.Name(), key, uint64(time.Now().Unix()))
	if err != nil {
		t.Fatal(err)
	}
	a.show(append(bytes.Clone(a.signed), line...))
	a.want(exitSatisfied, "cosigned by witness.example.net", "1 cosignatures")
	content, err := os.ReadFile(filepath.Join(a.state, stateFile))
	if err != nil || !bytes.Contains(content, []byte("cosigned_note")) {
		t.Errorf("the cosigned note is not kept: %v\n%s", err, content)
	}
}

// TestFollowGoesOn: without --once it checks again and again, tells each time,
// counts, and ends with 0 when it is interrupted and with 1 when it finds
// something.
func TestFollowGoesOn(t *testing.T) {
	for _, lie := range []bool{false, true} {
		a := newAudited(t)
		a.grow(20)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		lines, out := io.Pipe()
		status := make(chan int, 1)
		go func() {
			args := []string{"follow", "--interval", "1s", "--url", a.url, "--state", a.state, "--metrics-listen", "127.0.0.1:0"}
			code := run(ctx, args, nil, out, io.Discard)
			out.Close()
			status <- code
		}()
		scanner := bufio.NewScanner(lines)
		for n := range 2 {
			if !scanner.Scan() || !strings.Contains(scanner.Text(), "satisfied") {
				t.Fatalf("check %d: %q", n, scanner.Text())
			}
			a.grow(5)
		}
		want := exitSatisfied
		if lie {
			want = exitEvidence
			a.show(a.sign(fakeOrigin, a.size(), kt.Hash{1}))
		} else {
			cancel()
		}
		found := false
		for scanner.Scan() { // a check may come before what was to be shown next is shown
			if text := scanner.Text(); found || !strings.Contains(text, "satisfied") && !(lie && strings.Contains(text, "EVIDENCE")) {
				t.Errorf("at the end: %q", text)
			}
			found = found || strings.Contains(scanner.Text(), "EVIDENCE")
		}
		if found != lie {
			t.Errorf("lie %v, found %v", lie, found)
		}
		if got := <-status; got != want {
			t.Errorf("status %d, want %d", got, want)
		}
	}
}

// TestFollowAccusesNobodyOfForgedNotes: whoever stands between the auditor and the
// log can write a note, and spoil what comes with it. That is no evidence, whatever
// else does not hold.
func TestFollowAccusesNobodyOfForgedNotes(t *testing.T) {
	bothModes(t, func(t *testing.T, a *audited) {
		a.grow(100)
		a.want(exitSatisfied)
		size := a.size()
		a.grow(10)
		forge := func(origin string, size uint64, root kt.Hash) {
			right := a.key
			a.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
			a.show(a.sign(origin, size, root))
			a.key = right
		}
		for name, c := range map[string]kt.Checkpoint{
			"the same size, another root": {Origin: fakeOrigin, Size: size, Root: kt.Hash{1}},
			"more leaves, another root":   {Origin: fakeOrigin, Size: a.size(), Root: kt.Hash{2}},
			"an earlier size":             {Origin: fakeOrigin, Size: 50, Root: kt.Hash{3}},
			"more leaves than there are":  {Origin: fakeOrigin, Size: 1 << 40, Root: kt.Hash{4}},
			"no leaves":                   {Origin: fakeOrigin, Root: kt.EmptyHeadsRoot},
			"another generation":          {Origin: "chat.example.org/2", Size: a.size(), Root: kt.Hash{5}},
		} {
			forge(c.Origin, c.Size, c.Root)
			if code, said := a.check(); code != exitUnsettled || strings.Contains(said, "EVIDENCE") {
				t.Errorf("%s: %d\n%s", name, code, said)
			}
		}
		// The same in a first run, of which no state can tell.
		first := filepath.Join(t.TempDir(), "first")
		forge(fakeOrigin, a.size(), kt.Hash{2})
		code, stdout, stderr := call(t, append([]string{"follow", "--once", "--url", a.url, "--state", first}, a.flags...)...)
		if code != exitUnsettled {
			t.Errorf("first contact: %d\n%s%s", code, stdout, stderr)
		}
		for _, folder := range []string{a.state, first} {
			if files, _ := filepath.Glob(filepath.Join(folder, "evidence-*")); len(files) > 0 {
				t.Errorf("evidence was kept: %v", files)
			}
		}
		a.publish()
		a.want(exitSatisfied)
	})
}

// TestFollowSurvivesHugeLogs: a signed size that no log has neither fills the memory
// nor takes for ever.
func TestFollowSurvivesHugeLogs(t *testing.T) {
	bothModes(t, func(t *testing.T, a *audited) {
		a.grow(300)
		a.want(exitSatisfied)
		for size, want := range map[uint64]int{1 << 40: exitEvidence, 1 << 62: exitUnsettled, 1<<63 - 1: exitUnsettled} {
			a.show(a.sign(fakeOrigin, size, kt.Hash{1}))
			a.want(want)
		}
		a.show(a.sign(fakeOrigin, 0, kt.EmptyHeadsRoot))
		a.want(exitEvidence, "empty log")
		// A HEAD of an absurd epoch at the end has deltas without end.
		h := a.head()
		h.Epoch, h.PrevHead = 1<<60, 1<<60
		a.force(kt.AppendHeadLeaf(nil, h))
		a.publish()
		a.want(exitEvidence, "(head)")
		// A resource without end is not read to it.
		b := newAudited(t, a.flags...)
		b.grow(20)
		b.tell(func(path string, body []byte) []byte {
			if !strings.HasPrefix(path, "tile/entries/") {
				return body
			}
			return append(body, make([]byte, 1<<20)...)
		})
		b.want(exitEvidence, "too long")
	})
}
