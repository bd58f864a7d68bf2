package kt

import (
	"strings"
	"testing"
)

func TestValidateServerName(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	name253 := strings.Join([]string{label63, label63, label63, strings.Repeat("a", 61)}, ".")
	for _, good := range []string{
		"localhost", "a", "chat.example.org", "xn--bcher-kva.example", "1.example", "a-b.c", "3com", label63, name253,
	} {
		if err := ValidateServerName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", ".", "a.", ".a", "a..b", "Chat.example", "chat_example", "bücher.example", "a b", "a/1", "a:5001", "[::1]",
		"127.0.0.1", "10", "::1", "-a", "a-", "a.-b", label63 + "a", name253 + "a", "a\x00", "user@chat",
	} {
		if err := ValidateServerName(bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func TestOriginRoundTrip(t *testing.T) {
	for _, n := range []uint32{FirstGeneration, 2, 10, 1<<32 - 1} {
		name, got, err := ParseOrigin(Origin("chat.example.org", n))
		if err != nil || name != "chat.example.org" || got != n {
			t.Errorf("generation %d: %q, %d, %v", n, name, got, err)
		}
	}
	if got := Origin("localhost", FirstGeneration); got != "localhost/1" {
		t.Errorf("first origin is %q", got)
	}
	for _, bad := range []string{
		"", "localhost", "localhost/", "localhost/0", "localhost/01", "localhost/+1", "localhost/-1", "localhost/1 ",
		"localhost/1/2", "localhost/4294967296", "/1", "Localhost/1", "127.0.0.1/1", "localhost/one",
	} {
		if _, _, err := ParseOrigin(bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
	longest := Origin(strings.Repeat(strings.Repeat("a", 62)+".", 4)+"b", 1<<32-1)
	if len(longest) != maxOriginSize {
		t.Errorf("longest origin has %d bytes, the bound is %d", len(longest), maxOriginSize)
	}
	if _, _, err := ParseOrigin(longest); err != nil {
		t.Errorf("longest origin: %v", err)
	}
}
