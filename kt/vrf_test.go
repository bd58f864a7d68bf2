package kt

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"filippo.io/edwards25519"
)

// rfcVectors are examples 16, 17 and 18 of RFC 9381 appendix B.3, with their
// intermediate values: H, the nonce k, U = k*B and V = k*H.
var rfcVectors = []struct {
	name, sk, pk, alpha, h, k, u, v, pi, beta string
}{
	{
		name:  "example 16",
		sk:    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
		pk:    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
		alpha: "",
		h:     "91bbed02a99461df1ad4c6564a5f5d829d0b90cfc7903e7a5797bd658abf3318",
		k:     "8a49edbd1492a8ee09766befe50a7d563051bf3406cbffc20a88def030730f0f",
		u:     "aef27c725be964c6a9bf4c45ca8e35df258c1878b838f37d9975523f09034071",
		v:     "5016572f71466c646c119443455d6cb9b952f07d060ec8286d678615d55f954f",
		pi: "8657106690b5526245a92b003bb079ccd1a92130477671f6fc01ad16f26f723f" +
			"26f8a57ccaed74ee1b190bed1f479d97" +
			"27d2d0f9b005a6e456a35d4fb0daab1268a1b0db10836d9826a528ca76567805",
		beta: "90cf1df3b703cce59e2a35b925d411164068269d7b2d29f3301c03dd757876ff" +
			"66b71dda49d2de59d03450451af026798e8f81cd2e333de5cdf4f3e140fdd8ae",
	},
	{
		name:  "example 17",
		sk:    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
		pk:    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
		alpha: "72",
		h:     "5b659fc3d4e9263fd9a4ed1d022d75eaacc20df5e09f9ea937502396598dc551",
		k:     "d8c3a66921444cb3427d5d989f9b315aa8ca3375e9ec4d52207711a1fdb44107",
		u:     "1dcb0a4821a2c48bf53548228b7f170962988f6d12f5439f31987ef41f034ab3",
		v:     "fd03c0bf498c752161bae4719105a074630a2aa5f200ff7b3995f7bfb1513423",
		pi: "f3141cd382dc42909d19ec5110469e4feae18300e94f304590abdced48aed593" +
			"3bf0864a62558b3ed7f2fea45c92a465" +
			"301b3bbf5e3e54ddf2d935be3b67926da3ef39226bbc355bdc9850112c8f4b02",
		beta: "eb4440665d3891d668e7e0fcaf587f1b4bd7fbfe99d0eb2211ccec90496310eb" +
			"5e33821bc613efb94db5e5b54c70a848a0bef4553a41befc57663b56373a5031",
	},
	{
		name:  "example 18",
		sk:    "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
		pk:    "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
		alpha: "af82",
		h:     "bf4339376f5542811de615e3313d2b36f6f53c0acfebb482159711201192576a",
		k:     "5ffdbc72135d936014e8ab708585fda379405542b07e3bd2c0bd48437fbac60a",
		u:     "2bae73e15a64042fcebf062abe7e432b2eca6744f3e8265bc38e009cd577ecd5",
		v:     "88cba1cb0d4f9b649d9a86026b69de076724a93a65c349c988954f0961c5d506",
		pi: "9bc0f79119cc5604bf02d23b4caede71393cedfbb191434dd016d30177ccbf80" +
			"96bb474e53895c362d8628ee9f9ea3c0" +
			"e52c7a5c691b6c18c9979866568add7a2d41b00b05081ed0f58ee5e31b3a970e",
		beta: "645427e5d00c62a23fb703732fa5d892940935942101e456ecca7bb217c61c45" +
			"2118fec1219202a0edcf038bb6373241578be7217ba85a2687f7a0310b2df19f",
	},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("bad hex in a test: %v", err)
	}
	return b
}

func wantHex(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if hex.EncodeToString(got) != want {
		t.Errorf("%s = %x, want %s", what, got, want)
	}
}

func TestVRFVectorsOfTheRFC(t *testing.T) {
	for _, v := range rfcVectors {
		t.Run(v.name, func(t *testing.T) {
			key := NewVRFPrivateKey([32]byte(unhex(t, v.sk)))
			public, alpha := key.PublicKey(), unhex(t, v.alpha)
			wantHex(t, "public key", public[:], v.pk)
			h := vrfEncodeToCurve(public, alpha)
			wantHex(t, "H", h.Bytes(), v.h)
			k := key.nonce(h.Bytes())
			wantHex(t, "k", k.Bytes(), v.k)
			wantHex(t, "U", new(edwards25519.Point).ScalarBaseMult(k).Bytes(), v.u)
			wantHex(t, "V", new(edwards25519.Point).ScalarMult(k, h).Bytes(), v.v)
			proof, out := key.Prove(alpha)
			wantHex(t, "pi", proof[:], v.pi)
			wantHex(t, "beta", out[:], v.beta)

			got, err := VRFPublicKey(unhex(t, v.pk)).Verify(alpha, unhex(t, v.pi))
			if err != nil {
				t.Fatalf("Verify: %v", err)
			}
			wantHex(t, "verified beta", got[:], v.beta)
		})
	}
}

