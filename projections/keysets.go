package projections

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// The view of KeySets is folded from KT entries of kind identity: the newest
// version's value is the newest KeySet.

// checkKeySet checks that an entry's value is the KeySet that the entry is
// about. Signature and device list were checked when it was decided.
func checkKeySet(ev *pb.KeyTransparencyEntry) error {
	ks := new(pb.KeySet)
	if err := (proto.UnmarshalOptions{RecursionLimit: maxEventDepth}).Unmarshal(ev.GetValue(), ks); err != nil {
		return invalid("KeySet: malformed")
	}
	if !bytes.Equal(ks.GetIdentityKey(), ev.GetId()) || ks.GetVersion() != ev.GetVersion() {
		return invalid("KeySet of another identity or version")
	}
	return nil
}

// KeySet is the newest KeySet of an identity, as it was uploaded.
func KeySet(r Reader, identityKey Key) (*pb.KeySet, bool, error) {
	newest, found, err := ktNewest(r, kt.KindIdentity, identityKey[:])
	if err != nil || !found {
		return nil, false, err
	}
	entry, found, err := ktEntry(r, newest.label)
	if err != nil || !found {
		return nil, false, err
	}
	ks := new(pb.KeySet)
	if err := proto.Unmarshal(entry.Entry.GetValue(), ks); err != nil {
		return nil, false, r.fault(fmt.Errorf("%w of KT entries: %w", errRow, err))
	}
	return ks, true, nil
}
