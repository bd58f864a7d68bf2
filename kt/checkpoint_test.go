package kt

import (
	"encoding/base64"
	"errors"
	"math"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

func testCheckpoint() Checkpoint {
	root, err := base64.StdEncoding.DecodeString("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
	if err != nil {
		panic(err)
	}
	return Checkpoint{Origin: "chat.example.org/1", Size: 20852163, Root: Hash(root)}
}

func signedNote(t testing.TB) []byte {
	t.Helper()
	signed, err := SignCheckpoint(testCheckpoint(), testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestCheckpointText(t *testing.T) {
	want := "chat.example.org/1\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
	if got := string(testCheckpoint().Append(nil)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, err := ParseCheckpoint([]byte(want)); err != nil || got != testCheckpoint() {
		t.Errorf("parsed %+v, %v", got, err)
	}
	for name, text := range map[string]string{
		"empty":              "",
		"an extension line":  want + "more\n",
		"no last end":        want[:len(want)-1],
		"a carriage return":  strings.Replace(want, "\n", "\r\n", 1),
		"a leading zero":     strings.Replace(want, "2085", "02085", 1),
		"a sign":             strings.Replace(want, "2085", "+2085", 1),
		"a size of 2^63":     strings.Replace(want, "20852163", "9223372036854775808", 1),
		"trailing bits":      strings.Replace(want, "q2I=", "q2J=", 1),
		"a short root":       strings.Replace(want, "CsUY", "", 1),
		"another base64":     strings.Replace(want, "/", "_", 3),
		"an origin of no N":  strings.Replace(want, "/1", "", 1),
		"a server name in a": strings.Replace(want, "chat", "Chat", 1),
		"very long":          strings.Repeat("a", MaxNoteSize) + want,
	} {
		if _, err := ParseCheckpoint([]byte(text)); !errors.Is(err, ErrNote) {
			t.Errorf("%s: got %v, want ErrNote", name, err)
		}
	}
}

// TestCheckpointOpensWithTheNoteLibrary: what is signed here is a note for
// everybody who knows the verifier key line, and the other way round.
func TestCheckpointOpensWithTheNoteLibrary(t *testing.T) {
	line, err := VerifierKey("chat.example.org/1", public(testKey(1)))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(line)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(signedNote(t), note.VerifierList(verifier))
	if err != nil || n.Text != string(testCheckpoint().Append(nil)) || len(n.Sigs) != 1 {
		t.Fatalf("got %+v, %v", n, err)
	}
	if got, err := OpenCheckpoint(signedNote(t), "chat.example.org/1", public(testKey(1))); err != nil || got != testCheckpoint() {
		t.Errorf("opened %+v, %v", got, err)
	}
}

func TestOpenCheckpointRefuses(t *testing.T) {
	good := string(signedNote(t))
	other := testCheckpoint()
	other.Origin = "chat.example.org/2"
	// Signed for generation 1, but about generation 2.
	text := string(other.Append(nil))
	verifier, err := logVerifier("chat.example.org/1", public(testKey(1)))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := note.Sign(&note.Note{Text: text}, logSigner{verifier, testKey(1)})
	if err != nil {
		t.Fatal(err)
	}
	// The signature ends in two bits that say nothing: its last character has
	// another spelling.
	end := strings.LastIndex(good, "=")
	alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	respelled := good[:end-1] + string(alphabet[strings.IndexByte(alphabet, good[end-1])^1]) + good[end:]
	for name, signed := range map[string]string{
		"nothing":                "",
		"no signature":           text,
		"another key's":          string(must(SignCheckpoint(testCheckpoint(), testKey(2)))),
		"another text":           strings.Replace(good, "20852163", "20852164", 1),
		"another origin inside":  string(foreign),
		"another origin outside": string(must(SignCheckpoint(other, testKey(1)))),
		"respelled signature":    respelled,
		"too large":              good + strings.Repeat("— x AAAAAAAA\n", MaxNoteSize/8),
	} {
		if c, err := OpenCheckpoint([]byte(signed), "chat.example.org/1", public(testKey(1))); !errors.Is(err, ErrNote) {
			t.Errorf("%s: got %+v, %v; want ErrNote", name, c, err)
		}
	}
	if _, err := OpenCheckpoint([]byte(good), "chat.example.org/1", public(testKey(1))[:31]); !errors.Is(err, ErrNote) {
		t.Errorf("a short key: %v", err)
	}
	for name, c := range map[string]Checkpoint{
		"no origin":     {Size: 1},
		"2^63 leaves":   {Origin: "chat.example.org/1", Size: math.MaxInt64 + 1},
		"a line inside": {Origin: "chat.example.org/1\nx/1", Size: 1},
	} {
		if _, err := SignCheckpoint(c, testKey(1)); !errors.Is(err, ErrNote) {
			t.Errorf("signed a checkpoint with %s: %v", name, err)
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
