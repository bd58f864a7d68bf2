package statement

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestCanonicalUsername(t *testing.T) {
	for raw, want := range map[string]string{
		"alice":                 "alice",
		"Alice":                 "alice",
		"ALICE":                 "alice",
		"ab":                    "ab",
		"42":                    "42",
		"a.b_c-d":               "a.b_c-d",
		"a-":                    "a-",
		"Ａｌｉｃｅ":                 "alice", // full width
		"a．b":                   "a.b",
		"\u212aelvin":           "kelvin", // KELVIN SIGN has k as lower case
		strings.Repeat("z", 32): strings.Repeat("z", 32),
		strings.Repeat("Ｚ", 32): strings.Repeat("z", 32),
	} {
		if got, err := CanonicalUsername(raw); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", raw, got, err, want)
		}
	}
}

func TestCanonicalUsernameRefuses(t *testing.T) {
	for _, c := range []struct{ raw, want string }{
		{"", "empty"},
		{"a", "1 characters"},
		{strings.Repeat("a", 33), "33 characters"},
		{strings.Repeat("a", 10_000), "longer"},
		{strings.Repeat("Ａ", 33), "33 characters"},
		{".alice", "first character"},
		{"-alice", "first character"},
		{"_alice", "first character"},
		{"alice@example", "only"},
		{"alice:bob", "only"},
		{"alice/bob", "only"},
		{"alice\\bob", "only"},
		{"al+ice", "only"},
		{"élodie", "only"},
		{"e\u0301lodie", "only"},
		{"аlice", "only"},         // Cyrillic а
		{"\u0130stanbul", "only"}, // İ maps to i with a dot above
		{"straße", "only"},
		{"al ice", "character"},
		{" alice", "character"},
		{"alice\n", "character"},
		{"al\x00ice", "character"},
		{"al\u200bice", "character"}, // zero width space
		{"al\u00adice", "character"}, // soft hyphen
		{"\u202ealice", "character"}, // right-to-left override
		{"ﬁona", "character"},        // ligature
		{"al①ce", "character"},
		{"a\xffb", "character"},
		{"\xc3", "character"},
		{"👩‍💻dev", "character"},
	} {
		got, err := CanonicalUsername(c.raw)
		if !errors.Is(err, ErrUsername) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %q, %v, want ErrUsername with %q", c.raw, got, err, c.want)
		}
		if got != "" {
			t.Errorf("%q: %q beside an error", c.raw, got)
		}
	}
}

// TestUsernameErrorsKeepTheName: errors may be logged, names may not.
func TestUsernameErrorsKeepTheName(t *testing.T) {
	for _, raw := range []string{"Zwiebelfisch!", "Zwiebelfisch\u202e", "_Zwiebelfisch", strings.Repeat("Zwiebelfisch", 20)} {
		_, err := CanonicalUsername(raw)
		if err == nil || strings.Contains(strings.ToLower(err.Error()), "zwiebel") {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

// checkUsername holds what is true of every input.
func checkUsername(t interface {
	Helper()
	Fatalf(string, ...any)
}, raw string) {
	t.Helper()
	name, err := CanonicalUsername(raw)
	if err != nil {
		if !errors.Is(err, ErrUsername) {
			t.Fatalf("%q: unclassified error %v", raw, err)
		}
		return
	}
	again, err := CanonicalUsername(name)
	if err != nil || again != name {
		t.Fatalf("%q → %q → %q, %v: not idempotent", raw, name, again, err)
	}
	if n := utf8.RuneCountInString(name); n < MinUsernameLength || n > MaxUsernameLength {
		t.Fatalf("%q: %d characters", name, n)
	}
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" || strings.ContainsAny(name[:1], "._-") {
		t.Fatalf("%q has a character outside of the set", name)
	}
}

func TestUsernameProperty(t *testing.T) {
	near := rapid.StringOfN(rapid.RuneFrom([]rune("abzABZ019._-@:/ éＡＺ．İßКӃ\u200d\u0301")), 0, 40, -1)
	rapid.Check(t, func(t *rapid.T) {
		checkUsername(t, rapid.OneOf(near, rapid.String()).Draw(t, "raw"))
	})
}
