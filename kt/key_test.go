package kt

import (
	"crypto/ed25519"
	"errors"
	"testing"

	"quicprochat/kt/statement"
)

// smallOrderKeys are the canonical encodings of the eight points of order 1, 2,
// 4 and 8, the identity first.
func smallOrderKeys(t testing.TB) [][]byte {
	t.Helper()
	var keys [][]byte
	for _, s := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	} {
		keys = append(keys, unhex(t, s))
	}
	return keys
}

// noncanonicalKeys decode in lenient libraries but are no encodings of RFC 8032:
// y not below p, or a sign bit on x = 0.
func noncanonicalKeys(t testing.TB) [][]byte {
	t.Helper()
	var keys [][]byte
	for _, s := range []string{
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p+1
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p+3, large order
		"0100000000000000000000000000000000000000000000000000000000000080",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	} {
		keys = append(keys, unhex(t, s))
	}
	return keys
}

// offCurve has y = 2, for which no x exists.
func offCurve(t testing.TB) []byte {
	t.Helper()
	return unhex(t, "0200000000000000000000000000000000000000000000000000000000000000")
}

func TestValidatePublicKeyIsTheStatementRule(t *testing.T) {
	good := ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)
	if err := ValidatePublicKey(good); err != nil {
		t.Errorf("honest key: %v", err)
	}
	for _, bad := range append(append(smallOrderKeys(t), noncanonicalKeys(t)...), offCurve(t), nil, good[:31]) {
		if err := ValidatePublicKey(bad); !errors.Is(err, statement.ErrKey) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}
