package kt

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// plainCommit is the definition, written down a second time and slowly.
func plainCommit(o Opening, ctx, body []byte) Hash {
	mac := hmac.New(sha256.New, []byte("qpc-commitment-v1"))
	mac.Write(o[:])
	binary.Write(mac, binary.BigEndian, uint16(len(ctx)))
	mac.Write(ctx)
	binary.Write(mac, binary.BigEndian, uint32(len(body)))
	mac.Write(body)
	return Hash(mac.Sum(nil))
}

func TestCommitIsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		opening := Opening(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "opening"))
		ctx := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "ctx")
		body := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "body")
		if got, want := Commit(opening, ctx, body), plainCommit(opening, ctx, body); got != want {
			t.Fatalf("Commit = %x, want %x", got, want)
		}
	})
}

// TestCommitSeparatesItsParts moves bytes over the borders between the parts.
func TestCommitSeparatesItsParts(t *testing.T) {
	seen := map[Hash]string{}
	for _, c := range []struct {
		opening   Opening
		ctx, body string
	}{
		{Opening{}, "", ""}, {Opening{1}, "", ""}, {Opening{15: 1}, "", ""},
		{Opening{}, "ab", "cd"}, {Opening{}, "abc", "d"}, {Opening{}, "a", "bcd"}, {Opening{}, "", "abcd"}, {Opening{}, "abcd", ""},
		{Opening{}, "\x00", ""}, {Opening{}, "", "\x00"}, {Opening{}, "\x00\x00", ""}, {Opening{}, "", "\x00\x00"},
	} {
		name := fmt.Sprintf("%x %q %q", c.opening, c.ctx, c.body)
		sum := Commit(c.opening, []byte(c.ctx), []byte(c.body))
		if other, ok := seen[sum]; ok {
			t.Errorf("%s and %s have one commitment", name, other)
		}
		seen[sum] = name
	}
}

// TestCommitConcurrently: pooled state never crosses from one call to another.
func TestCommitConcurrently(t *testing.T) {
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			body := make([]byte, 1+g*97)
			for i := range 200 {
				body[0] = byte(i)
				opening, ctx := Opening{byte(g), byte(i)}, body[:g]
				if Commit(opening, ctx, body) != plainCommit(opening, ctx, body) {
					t.Errorf("goroutine %d, round %d: wrong commitment", g, i)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestCommitPanicsOnHugeContext(t *testing.T) {
	longest := make([]byte, 65535)
	if Commit(Opening{}, longest, nil) != plainCommit(Opening{}, longest, nil) {
		t.Error("wrong commitment under the longest context")
	}
	defer func() {
		if recover() == nil {
			t.Error("a context of 65536 bytes passed")
		}
	}()
	Commit(Opening{}, make([]byte, 65536), nil)
}

func TestOpaqueContextIsBigEndian(t *testing.T) {
	if got := OpaqueContext(0x1234); got != [2]byte{0x12, 0x34} {
		t.Errorf("got %x", got)
	}
}

// BenchmarkCommitAndHash is what an event of 1 KiB costs before it is stored.
func BenchmarkCommitAndHash(b *testing.B) {
	body, opening := make([]byte, 1024), Opening{1}
	leaf := make([]byte, 0, OpaqueLeafSize)
	ctx := OpaqueContext(20)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		leaf = AppendOpaqueLeaf(leaf[:0], Commit(opening, ctx[:], body))
		LeafHash(leaf)
	}
}
