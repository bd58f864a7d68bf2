package kt

import (
	"errors"
	"testing"
)

func TestLabelOfAProof(t *testing.T) {
	key := NewVRFPrivateKey([32]byte{7})
	for version := range uint32(20) {
		want, proof := key.Label(KindAccount, []byte("alice"), version)
		if got, err := proof.Label(); err != nil || got != want {
			t.Errorf("version %d: %x, %v, want %x", version, got, err, want)
		}
	}
	if _, err := (VRFProof{31: 0xff, 0: 0xff}).Label(); !errors.Is(err, ErrVRFProof) {
		t.Errorf("a proof without a point: %v", err)
	}
}

func BenchmarkLabelOfAProof(b *testing.B) {
	_, proof := NewVRFPrivateKey([32]byte{7}).Label(KindAccount, []byte("alice"), 0)
	for b.Loop() {
		if _, err := proof.Label(); err != nil {
			b.Fatal(err)
		}
	}
}
