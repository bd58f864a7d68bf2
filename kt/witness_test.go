package kt

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// A cosignature and its key as filippo.io/torchwood v0.9.0 made them, with the
// Ed25519 seed 05 × 32, over testCheckpoint.
const (
	foreignWitness = "witness.example.org/w1+5f1e401c+BG56HN0psLeP0Tr0xVmP7/TvKpcWbjym8uT7/M2AUFvx"
	foreignLine    = "— witness.example.org/w1 Xx5AHAAAAABrB5beClM9Ljr+Nm8lMOdQO6s2YgRkDI50sc80X2NwUPfPVMOSskYM6rMrCAWDBX6WTioIvlrQ5MpCrXUsqa/IoIiTCg==\n"
	foreignSeconds = 0x6b0796de
)

func TestCosignaturesOfOthers(t *testing.T) {
	w, err := ParseWitness(foreignWitness)
	if err != nil || w.String() != foreignWitness || w.Name() != "witness.example.org/w1" {
		t.Fatalf("got %v, %v", w, err)
	}
	if line, err := Cosign(signedNote(t), w.Name(), testKey(5), foreignSeconds); err != nil || string(line) != foreignLine {
		t.Errorf("made %q, %v", line, err)
	}
	policy := must(ParsePolicy(1, []string{foreignWitness}))
	signed := append(signedNote(t), foreignLine...)
	if err := policy.Met(signed); err != nil {
		t.Error(err)
	}
	if got := policy.Cosignatures(signed); len(got) != 1 || got[0] != (Cosignature{"witness.example.org/w1", foreignSeconds}) {
		t.Errorf("got %+v", got)
	}
	if _, err := OpenCheckpoint(signed, "chat.example.org/1", public(testKey(1))); err != nil {
		t.Errorf("the log's own signature beside it: %v", err)
	}
}

func testWitnesses(t testing.TB) (vkeys []string) {
	t.Helper()
	for i := range byte(3) {
		vkeys = append(vkeys, must(NewWitness("w"+string('1'+i), public(testKey(5+i)))).String())
	}
	return vkeys
}

func TestPolicyCountsWitnesses(t *testing.T) {
	good := signedNote(t)
	line := func(name string, key byte) string { return string(must(Cosign(good, name, testKey(key), 1700000000))) }
	otherText := testCheckpoint()
	otherText.Size++
	elsewhere := string(must(Cosign(must(SignCheckpoint(otherText, testKey(1))), "w2", testKey(6), 1)))
	policy := must(ParsePolicy(2, testWitnesses(t)))
	for _, test := range []struct {
		name  string
		lines string
		want  int
	}{
		{"none", "", 0},
		{"one", line("w1", 5), 1},
		{"one, twice", line("w1", 5) + line("w1", 5), 1},
		{"two", line("w1", 5) + line("w3", 7), 2},
		{"all", line("w1", 5) + line("w3", 7) + line("w2", 6), 3},
		{"a stranger", line("w1", 5) + line("w4", 8), 1},
		{"a stranger under a known name", line("w1", 5) + line("w2", 8), 1},
		{"a cosignature of another note", line("w1", 5) + elsewhere, 1},
		{"the time changed", line("w1", 5) + changedTime(line("w2", 6)), 1},
		{"an invalid one does not hide the others", changedTime(line("w2", 6)) + line("w1", 5) + line("w3", 7), 2},
	} {
		signed := []byte(string(good) + test.lines)
		if got := len(policy.Cosignatures(signed)); got != test.want {
			t.Errorf("%s: %d cosignatures, want %d", test.name, got, test.want)
		}
		if err := policy.Met(signed); (err == nil) != (test.want >= 2) || err != nil && !errors.Is(err, ErrPolicy) {
			t.Errorf("%s: %v", test.name, err)
		}
		if err := (WitnessPolicy{}).Met(signed); err != nil {
			t.Errorf("%s: no policy: %v", test.name, err)
		}
	}
}

