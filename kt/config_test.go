package kt

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
)

// testKey is an Ed25519 key whose seed is one byte, repeated.
func testKey(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32))
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// testConfig is a CONFIG for index 0 with the log key testKey(1).
func testConfig(t testing.TB) Config {
	t.Helper()
	c, err := NewConfig("chat.example.org", public(testKey(1)), NewVRFPrivateKey([32]byte{2}).PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// linkedConfig follows testConfig with the log key testKey(3).
func linkedConfig(t testing.TB) Config {
	t.Helper()
	c := testConfig(t)
	c.LogKey = public(testKey(3))
	c.Link(0, testKey(1))
	return c
}

// longestConfig has the longest origin there is, and a link.
func longestConfig(t testing.TB) Config {
	t.Helper()
	c := testConfig(t)
	c.Origin = Origin(strings.Repeat(strings.Repeat("a", 62)+".", 4)+"b", 1<<32-1)
	c.Link(1, testKey(1))
	return c
}

func TestConfigBytes(t *testing.T) {
	c := testConfig(t)
	want := "0001" + "0012" + hex.EncodeToString([]byte("chat.example.org/1")) +
		hex.EncodeToString(c.LogKey) + hex.EncodeToString(c.VRFKey[:]) + "01010103" + "00"
	wantHex(t, "first CONFIG", AppendConfig(nil, c), want)

	c = linkedConfig(t)
	want = "0001" + "0012" + hex.EncodeToString([]byte("chat.example.org/1")) +
		hex.EncodeToString(c.LogKey) + hex.EncodeToString(c.VRFKey[:]) + "01010103" + "01" + "0000000000000000"
	wantHex(t, "signed bytes", c.SignedBytes(), hex.EncodeToString([]byte("qpc-config-v1\x00"))+want)
	wantHex(t, "later CONFIG", AppendConfig(nil, c), want+hex.EncodeToString(c.Previous.Signature[:]))
	if !ed25519.Verify(public(testKey(1)), c.SignedBytes(), c.Previous.Signature[:]) {
		t.Error("the link is not signed by the key before it")
	}
}

func TestParseConfigReadsAllFields(t *testing.T) {
	want := linkedConfig(t)
	want.FormatVersion = 258
	want.Previous.Index = 1 << 40
	got, err := ParseConfig(AppendConfig(nil, want))
	if err != nil {
		t.Fatal(err)
	}
	if got.FormatVersion != want.FormatVersion || got.Origin != want.Origin || !got.LogKey.Equal(want.LogKey) ||
		got.VRFKey != want.VRFKey || got.Previous == nil || *got.Previous != *want.Previous {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParseConfigRefuses(t *testing.T) {
	first, later := AppendConfig(nil, testConfig(t)), AppendConfig(nil, linkedConfig(t))
	const origin, logKey = 4, 4 + 18
	const vrfKey, suites, flag = logKey + 32, logKey + 64, logKey + 68
	with := func(body []byte, at int, b ...byte) []byte {
		bad := slices.Clone(body)
		copy(bad[at:], b)
		return bad
	}
	for _, c := range []struct {
		name, want string
		body       []byte
	}{
		{"empty", "0 bytes", nil},
		{"huge", "bytes", make([]byte, maxConfigSize+1)},
		{"origin longer than the body", "origin of", with(first, 2, 0x01, 0x00)},
		{"origin shorter than it is", "CONFIG", with(first, 2, 0x00, 0x11)},
		{"origin in capitals", "host name", with(first, origin, 'C')},
		{"origin without a number", "generation", with(first, origin+17, 'x')},
		{"origin of generation 0", "generation", with(first, origin+17, '0')},
		{"log key not canonical", "log key", with(first, logKey, noncanonicalKeys(t)[0]...)},
		{"log key of small order", "log key", with(first, logKey, smallOrderKeys(t)[4]...)},
		{"VRF key off the curve", "VRF key", with(first, vrfKey, offCurve(t)...)},
		{"VRF key of small order", "VRF key", with(first, vrfKey, smallOrderKeys(t)[1]...)},
		{"unknown hash", "suites", with(first, suites, 2)},
		{"unknown signature", "suites", with(first, suites+1, 6)},
		{"unknown commitment", "suites", with(first, suites+2, 0)},
		{"unknown VRF", "suites", with(first, suites+3, 4)},
		{"linked without a link", "link flag", with(first, flag, 1)},
		{"a link without the flag", "link flag", with(later, flag, 0)},
		{"link flag 2", "link flag", with(later, flag, 2)},
		{"half a link", "link flag", later[:len(later)-1]},
		{"trailing byte", "link flag", append(slices.Clone(first), 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := ParseConfig(c.body); !errors.Is(err, ErrLeaf) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrLeaf with %q", err, c.want)
			}
		})
	}
}

func TestNewConfigRefuses(t *testing.T) {
	good := testConfig(t)
	for name, err := range map[string]error{
		"server name": second(NewConfig("Chat", good.LogKey, good.VRFKey)),
		"log key":     second(NewConfig("chat", make([]byte, 32), good.VRFKey)),
		"short key":   second(NewConfig("chat", good.LogKey[:31], good.VRFKey)),
		"VRF key":     second(NewConfig("chat", good.LogKey, VRFPublicKey{})),
	} {
		if err == nil {
			t.Errorf("a bad %s passed", name)
		}
	}
	if good.Origin != "chat.example.org/1" || good.FormatVersion != 1 || good.Previous != nil {
		t.Errorf("first CONFIG is %+v", good)
	}
	defer func() {
		if recover() == nil {
			t.Error("AppendConfigLeaf took an invalid CONFIG")
		}
	}()
	AppendConfigLeaf(nil, Config{})
}

func second[T any](_ T, err error) error { return err }

func TestVerifyLink(t *testing.T) {
	before := testConfig(t)
	relink := func(change func(*Config)) Config {
		c := linkedConfig(t)
		change(&c)
		c.Link(c.Previous.Index, testKey(1))
		return c
	}
	for _, c := range []struct {
		name, want string
		next       Config
	}{
		{"new log key", "", linkedConfig(t)},
		{"next generation", "", relink(func(c *Config) { c.Origin = Origin("chat.example.org", 2) })},
		{"newer format", "", relink(func(c *Config) { c.FormatVersion = 2 })},
		{"no link", "index 0", before},
		{"link to another index", "index 0", relink(func(c *Config) { c.Previous.Index = 1 })},
		{"another VRF key", "VRF key", relink(func(c *Config) { c.VRFKey = NewVRFPrivateKey([32]byte{9}).PublicKey() })},
		{"another server", "origin", relink(func(c *Config) { c.Origin = Origin("other.example.org", 1) })},
		{"no origin", "origin", relink(func(c *Config) { c.Origin = "" })},
		{"signed by itself", "not signed", func() Config {
			c := linkedConfig(t)
			c.Link(0, testKey(3))
			return c
		}()},
		{"changed after signing", "not signed", func() Config {
			c := linkedConfig(t)
			c.LogKey = public(testKey(4))
			return c
		}()},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.next.VerifyLink(before, 0)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (!errors.Is(err, ErrLeaf) || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want ErrLeaf with %q", err, c.want)
			}
		})
	}
	older := before
	older.FormatVersion, older.Origin = 2, Origin("chat.example.org", 2)
	if err := linkedConfig(t).VerifyLink(older, 0); err == nil {
		t.Error("format and generation went back")
	}
	older.FormatVersion = 1
	if err := linkedConfig(t).VerifyLink(older, 0); err == nil {
		t.Error("the generation went back")
	}
	if err := linkedConfig(t).VerifyLink(Config{VRFKey: before.VRFKey}, 0); err == nil {
		t.Error("a CONFIG followed one without an origin")
	}
}
