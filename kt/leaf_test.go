package kt

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/transparency-dev/merkle/rfc6962"
	"pgregory.net/rapid"
)

func firstHead() Head {
	return Head{TimeMS: 1_700_000_000_000, HeadsRoot: EmptyHeadsRoot}
}

func laterHead() Head {
	return Head{
		Epoch: 2, TimeMS: 1_700_000_060_000, PrevHead: 9, Config: 0, KTCount: 5,
		MapRoot: Hash{0: 1, 31: 2}, HeadsRoot: Hash{0: 3, 31: 4},
	}
}

func sampleLeaves(t testing.TB) map[string][]byte {
	t.Helper()
	return map[string][]byte{
		"opaque":       AppendOpaqueLeaf(nil, Hash{1, 2, 3}),
		"kt":           AppendKTLeaf(nil, Label{4, 5}, Hash{6, 7}),
		"first head":   AppendHeadLeaf(nil, firstHead()),
		"later head":   AppendHeadLeaf(nil, laterHead()),
		"first config": AppendConfigLeaf(nil, testConfig(t)),
		"later config": AppendConfigLeaf(nil, linkedConfig(t)),
	}
}

// reappend encodes a parsed leaf.
func reappend(l Leaf) []byte {
	switch l.Class {
	case ClassOpaque:
		return AppendOpaqueLeaf(nil, l.Commitment)
	case ClassKT:
		return AppendKTLeaf(nil, l.Label, l.Commitment)
	case ClassHead:
		return AppendHeadLeaf(nil, l.Head)
	case ClassConfig:
		return AppendConfigLeaf(nil, l.Config)
	}
	return nil
}

func TestLeafClassesKeepTheirBytes(t *testing.T) {
	for name, c := range map[string]struct {
		class Class
		size  int
		leaf  []byte
	}{
		"OPAQUE": {ClassOpaque, OpaqueLeafSize, AppendOpaqueLeaf(nil, Hash{})},
		"KT":     {ClassKT, KTLeafSize, AppendKTLeaf(nil, Label{}, Hash{})},
		"HEAD":   {ClassHead, HeadLeafSize, AppendHeadLeaf(nil, firstHead())},
		"CONFIG": {ClassConfig, 0, AppendConfigLeaf(nil, testConfig(t))},
	} {
		if c.class.String() != name {
			t.Errorf("class %d is named %v, want %s", c.class, c.class, name)
		}
		if c.leaf[0] != byte(c.class) || c.size != 0 && len(c.leaf) != c.size || len(c.leaf) > MaxLeafSize {
			t.Errorf("%s leaf of %d bytes begins with %d", name, len(c.leaf), c.leaf[0])
		}
	}
	if got := len(AppendConfigLeaf(nil, longestConfig(t))); got != 410 || MaxLeafSize != 410 {
		t.Errorf("the longest CONFIG leaf has %d bytes, MaxLeafSize is %d", got, MaxLeafSize)
	}
	if got := Class(7).String(); got != "Class(7)" {
		t.Errorf("unknown class is named %s", got)
	}
}

func TestParseLeafReadsWhatAppendWrote(t *testing.T) {
	for name, leaf := range sampleLeaves(t) {
		got, err := ParseLeaf(leaf)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(reappend(got), leaf) {
			t.Errorf("%s: appended again: %x, want %x", name, reappend(got), leaf)
		}
	}
	got, err := ParseLeaf(AppendKTLeaf(nil, Label{1}, Hash{2}))
	if err != nil || got.Class != ClassKT || got.Label != (Label{1}) || got.Commitment != (Hash{2}) {
		t.Errorf("KT leaf parsed as %+v, %v", got, err)
	}
	got, err = ParseLeaf(AppendHeadLeaf(nil, laterHead()))
	if err != nil || got.Head != laterHead() {
		t.Errorf("HEAD leaf parsed as %+v, %v", got, err)
	}
}

