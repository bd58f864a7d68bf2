package kt

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the test vectors in docs/formats")

// checkVectors compares the block between the markers of a page with want, or
// writes it there with -update.
func checkVectors(t *testing.T, file, want string) {
	t.Helper()
	const begin, end = "<!-- vectors:begin -->\n", "<!-- vectors:end -->"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), begin)
	got, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no markers %q, %q", file, begin, end)
	}
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("%s: the vectors differ from what the code makes.\n"+
			"Published bytes must not change; if they are new, run the test with -update.\ngot:\n%s\nwant:\n%s", file, got, want)
	}
	if err := os.WriteFile(file, []byte(head+begin+want+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

// vectors writes the leaf vectors as they stand on the page.
type vectors struct{ strings.Builder }

func (v *vectors) section(title string) { fmt.Fprintf(v, "\n### %s\n\n```text\n", title) }
func (v *vectors) end()                 { v.WriteString("```\n") }

func (v *vectors) hex(name string, value []byte) { fmt.Fprintf(v, "%-14s %x\n", name, value) }
func (v *vectors) text(name, value string)       { fmt.Fprintf(v, "%-14s text %s\n", name, value) }
func (v *vectors) number(name string, n uint64)  { fmt.Fprintf(v, "%-14s %d\n", name, n) }
func (v *vectors) leaf(leaf []byte) {
	hash := LeafHash(leaf)
	v.hex("leaf", leaf)
	v.hex("leaf hash", hash[:])
}

// opening counts up from b.
func opening(b byte) (o Opening) {
	for i := range o {
		o[i] = b + byte(i)
	}
	return o
}

func (v *vectors) opaque() {
	o, ctx, body := opening(0x10), OpaqueContext(20), "an event's bytes"
	c := Commit(o, ctx[:], []byte(body))
	v.section("OPAQUE, event type 20")
	v.hex("opening", o[:])
	v.hex("ctx", ctx[:])
	v.text("body", body)
	v.hex("C", c[:])
	v.leaf(AppendOpaqueLeaf(nil, c))
	v.end()
}

func (v *vectors) keyTransparency() {
	seed := [32]byte(bytes.Repeat([]byte{7}, 32))
	key := NewVRFPrivateKey(seed)
	public, input := key.PublicKey(), VRFInput(KindAccount, []byte("alice"), 1)
	label, proof := key.Label(KindAccount, []byte("alice"), 1)
	_, out := key.Prove(input)
	o, body := opening(0x20), "another event's bytes"
	c := Commit(o, input, []byte(body))
	v.section("KT, kind 1, id \"alice\", version 1")
	v.hex("VRF seed", seed[:])
	v.hex("VRF key", public[:])
	v.hex("VRF input", input)
	v.hex("VRF proof", proof[:])
	v.hex("VRF output", out[:])
	v.hex("opening", o[:])
	v.text("body", body)
	v.hex("L", label[:])
	v.hex("C", c[:])
	v.leaf(AppendKTLeaf(nil, label, c))
	v.end()
}

func (v *vectors) head(title string, h Head) {
	v.section(title)
	v.number("epoch", h.Epoch)
	v.number("time_ms", h.TimeMS)
	v.number("prev_head", h.PrevHead)
	v.number("config", h.Config)
	v.number("kt_count", h.KTCount)
	v.hex("map_root", h.MapRoot[:])
	v.hex("heads_root", h.HeadsRoot[:])
	v.leaf(AppendHeadLeaf(nil, h))
	v.end()
}

func (v *vectors) config(title string, c Config) {
	v.section(title)
	v.number("format version", uint64(c.FormatVersion))
	v.text("origin", c.Origin)
	v.hex("log_key", c.LogKey)
	v.hex("vrf_key", c.VRFKey[:])
	if c.Previous != nil {
		v.number("previous", c.Previous.Index)
		v.hex("signed bytes", c.SignedBytes())
		v.hex("signature", c.Previous.Signature[:])
	}
	v.leaf(AppendConfigLeaf(nil, c))
	v.end()
}

func TestVectorsInDocs(t *testing.T) {
	var v vectors
	v.opaque()
	v.keyTransparency()
	v.head("HEAD, the first", firstHead())
	v.head("HEAD, a later one", laterHead())
	v.config("CONFIG at index 0 (log key: Ed25519 seed 01 × 32)", testConfig(t))
	v.config("CONFIG, a later one (log key: Ed25519 seed 03 × 32)", linkedConfig(t))
	checkVectors(t, "../docs/formats/leaves.md", strings.TrimPrefix(v.String(), "\n"))
}
