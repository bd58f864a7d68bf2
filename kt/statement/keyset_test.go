package statement

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "quicprochat/proto/qpcv1"
)

// hybridKey stands in for an X-Wing key: this package looks at its size only.
func hybridKey() []byte {
	key := make([]byte, HybridKeySize)
	for i := range key {
		key[i] = byte(i % 251)
	}
	return key
}

// firstKeySet is version 0 of the test identity: one device, no hybrid key.
func firstKeySet() *pb.KeySet {
	ks := &pb.KeySet{
		IdentityKey: public(identity),
		DeviceKeys:  [][]byte{public(device)},
		TimeMs:      1_700_000_000_000,
	}
	SignKeySet(server, ks, identity)
	return ks
}

// nextKeySet is version 1: two devices and a hybrid key.
func nextKeySet() *pb.KeySet {
	hash := KeySetHash(server, firstKeySet())
	ks := &pb.KeySet{
		IdentityKey:  public(identity),
		Version:      1,
		PreviousHash: hash[:],
		DeviceKeys:   [][]byte{public(device), public(recipient)},
		KemId:        KEMXWing,
		HybridKey:    hybridKey(),
		TimeMs:       1_700_000_060_000,
	}
	SignKeySet(server, ks, identity)
	return ks
}

func TestKeySetBytes(t *testing.T) {
	want := frame("qpc-keyset-v1", []byte(server), public(identity), u32(0), nil,
		u32(1), public(device), u32(0), nil, u64(1_700_000_000_000))
	if got := KeySetBytes(server, firstKeySet()); !bytes.Equal(got, want) {
		t.Errorf("version 0:\n got %x\nwant %x", got, want)
	}
	hash := sha256.Sum256(want)
	if KeySetHash(server, firstKeySet()) != hash {
		t.Error("KeySetHash is not the SHA-256 of the signed bytes")
	}
	want = frame("qpc-keyset-v1", []byte(server), public(identity), u32(1), hash[:],
		u32(2), public(device), public(recipient), u32(0x647a), hybridKey(), u64(1_700_000_060_000))
	if got := KeySetBytes(server, nextKeySet()); !bytes.Equal(got, want) {
		t.Errorf("version 1:\n got %x\nwant %x", got, want)
	}
}

