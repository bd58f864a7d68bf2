package commands_test

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cloudflare/circl/kem/xwing"

	"quicprochat/commands"
	"quicprochat/kt/statement"
)

// hybridKeyFrom makes a valid X-Wing public key from a name.
func hybridKeyFrom(name string) []byte {
	seed := seedFrom("hybrid:" + name)
	_, public := xwing.DeriveKeyPairPacked(seed[:])
	return public
}

func TestValidateHybridKeyAcceptsRealKeys(t *testing.T) {
	for i := range 20 {
		if err := commands.ValidateHybridKey(hybridKeyFrom(fmt.Sprint(i))); err != nil {
			t.Errorf("key %d: %v", i, err)
		}
	}
}

// TestValidateHybridKeyLowOrder puts each low-order encoding of RFC 7748's
// curve, also the non-canonical ones and those with the ignored bit set, into an
// otherwise good key. The list is the one of the Go and libsodium test suites.
func TestValidateHybridKeyLowOrder(t *testing.T) {
	points := []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	}
	for _, text := range points {
		point, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, top := range []byte{0, 0x80} {
			key := hybridKeyFrom("low order")
			copy(key[len(key)-32:], point)
			key[len(key)-1] |= top
			if err := commands.ValidateHybridKey(key); !errors.Is(err, commands.ErrHybridKeyLowOrder) {
				t.Errorf("point %s with top bit %#x: got %v", text, top, err)
			}
		}
	}
}

// TestValidateHybridKeyModulus raises one 12-bit coefficient to q = 3329 and
// above, at the first, a middle and the last position.
func TestValidateHybridKeyModulus(t *testing.T) {
	const coefficients = 3 * 256
	for _, position := range []int{0, 1, 300, coefficients - 2, coefficients - 1} {
		for _, value := range []uint16{3329, 3330, 4095} {
			key := hybridKeyFrom("modulus")
			setCoefficient(key, position, value)
			if err := commands.ValidateHybridKey(key); !errors.Is(err, commands.ErrHybridKeyModulus) {
				t.Errorf("coefficient %d = %d: got %v", position, value, err)
			}
		}
		key := hybridKeyFrom("modulus")
		setCoefficient(key, position, 3328)
		if err := commands.ValidateHybridKey(key); err != nil {
			t.Errorf("coefficient %d = 3328, the largest reduced one: %v", position, err)
		}
	}
}

// setCoefficient writes the 12-bit little-endian coefficient i of an encoded
// ML-KEM key (FIPS 203, ByteEncode12).
func setCoefficient(key []byte, i int, value uint16) {
	at := i / 2 * 3
	if i%2 == 0 {
		key[at] = byte(value)
		key[at+1] = key[at+1]&0xf0 | byte(value>>8)
		return
	}
	key[at+1] = key[at+1]&0x0f | byte(value<<4)
	key[at+2] = byte(value >> 4)
}

func TestValidateHybridKeyLength(t *testing.T) {
	whole := hybridKeyFrom("length")
	for _, n := range []int{0, 1, 32, 1184, statement.HybridKeySize - 1} {
		if err := commands.ValidateHybridKey(whole[:n]); err == nil {
			t.Errorf("%d bytes were accepted", n)
		}
	}
	if err := commands.ValidateHybridKey(append(bytes.Clone(whole), 0)); err == nil {
		t.Error("a byte too many was accepted")
	}
}

// TestValidateHybridKeyAgainstStandardLibrary compares the X25519 verdict with
// crypto/ecdh, which refuses a zero shared secret, over random strings.
func TestValidateHybridKeyAgainstStandardLibrary(t *testing.T) {
	random := rand.New(rand.NewChaCha8([32]byte{7}))
	scalar, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{0x42}, 32))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		key := hybridKeyFrom("oracle")
		point := key[len(key)-32:]
		for j := range point {
			point[j] = byte(random.Uint32())
		}
		public, err := ecdh.X25519().NewPublicKey(point)
		if err != nil {
			t.Fatal(err)
		}
		_, oracle := scalar.ECDH(public)
		if got := commands.ValidateHybridKey(key); (got == nil) != (oracle == nil) {
			t.Fatalf("round %d, point %x: %v, crypto/ecdh says %v", i, point, got, oracle)
		}
	}
}

func FuzzValidateHybridKey(f *testing.F) {
	f.Add(hybridKeyFrom("fuzz"))
	f.Add(make([]byte, statement.HybridKeySize))
	f.Add(bytes.Repeat([]byte{0xff}, statement.HybridKeySize))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, key []byte) {
		before := bytes.Clone(key)
		err := commands.ValidateHybridKey(key)
		if !bytes.Equal(before, key) {
			t.Fatal("the key was changed")
		}
		if err != nil {
			return
		}
		// What is accepted can be sealed to.
		if _, _, err := xwing.Encapsulate(key, make([]byte, xwing.EncapsulationSeedSize)); err != nil {
			t.Fatalf("accepted, but encapsulation says %v", err)
		}
	})
}
