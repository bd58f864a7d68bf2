package projections

import (
	"encoding/binary"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// Key changes cost the log for ever: they are counted per account and UTC day, and
// whoever decides one more may refuse it (KeyChanges).

// countKeyChange counts a new version of an account's binding or KeySets. What a
// registration writes is no change.
func countKeyChange(b *Batch, ev *pb.KeyTransparencyEntry, nowMS uint64) error {
	if ev.GetVersion() == 0 {
		return nil
	}
	var account ID
	var found bool
	var err error
	switch kt.Kind(ev.GetKind()) {
	case kt.KindAccount:
		var a Account
		a, found, err = AccountByName(b, string(ev.GetId()))
		account = a.ID
	case kt.KindIdentity:
		var owner Owner
		owner, found, err = KeyOwner(b, Key(ev.GetId()))
		account = owner.AccountID
	}
	if err != nil || !found {
		return err
	}
	n, err := KeyChanges(b, account, nowMS)
	if err != nil {
		return err
	}
	b.row = binary.BigEndian.AppendUint32(b.row[:0], dayOf(nowMS))
	b.row = binary.BigEndian.AppendUint32(b.row, n+1)
	return b.put(keyOfID(b.scratch(), prefixKeyChanges, account), b.row)
}

// KeyChanges is how often an account's keys changed on the UTC day of nowMS.
func KeyChanges(r Reader, account ID, nowMS uint64) (uint32, error) {
	type changes struct{ day, count uint32 }
	row, found, err := readRow(r, "key changes", keyOfID(r.scratch(), prefixKeyChanges, account), func(in *rowReader) changes {
		return changes{in.u32(), in.u32()}
	})
	if err != nil || !found || row.day != dayOf(nowMS) {
		return 0, err
	}
	return row.count, nil
}