func TestKeySetVerifies(t *testing.T) {
	for name, ks := range map[string]*pb.KeySet{
		"version 0": firstKeySet(),
		"version 1": nextKeySet(),
		"no device left": resigned(nextKeySet(), func(ks *pb.KeySet) {
			ks.DeviceKeys = nil
		}),
		"the identity key as a device": resigned(firstKeySet(), func(ks *pb.KeySet) {
			ks.DeviceKeys = [][]byte{public(identity)}
		}),
		"as many devices as allowed": resigned(firstKeySet(), func(ks *pb.KeySet) {
			ks.DeviceKeys = manyKeys(MaxDeviceKeys)
		}),
	} {
		if err := VerifyKeySet(server, ks); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// resigned changes a KeySet and signs it anew: what is refused then is refused
// for the change, not for the signature.
func resigned(ks *pb.KeySet, change func(*pb.KeySet)) *pb.KeySet {
	change(ks)
	SignKeySet(server, ks, identity)
	return ks
}

// manyKeys gives n different keys.
func manyKeys(n int) [][]byte {
	var keys [][]byte
	for i := range n {
		seed := sha256.Sum256([]byte{byte(i >> 8), byte(i)})
		keys = append(keys, public(ed25519.NewKeyFromSeed(seed[:])))
	}
	return keys
}

func TestVerifyKeySetRefuses(t *testing.T) {
	weak := append([]byte{1}, make([]byte, 31)...)
	for _, c := range []struct {
		name   string
		change func(*pb.KeySet)
		want   error
	}{
		{"previous_hash missing", func(ks *pb.KeySet) { ks.PreviousHash = nil }, ErrKeySet},
		{"previous_hash short", func(ks *pb.KeySet) { ks.PreviousHash = ks.PreviousHash[:31] }, ErrKeySet},
		{"previous_hash in version 0", func(ks *pb.KeySet) { ks.Version = 0 }, ErrKeySet},
		{"no device in version 0", func(ks *pb.KeySet) { ks.Version, ks.PreviousHash, ks.DeviceKeys = 0, nil, nil }, ErrKeySet},
		{"too many devices", func(ks *pb.KeySet) { ks.DeviceKeys = manyKeys(MaxDeviceKeys + 1) }, ErrKeySet},
		{"a device twice", func(ks *pb.KeySet) { ks.DeviceKeys[1] = ks.DeviceKeys[0] }, ErrKeySet},
		{"device key short", func(ks *pb.KeySet) { ks.DeviceKeys[1] = ks.DeviceKeys[1][:31] }, ErrKey},
		{"device key empty", func(ks *pb.KeySet) { ks.DeviceKeys[1] = nil }, ErrKey},
		{"device key of small order", func(ks *pb.KeySet) { ks.DeviceKeys[1] = weak }, ErrKey},
		{"identity key missing", func(ks *pb.KeySet) { ks.IdentityKey = nil }, ErrKey},
		{"identity key of small order", func(ks *pb.KeySet) { ks.IdentityKey = weak }, ErrKey},
		{"another identity's signature", func(ks *pb.KeySet) { ks.IdentityKey = public(stranger) }, ErrSignature},
		{"no time", func(ks *pb.KeySet) { ks.TimeMs = 0 }, ErrKeySet},
		{"time beyond int64", func(ks *pb.KeySet) { ks.TimeMs = math.MaxInt64 + 1 }, ErrKeySet},
		{"kem_id without a key", func(ks *pb.KeySet) { ks.HybridKey = nil }, ErrKeySet},
		{"a key without kem_id", func(ks *pb.KeySet) { ks.KemId = 0 }, ErrKeySet},
		{"unknown kem_id", func(ks *pb.KeySet) { ks.KemId = 0x0020 }, ErrKeySet},
		{"kem_id over 16 bits", func(ks *pb.KeySet) { ks.KemId = 1<<16 | KEMXWing }, ErrKeySet},
		{"hybrid key short", func(ks *pb.KeySet) { ks.HybridKey = ks.HybridKey[1:] }, ErrKeySet},
		{"hybrid key long", func(ks *pb.KeySet) { ks.HybridKey = append(ks.HybridKey, 0) }, ErrKeySet},
		{"unknown fields", func(ks *pb.KeySet) {
			ks.ProtoReflect().SetUnknown(protoreflect.RawFields{0xf8, 0x01, 0x01})
		}, ErrKeySet},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := VerifyKeySet(server, resigned(nextKeySet(), c.change)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if err := VerifyKeySet(server, nil); !errors.Is(err, ErrKeySet) {
		t.Errorf("no KeySet: %v", err)
	}
}

// TestKeySetSignatureCoversEveryField changes each field of the message without
// signing anew, found by reflection, so that a field added later is seen.
func TestKeySetSignatureCoversEveryField(t *testing.T) {
	fields := (*pb.KeySet)(nil).ProtoReflect().Descriptor().Fields()
	signed := KeySetBytes(server, nextKeySet())
	for i := range fields.Len() {
		fd := fields.Get(i)
		ks := nextKeySet()
		m := ks.ProtoReflect()
		switch {
		case fd.IsList():
			m.Mutable(fd).List().Append(protoreflect.ValueOfBytes(public(stranger)))
		case fd.Kind() == protoreflect.BytesKind:
			b := bytes.Clone(m.Get(fd).Bytes())
			b[0] ^= 1
			m.Set(fd, protoreflect.ValueOfBytes(b))
		case fd.Kind() == protoreflect.Uint32Kind:
			m.Set(fd, protoreflect.ValueOfUint32(uint32(m.Get(fd).Uint())+1))
		case fd.Kind() == protoreflect.Uint64Kind:
			m.Set(fd, protoreflect.ValueOfUint64(m.Get(fd).Uint()+1))
		default:
			t.Fatalf("field %s has a kind this test does not know: %v", fd.Name(), fd.Kind())
		}
		if err := VerifyKeySet(server, ks); err == nil {
			t.Errorf("a changed %s passes", fd.Name())
		}
		if same := bytes.Equal(KeySetBytes(server, ks), signed); same != (fd.Name() == "signature") {
			t.Errorf("%s changed: signed bytes the same: %v", fd.Name(), same)
		}
	}
	if err := VerifyKeySet("chat.example.net", nextKeySet()); !errors.Is(err, ErrSignature) {
		t.Errorf("on another server: %v", err)
	}
}

func TestVerifySuccessor(t *testing.T) {
	if err := VerifySuccessor(server, firstKeySet(), nextKeySet()); err != nil {
		t.Errorf("the next version: %v", err)
	}
	if err := VerifySuccessor(server, firstKeySet(), resigned(nextKeySet(), func(ks *pb.KeySet) { ks.TimeMs = 1 })); err != nil {
		t.Errorf("a clock that was set back: %v", err)
	}
	last := resigned(nextKeySet(), func(ks *pb.KeySet) { ks.Version = math.MaxUint32 })
	lastHash := KeySetHash(server, last)
	for _, c := range []struct {
		name          string
		current, next *pb.KeySet
		want          error
	}{
		{"the same version again", firstKeySet(), firstKeySet(), ErrKeySetVersion},
		{"a version back", nextKeySet(), firstKeySet(), ErrKeySetVersion},
		{"a version left out", firstKeySet(), resigned(nextKeySet(), func(ks *pb.KeySet) { ks.Version = 2 }), ErrKeySetVersion},
		{"version 0 after the last", last, resigned(firstKeySet(), func(ks *pb.KeySet) { ks.PreviousHash = lastHash[:] }), ErrKeySetVersion},
		{"another previous", resigned(firstKeySet(), func(ks *pb.KeySet) { ks.TimeMs++ }), nextKeySet(), ErrKeySetVersion},
		{"another identity", firstKeySet(), resigned(nextKeySet(), func(ks *pb.KeySet) { ks.IdentityKey = public(stranger) }), ErrKeySet},
	} {
		if err := VerifySuccessor(server, c.current, c.next); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// TestKeySetSurvivesTheWire: what is signed does not depend on how the message
// was encoded.
func TestKeySetSurvivesTheWire(t *testing.T) {
	wire, err := proto.Marshal(nextKeySet())
	if err != nil {
		t.Fatal(err)
	}
	var got pb.KeySet
	if err := proto.Unmarshal(wire, &got); err != nil {
		t.Fatal(err)
	}
	if err := VerifyKeySet(server, &got); err != nil {
		t.Error(err)
	}
	if KeySetHash(server, &got) != KeySetHash(server, nextKeySet()) {
		t.Error("the hash changed on the wire")
	}
}

func TestKeySetErrorsNameTheirPlace(t *testing.T) {
	err := VerifyKeySet(server, resigned(nextKeySet(), func(ks *pb.KeySet) { ks.DeviceKeys[1] = nil }))
	if err == nil || !strings.Contains(err.Error(), "device key 1") {
		t.Errorf("got %v", err)
	}
}