// TestVRFRejectsEveryFlippedBit flips each bit of a proof, of the input and of
// the key in turn.
func TestVRFRejectsEveryFlippedBit(t *testing.T) {
	key := NewVRFPrivateKey([32]byte{1})
	alpha := VRFInput(KindAccount, []byte("alice"), 3)
	proof, _ := key.Prove(alpha)
	public := key.PublicKey()
	for i := range 8 * len(proof) {
		bad := proof
		bad[i/8] ^= 1 << (i % 8)
		if _, err := public.Verify(alpha, bad[:]); !errors.Is(err, ErrVRFProof) {
			t.Errorf("proof with bit %d flipped: %v", i, err)
		}
	}
	for i := range 8 * len(alpha) {
		bad := slices.Clone(alpha)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := public.Verify(bad, proof[:]); !errors.Is(err, ErrVRFProof) {
			t.Errorf("input with bit %d flipped: %v", i, err)
		}
	}
	for i := range 8 * len(public) {
		bad := public
		bad[i/8] ^= 1 << (i % 8)
		if _, err := bad.Verify(alpha, proof[:]); !errors.Is(err, ErrVRFProof) && !errors.Is(err, ErrVRFKey) {
			t.Errorf("key with bit %d flipped: %v", i, err)
		}
	}
}

func TestVRFRejectsMalformedProofs(t *testing.T) {
	key := NewVRFPrivateKey([32]byte{2})
	alpha := []byte("input")
	proof, _ := key.Prove(alpha)
	with := func(at int, b []byte) []byte {
		bad := slices.Clone(proof[:])
		copy(bad[at:], b)
		return bad
	}
	// s + order is the same scalar in another spelling, and fits in 32 bytes.
	order := unhex(t, "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	sPlus, carry := slices.Clone(proof[48:]), 0
	for i := range sPlus {
		carry += int(sPlus[i]) + int(order[i])
		sPlus[i], carry = byte(carry), carry>>8
	}
	cases := []struct {
		name  string
		proof []byte
		want  string
	}{
		{"empty", nil, "0 bytes"},
		{"one byte short", proof[:79], "79 bytes"},
		{"one byte long", append(proof[:80:80], 0), "81 bytes"},
		{"s = order", with(48, order), "group order"},
		{"s plus order", with(48, sPlus), "group order"},
		{"s all ones", with(48, bytes.Repeat([]byte{0xff}, 32)), "group order"},
		{"Gamma with y = p+1", with(0, noncanonicalKeys(t)[0]), "canonical"},
		{"Gamma off the curve", with(0, offCurve(t)), "canonical"},
		{"Gamma the identity", with(0, smallOrderKeys(t)[0]), "does not hold"},
		{"c zero", with(32, make([]byte, 16)), "does not hold"},
		{"all zero", make([]byte, 80), "does not hold"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := key.PublicKey().Verify(alpha, c.proof)
			if !errors.Is(err, ErrVRFProof) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrVRFProof with %q", err, c.want)
			}
		})
	}
}

// TestVRFGammaWithTorsion adds a point of small order to Gamma: the output, made
// of 8*Gamma, would be the same, so accepting it would only add spellings.
func TestVRFGammaWithTorsion(t *testing.T) {
	key := NewVRFPrivateKey([32]byte{3})
	alpha := []byte("input")
	proof, _ := key.Prove(alpha)
	gamma, err := new(edwards25519.Point).SetBytes(proof[:32])
	if err != nil {
		t.Fatal(err)
	}
	for _, enc := range smallOrderKeys(t)[1:] {
		torsion, err := new(edwards25519.Point).SetBytes(enc)
		if err != nil {
			t.Fatal(err)
		}
		bad := proof
		copy(bad[:], new(edwards25519.Point).Add(gamma, torsion).Bytes())
		if _, err := key.PublicKey().Verify(alpha, bad[:]); !errors.Is(err, ErrVRFProof) {
			t.Errorf("Gamma + %x: %v", enc, err)
		}
	}
}

// TestVRFForgeryUnderIdentityKey makes a proof that satisfies every equation for
// the identity as public key: only validating the key stops it.
func TestVRFForgeryUnderIdentityKey(t *testing.T) {
	identity := edwards25519.NewIdentityPoint()
	public := VRFPublicKey(identity.Bytes())
	alpha := []byte("input")
	k := NewVRFPrivateKey([32]byte{4}).x
	h := vrfEncodeToCurve(public, alpha)
	u := new(edwards25519.Point).ScalarBaseMult(k)
	v := new(edwards25519.Point).ScalarMult(k, h)
	c := vrfChallenge(public, h.Bytes(), identity.Bytes(), u.Bytes(), v.Bytes())
	forged := slices.Concat(identity.Bytes(), c[:], k.Bytes())
	if _, err := public.Verify(alpha, forged); !errors.Is(err, ErrVRFKey) {
		t.Errorf("forged proof under the identity: %v", err)
	}
}

