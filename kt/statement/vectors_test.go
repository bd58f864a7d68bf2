package statement

import (
	"crypto/ed25519"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	pb "quicprochat/proto/qpcv1"
)

var update = flag.Bool("update", false, "rewrite the test vectors in docs/formats")

const vectorsFile = "../../docs/formats/statements.md"

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

// text are the fields that are readable; all others stand in hex.
var text = map[string]bool{"server_name": true, "username": true, "challenge": true}

func writeField(b *strings.Builder, name string, value []byte) {
	switch {
	case len(value) == 0:
		fmt.Fprintf(b, "%-16s (empty)\n", name)
	case text[name]:
		fmt.Fprintf(b, "%-16s text %s\n", name, value)
	default:
		fmt.Fprintf(b, "%-16s %x\n", name, value)
	}
}

// keyNames are the keys of the vectors.
var keyNames = []struct {
	name string
	key  ed25519.PrivateKey
}{
	{"identity", identity}, {"device", device}, {"recipient", recipient}, {"successor", successor},
}

func nameOf(key ed25519.PrivateKey) string {
	for _, k := range keyNames {
		if k.key.Equal(key) {
			return k.name
		}
	}
	return "?"
}

func TestVectorsInDocs(t *testing.T) {
	var b strings.Builder
	b.WriteString("### Keys of the vectors\n\n```text\n")
	for _, k := range keyNames {
		fmt.Fprintf(&b, "%-16s seed %x\n%-16s public %x\n", k.name, k.key.Seed(), "", public(k.key))
	}
	b.WriteString("```\n")
	for _, c := range testCases() {
		fmt.Fprintf(&b, "\n### %s\n\n```text\n", c.label)
		writeField(&b, "server_name", []byte(server))
		for _, f := range c.fields {
			writeField(&b, f.name, f.value)
		}
		fmt.Fprintf(&b, "signed bytes     %x\n", c.statement.Bytes())
		for _, key := range c.signers {
			fmt.Fprintf(&b, "signature        %x by %s\n", c.statement.Sign(key), nameOf(key))
		}
		b.WriteString("```\n")
	}
	writeKeySet(&b, firstKeySet())
	writeKeySet(&b, nextKeySet())
	checkVectors(t, vectorsFile, b.String())
}

func writeKeySet(b *strings.Builder, ks *pb.KeySet) {
	fmt.Fprintf(b, "\n### qpc-keyset-v1, version %d\n\n```text\n", ks.GetVersion())
	writeField(b, "server_name", []byte(server))
	writeField(b, "identity_key", ks.GetIdentityKey())
	writeField(b, "version", u32(ks.GetVersion()))
	writeField(b, "previous_hash", ks.GetPreviousHash())
	writeField(b, "number", u32(uint32(len(ks.GetDeviceKeys()))))
	for _, key := range ks.GetDeviceKeys() {
		writeField(b, "device_key", key)
	}
	writeField(b, "kem_id", u32(ks.GetKemId()))
	signed := KeySetBytes(server, ks)
	if len(ks.GetHybridKey()) == 0 {
		writeField(b, "hybrid_key", nil)
	} else {
		fmt.Fprintf(b, "hybrid_key       1216 bytes, byte i is i mod 251\n")
	}
	writeField(b, "time_ms", u64(ks.GetTimeMs()))
	if len(signed) < 512 {
		fmt.Fprintf(b, "signed bytes     %x\n", signed)
	} else {
		fmt.Fprintf(b, "signed bytes     %d bytes\n", len(signed))
	}
	fmt.Fprintf(b, "SHA-256 of them  %x\nsignature        %x by identity\n```\n", sha256.Sum256(signed), ks.GetSignature())
}

// TestVectorsAreVerified reads the page as another implementation would: each
// signature must hold over the bytes that stand beside it.
func TestVectorsAreVerified(t *testing.T) {
	page, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string][]byte{}
	var name string
	var signed []byte
	signatures := 0
	for line := range strings.Lines(string(page)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 3 && f[1] == "seed":
			name = f[0]
		case len(f) == 2 && f[0] == "public":
			keys[name] = unhex(t, f[1])
		case len(f) == 3 && f[0] == "signed" && f[1] == "bytes":
			signed = unhex(t, f[2])
		case len(f) == 4 && f[0] == "signed":
			signed = KeySetBytes(server, nextKeySet())
		case len(f) == 4 && f[0] == "signature" && f[2] == "by":
			signatures++
			if !ed25519.Verify(keys[f[3]], signed, unhex(t, f[1])) {
				t.Errorf("signature %d by %s does not hold", signatures, f[3])
			}
		}
	}
	if want := 12; signatures != want {
		t.Errorf("the page has %d signatures, want %d", signatures, want)
	}
}