func TestParseLeafSharesNoMemory(t *testing.T) {
	for name, leaf := range sampleLeaves(t) {
		want := slices.Clone(leaf)
		got, err := ParseLeaf(leaf)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		clear(leaf)
		if !bytes.Equal(reappend(got), want) {
			t.Errorf("%s changed with the buffer it was read from", name)
		}
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	prefix := []byte("prefix")
	for name, got := range map[string][]byte{
		"opaque": AppendOpaqueLeaf(prefix, Hash{}),
		"kt":     AppendKTLeaf(prefix, Label{}, Hash{}),
		"head":   AppendHeadLeaf(prefix, firstHead()),
		"config": AppendConfigLeaf(prefix, testConfig(t)),
	} {
		if !bytes.HasPrefix(got, prefix) {
			t.Errorf("%s overwrote its destination", name)
		} else if _, err := ParseLeaf(got[len(prefix):]); err != nil {
			t.Errorf("%s after a prefix: %v", name, err)
		}
	}
}

// TestParseLeafRefusesOtherLengths cuts each leaf at every length and appends to
// it.
func TestParseLeafRefusesOtherLengths(t *testing.T) {
	for name, leaf := range sampleLeaves(t) {
		for n := range leaf {
			if _, err := ParseLeaf(leaf[:n]); !errors.Is(err, ErrLeaf) {
				t.Errorf("%s cut to %d bytes: %v", name, n, err)
			}
		}
		if _, err := ParseLeaf(append(slices.Clone(leaf), 0)); !errors.Is(err, ErrLeaf) {
			t.Errorf("%s with a byte more: %v", name, err)
		}
	}
	for class := 4; class < 256; class++ {
		leaf := AppendOpaqueLeaf(nil, Hash{})
		leaf[0] = byte(class)
		if _, err := ParseLeaf(leaf); !errors.Is(err, ErrLeaf) || !strings.Contains(err.Error(), "unknown class") {
			t.Errorf("class %d: %v", class, err)
		}
	}
}

func TestHeadInvariants(t *testing.T) {
	cases := []struct {
		name   string
		base   Head
		change func(*Head)
		want   string // empty: valid
	}{
		{"first", firstHead(), func(*Head) {}, ""},
		{"later", laterHead(), func(*Head) {}, ""},
		{"first with keys", firstHead(), func(h *Head) { h.KTCount, h.MapRoot = 1, Hash{1} }, ""},
		{"later, newest config", laterHead(), func(h *Head) { h.Config = 10 }, ""},
		{"dense heads", laterHead(), func(h *Head) { h.PrevHead = h.Epoch }, ""},
		{"no time", firstHead(), func(h *Head) { h.TimeMS = 0 }, "time"},
		{"time beyond int64", firstHead(), func(h *Head) { h.TimeMS = math.MaxInt64 + 1 }, "time"},
		{"first with a previous", firstHead(), func(h *Head) { h.PrevHead = 1 }, "earlier"},
		{"first with a heads root", firstHead(), func(h *Head) { h.HeadsRoot = Hash{1} }, "earlier"},
		{"first with a zero heads root", firstHead(), func(h *Head) { h.HeadsRoot = Hash{} }, "earlier"},
		{"later without a previous", laterHead(), func(h *Head) { h.PrevHead = 0 }, "epoch 2 after"},
		{"more heads than leaves", laterHead(), func(h *Head) { h.PrevHead = 1 }, "epoch 2 after"},
		{"later with the empty heads root", laterHead(), func(h *Head) { h.HeadsRoot = EmptyHeadsRoot }, "root of no heads"},
		{"one index for two leaves", laterHead(), func(h *Head) { h.Config = h.PrevHead }, "as HEAD and as CONFIG"},
		{"keys without a map", laterHead(), func(h *Head) { h.MapRoot = Hash{} }, "map root"},
		{"a map without keys", laterHead(), func(h *Head) { h.KTCount = 0 }, "map root"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := c.base
			c.change(&h)
			err := h.Validate()
			_, parseErr := ParseLeaf(AppendHeadLeaf(nil, h))
			if (err == nil) != (parseErr == nil) {
				t.Errorf("Validate: %v, but ParseLeaf: %v", err, parseErr)
			}
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (!errors.Is(err, ErrLeaf) || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want ErrLeaf with %q", err, c.want)
			}
		})
	}
}

// TestRootsAndHashesAreRFC6962 compares with a library that nobody here wrote.
func TestRootsAndHashesAreRFC6962(t *testing.T) {
	if !bytes.Equal(EmptyHeadsRoot[:], rfc6962.DefaultHasher.EmptyRoot()) {
		t.Error("EmptyHeadsRoot is not the root of the empty tree")
	}
	rapid.Check(t, func(t *rapid.T) {
		leaf := rapid.SliceOfN(rapid.Byte(), 0, 2*MaxLeafSize).Draw(t, "leaf")
		got := LeafHash(leaf)
		if want := rfc6962.DefaultHasher.HashLeaf(leaf); !bytes.Equal(got[:], want) {
			t.Fatalf("LeafHash = %x, want %x", got, want)
		}
		if got != sha256.Sum256(append([]byte{0}, leaf...)) {
			t.Fatal("LeafHash is not SHA-256(0x00 ‖ leaf)")
		}
	})
}

// TestLeafProperty: every valid leaf survives the round trip, and no two are
// alike.
func TestLeafProperty(t *testing.T) {
	hash := rapid.Custom(func(t *rapid.T) Hash {
		return Hash(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash"))
	})
	rapid.Check(t, func(t *rapid.T) {
		l := Leaf{Class: Class(rapid.IntRange(0, 2).Draw(t, "class"))}
		switch l.Class {
		case ClassOpaque:
			l.Commitment = hash.Draw(t, "C")
		case ClassKT:
			l.Commitment, l.Label = hash.Draw(t, "C"), Label(hash.Draw(t, "L"))
		case ClassHead:
			l.Head = Head{
				Epoch: rapid.Uint64().Draw(t, "epoch"), TimeMS: rapid.Uint64().Draw(t, "time"),
				PrevHead: rapid.Uint64().Draw(t, "prev"), Config: rapid.Uint64().Draw(t, "config"),
				KTCount: rapid.Uint64().Draw(t, "count"), MapRoot: hash.Draw(t, "map"), HeadsRoot: hash.Draw(t, "heads"),
			}
		}
		got, err := ParseLeaf(reappend(l))
		if l.Class == ClassHead && l.Head.Validate() != nil {
			if err == nil {
				t.Fatalf("an invalid head was parsed: %+v", l.Head)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if got.Class != l.Class || got.Label != l.Label || got.Commitment != l.Commitment || got.Head != l.Head {
			t.Fatalf("got %+v, want %+v", got, l)
		}
	})
}