func TestVRFPublicKeyValidate(t *testing.T) {
	for i := range 16 {
		if err := NewVRFPrivateKey([32]byte{byte(i)}).PublicKey().Validate(); err != nil {
			t.Errorf("honest key %d: %v", i, err)
		}
	}
	for _, b := range slices.Concat(smallOrderKeys(t), noncanonicalKeys(t), [][]byte{offCurve(t)}) {
		if err := VRFPublicKey(b).Validate(); !errors.Is(err, ErrVRFKey) {
			t.Errorf("%x: %v", b, err)
		}
	}
}

func TestVRFPrivateKeyIsNotPrinted(t *testing.T) {
	key := NewVRFPrivateKey([32]byte{5})
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, key); got != "VRFPrivateKey(secret)" {
			t.Errorf("%s prints %q", format, got)
		}
	}
}

func TestVRFInputIsInjective(t *testing.T) {
	seen := map[string]string{}
	for _, kind := range []Kind{KindAccount, KindIdentity, KindRevocation} {
		for _, id := range []string{"", "a", "a\x00", "a\x00\x00\x00\x00", "ab", "\x00\x01a"} {
			for _, version := range []uint32{0, 1, 256, 1 << 24, 1<<32 - 1} {
				name := fmt.Sprintf("%v %q %d", kind, id, version)
				in := string(VRFInput(kind, []byte(id), version))
				if other, ok := seen[in]; ok {
					t.Errorf("%s and %s have the same input", name, other)
				}
				seen[in] = name
			}
		}
	}
	wantHex(t, "input", VRFInput(KindAccount, []byte("alice"), 258), "010005"+hex.EncodeToString([]byte("alice"))+"00000102")
}

func TestVRFInputPanicsOnHugeID(t *testing.T) {
	if n := len(VRFInput(KindAccount, make([]byte, 65528), 0)); n != 65535 {
		t.Errorf("longest input has %d bytes", n)
	}
	defer func() {
		if recover() == nil {
			t.Error("an id of 65529 bytes passed")
		}
	}()
	VRFInput(KindAccount, make([]byte, 65529), 0)
}

func TestLabels(t *testing.T) {
	key := NewVRFPrivateKey([32]byte{6})
	label, proof := key.Label(KindIdentity, []byte("id"), 7)
	_, out := key.Prove(VRFInput(KindIdentity, []byte("id"), 7))
	if label != Label(out[:32]) {
		t.Error("the label is not the first half of the output")
	}
	got, err := key.PublicKey().VerifyLabel(KindIdentity, []byte("id"), 7, proof[:])
	if err != nil || got != label {
		t.Errorf("VerifyLabel = %x, %v, want %x", got, err, label)
	}
	for name, check := range map[string]func() (Label, error){
		"kind":    func() (Label, error) { return key.PublicKey().VerifyLabel(KindAccount, []byte("id"), 7, proof[:]) },
		"id":      func() (Label, error) { return key.PublicKey().VerifyLabel(KindIdentity, []byte("ie"), 7, proof[:]) },
		"version": func() (Label, error) { return key.PublicKey().VerifyLabel(KindIdentity, []byte("id"), 8, proof[:]) },
	} {
		if got, err := check(); !errors.Is(err, ErrVRFProof) || got != (Label{}) {
			t.Errorf("another %s: %x, %v", name, got, err)
		}
	}
}

func TestKindNames(t *testing.T) {
	for kind, want := range map[Kind]string{KindAccount: "account", KindIdentity: "identity", KindRevocation: "revocation", 9: "Kind(9)"} {
		if kind.String() != want {
			t.Errorf("%d: %q, want %q", kind, kind, want)
		}
	}
}

func BenchmarkVRFProve(b *testing.B) {
	key := NewVRFPrivateKey([32]byte{8})
	id := make([]byte, 32)
	b.ReportAllocs()
	version := uint32(0)
	for b.Loop() {
		key.Label(KindIdentity, id, version)
		version++
	}
}

func BenchmarkVRFVerify(b *testing.B) {
	key := NewVRFPrivateKey([32]byte{9})
	public, id := key.PublicKey(), make([]byte, 32)
	_, proof := key.Label(KindIdentity, id, 0)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := public.VerifyLabel(KindIdentity, id, 0, proof[:]); err != nil {
			b.Fatal(err)
		}
	}
}
