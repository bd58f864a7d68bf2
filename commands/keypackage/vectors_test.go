package keypackage

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"
)

// vector is one suite of testdata/rfc9420.json: excerpts of welcome.json and
// crypto-basics.json of the MLS working group's test vectors
// (github.com/mlswg/mls-implementations, test-vectors). ref is how the Welcome of
// the vector names the KeyPackage that it answers.
type vector struct {
	CipherSuite Suite   `json:"cipher_suite"`
	KeyPackage  hexData `json:"key_package"`
	Ref         hexData `json:"ref"`
	Signature   struct {
		Pub       hexData `json:"pub"`
		Label     string  `json:"label"`
		Content   hexData `json:"content"`
		Signature hexData `json:"signature"`
	} `json:"sign_with_label"`
	RefHash struct {
		Label string  `json:"label"`
		Value hexData `json:"value"`
		Out   hexData `json:"out"`
	} `json:"ref_hash"`
}

type hexData []byte

func (h *hexData) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	content, err := os.ReadFile("testdata/rfc9420.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(content, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) != len(suites) {
		t.Fatalf("vectors of %d suites, %d are known", len(vectors), len(suites))
	}
	return vectors
}

// TestKnownAnswers reads the working group's KeyPackages of every suite: both
// signatures verify, and the reference is the one in the Welcome. Their lifetime
// has no end, which this server refuses.
func TestKnownAnswers(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(v.CipherSuite.String(), func(t *testing.T) {
			k, err := Parse(v.KeyPackage)
			if err != nil {
				t.Fatal(err)
			}
			if k.Suite != v.CipherSuite || !bytes.Equal(k.Raw, v.KeyPackage[4:]) {
				t.Errorf("suite %v, %d bytes", k.Suite, len(k.Raw))
			}
			a := suites[k.Suite]
			if err := k.checkSignatures(&a); err != nil {
				t.Error(err)
			}
			if err := k.checkKeys(&a); err != nil {
				t.Error(err)
			}
			if ref := k.Ref(); !bytes.Equal(ref, v.Ref) {
				t.Errorf("reference %x, the Welcome has %x", ref, v.Ref)
			}
			if err := k.CheckLifetime(1_700_000_000_000); !errors.Is(err, ErrLifetime) {
				t.Errorf("a lifetime without end: %v", err)
			}
			bare, err := Parse(v.KeyPackage[4:])
			if err != nil || !bytes.Equal(bare.Raw, k.Raw) {
				t.Errorf("without its MLSMessage: %v", err)
			}
		})
	}
}

// TestEveryBitCounts flips each bit of a KeyPackage of every scheme: nothing of
// it is accepted. The scan is sparse where verification is slow.
func TestEveryBitCounts(t *testing.T) {
	for _, v := range readVectors(t) {
		step := 1
		if v.CipherSuite != X25519AES128Ed25519 {
			step = 37
		}
		a := suites[v.CipherSuite]
		for bit := 0; bit < 8*len(v.KeyPackage); bit += step {
			spoiled := bytes.Clone(v.KeyPackage)
			spoiled[bit/8] ^= 1 << (bit % 8)
			k, err := Parse(spoiled)
			if err != nil {
				continue
			}
			if other := suites[k.Suite]; other != a { // the suite itself is signed
				a = other
			}
			if k.checkSignatures(&a) == nil {
				t.Errorf("%v: accepted with bit %d flipped", v.CipherSuite, bit)
			}
			a = suites[v.CipherSuite]
		}
	}
}

func TestSignWithLabelVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		s, scheme := v.Signature, suites[v.CipherSuite].scheme
		if !scheme.verify(s.Pub, s.Label, s.Content, s.Signature) {
			t.Errorf("%v: the vector's signature does not verify", v.CipherSuite)
		}
		if scheme.verify(s.Pub, s.Label+"x", s.Content, s.Signature) {
			t.Errorf("%v: verifies under another label", v.CipherSuite)
		}
		if scheme.verify(s.Pub[:len(s.Pub)-1], s.Label, s.Content, s.Signature) || scheme.verify(nil, s.Label, s.Content, s.Signature) {
			t.Errorf("%v: verifies under half a key", v.CipherSuite)
		}
	}
}

func TestRefHashVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		if got := refHash(suites[v.CipherSuite].hash, v.RefHash.Label, v.RefHash.Value); !bytes.Equal(got, v.RefHash.Out) {
			t.Errorf("%v: %x, want %x", v.CipherSuite, got, v.RefHash.Out)
		}
	}
	if (&KeyPackage{Suite: 0x0a0a}).Ref() != nil {
		t.Error("a reference under an unknown hash")
	}
}

// TestSuiteTable holds the table against the names in the registry.
func TestSuiteTable(t *testing.T) {
	for s, a := range suites {
		for part, holds := range map[string]bool{
			"SHA256": a.hash == crypto.SHA256, "SHA384": a.hash == crypto.SHA384, "SHA512": a.hash == crypto.SHA512,
			"Ed25519": a.scheme == schemeEd25519, "Ed448": a.scheme == schemeEd448,
			"X25519": a.kemKeySize == 32, "X448": a.kemKeySize == 56,
		} {
			if bytes.Contains([]byte(a.name), []byte(part)) != holds {
				t.Errorf("%d is %s: is it %s? the table says %v", s, a.name, part, holds)
			}
		}
		if s.SignsWithEd25519() != (s == 1 || s == 3) || !s.Known() {
			t.Errorf("%v: Ed25519 %v", s, s.SignsWithEd25519())
		}
	}
	if unknown := Suite(0x0a0a); unknown.Known() || unknown.SignsWithEd25519() || unknown.String() != "cipher suite 0x0a0a" {
		t.Error("a reserved number is known")
	}
}