// changedTime changes the last byte of a cosignature's time.
func changedTime(line string) string {
	at := strings.LastIndexByte(line, ' ') + 1 + 14 // bytes 9 to 11 of the signature
	c := byte('A')
	if line[at] == c {
		c = 'B'
	}
	return line[:at] + string(c) + line[at+1:]
}

func TestPolicyRefuses(t *testing.T) {
	good := testWitnesses(t)
	logKey := must(VerifierKey("chat.example.org/1", public(testKey(1))))
	same := must(NewWitness("w9", public(testKey(5)))).String()
	sameName := must(NewWitness("w1", public(testKey(9)))).String()
	for name, test := range map[string]struct {
		k    int
		keys []string
	}{
		"more than there are":  {4, good},
		"none of some":         {0, good},
		"a negative number":    {-1, nil},
		"one key twice":        {1, append(good[:3:3], same)},
		"one name twice":       {1, append(good[:3:3], sameName)},
		"a log's key":          {1, []string{logKey}},
		"another key ID":       {1, []string{strings.Replace(foreignWitness, "5f1e", "5f1f", 1)}},
		"a key ID in capitals": {1, []string{strings.Replace(foreignWitness, "5f1e401c", "5F1E401C", 1)}},
		"another name":         {1, []string{"x" + foreignWitness}},
		"no name":              {1, []string{foreignWitness[strings.Index(foreignWitness, "+"):]}},
		"half a line":          {1, []string{foreignWitness[:40]}},
		"too many":             {1, make([]string, maxWitnesses+1)},
	} {
		if _, err := ParsePolicy(test.k, test.keys); !errors.Is(err, ErrWitnessKey) {
			t.Errorf("%s: got %v, want ErrWitnessKey", name, err)
		}
	}
	for _, name := range []string{"", "a b", "a+b", "a\nb", "a\u00a0b", "\ufffd", "\xff", strings.Repeat("a", 256)} {
		if _, err := NewWitness(name, public(testKey(5))); !errors.Is(err, ErrWitnessKey) {
			t.Errorf("the name %q passed: %v", name, err)
		}
	}
	if _, err := NewWitness("w", make([]byte, 32)); !errors.Is(err, ErrWitnessKey) {
		t.Errorf("a key of small order passed: %v", err)
	}
	k, keys := must(ParsePolicy(2, good)).Keys()
	if again := must(ParsePolicy(k, keys)); again.k != 2 || len(again.witnesses) != 3 || again.IsZero() || !(WitnessPolicy{}).IsZero() {
		t.Errorf("a policy made again is %+v", again)
	}
}

func TestAddCosignature(t *testing.T) {
	good := signedNote(t)
	w := must(NewWitness("w1", public(testKey(5))))
	first, second := must(Cosign(good, "w1", testKey(5), 1)), must(Cosign(good, "w1", testKey(5), 2))
	bad := []byte(changedTime(string(first)))
	stranger := must(Cosign(good, "w2", testKey(6), 1))
	for _, test := range []struct {
		name       string
		note, line []byte
		want       []byte
	}{
		{"nothing", good, nil, nil},
		{"its own", good, first, first},
		{"among others", good, bytes.Join([][]byte{stranger, bad, second}, nil), second},
		{"an invalid one", good, bad, nil},
		{"a stranger's", good, stranger, nil},
		{"a second one", append(bytes.Clone(good), first...), second, nil},
		{"a second, invalid one", append(bytes.Clone(good), first...), bad, nil},
		{"no line", good, []byte("\n\nchat\n"), nil},
	} {
		got, added, err := AddCosignature(bytes.Clone(test.note), test.line, w)
		if err != nil || added != (test.want != nil) || !bytes.Equal(got, append(bytes.Clone(test.note), test.want...)) {
			t.Errorf("%s: %v, %v, %q", test.name, added, err, got)
		}
	}
	if _, _, err := AddCosignature([]byte("no note"), first, w); !errors.Is(err, ErrNote) {
		t.Errorf("no note: %v", err)
	}
	if _, err := Cosign([]byte("no note"), "w1", testKey(5), 1); !errors.Is(err, ErrNote) {
		t.Errorf("cosigned no note: %v", err)
	}
}
