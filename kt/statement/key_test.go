package statement

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"filippo.io/edwards25519"
)

func TestValidatePublicKeyAcceptsHonestKeys(t *testing.T) {
	const seed = 25519
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range 200 {
		key := public(testKey(byte(i)))
		if i >= 100 {
			// Any multiple of the base point is a key, also one nobody knows.
			var wide [64]byte
			for j := range wide {
				wide[j] = byte(random.Uint32())
			}
			s, err := edwards25519.NewScalar().SetUniformBytes(wide[:])
			if err != nil {
				t.Fatal(err)
			}
			key = new(edwards25519.Point).ScalarBaseMult(s).Bytes()
		}
		if err := ValidatePublicKey(key); err != nil {
			t.Errorf("seed %d, key %d (%x): %v", seed, i, key, err)
		}
	}
}

func TestValidatePublicKeyRefuses(t *testing.T) {
	good := public(identity)
	// lenient: the library decodes it, so only the check for canonical form stops it.
	for _, c := range []struct {
		name, key, want string
		lenient         bool
	}{
		{"order 1", "0100000000000000000000000000000000000000000000000000000000000000", "small order", true},
		{"order 2", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "small order", true},
		{"order 4", "0000000000000000000000000000000000000000000000000000000000000000", "small order", true},
		{"order 4, other sign", "0000000000000000000000000000000000000000000000000000000000000080", "small order", true},
		{"order 8, a", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "small order", true},
		{"order 8, -a", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85", "small order", true},
		{"order 8, b", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", "small order", true},
		{"order 8, -b", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa", "small order", true},
		{"order 1 as y = p+1", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "canonical", true},
		{"order 1 with a sign", "0100000000000000000000000000000000000000000000000000000000000080", "canonical", true},
		{"order 2 with a sign", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "canonical", true},
		{"order 4 as y = p", "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "canonical", true},
		{"large order as y = p+3", "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "canonical", true},
		{"large order as y = 2^255-1", "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "canonical", true},
		{"off the curve, y = 2", "0200000000000000000000000000000000000000000000000000000000000000", "not a point", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			key := unhex(t, c.key)
			if _, err := new(edwards25519.Point).SetBytes(key); (err == nil) != c.lenient {
				t.Errorf("the library says %v", err)
			}
			if err := ValidatePublicKey(key); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrKey with %q", err, c.want)
			}
		})
	}
	for _, key := range [][]byte{nil, good[:31], append(bytes.Clone(good), 0), bytes.Repeat(good, 2)} {
		if err := ValidatePublicKey(key); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "bytes") {
			t.Errorf("key of %d bytes: %v", len(key), err)
		}
	}
}
