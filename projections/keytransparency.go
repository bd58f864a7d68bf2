package projections

import (
	"encoding/binary"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// maxKTID bounds an identifier: a username or a key.
const maxKTID = maxUsernameSize

// vrfProofSize is that of ECVRF-EDWARDS25519-SHA512-TAI in bytes (RFC 9381).
const vrfProofSize = kt.VRFProofSize

// KTRef is what the transparency map knows of one label.
type KTRef struct {
	Label      kt.Label
	Commitment kt.Hash
	// Index is the log index of the KT leaf.
	Index uint64
}

// KTVersion is one version of an identifier, with all that a proof needs.
type KTVersion struct {
	KTRef
	Opening kt.Opening
	// Raw is the event exactly as it was committed to.
	Raw []byte
	// Entry is the event's body: value and VRF proofs.
	Entry *pb.KeyTransparencyEntry
}

// applyKeyTransparencyEntry appends a version: the first is 0, none is left out,
// and no label stands twice.
func applyKeyTransparencyEntry(b *Batch, e *Entry, ev *pb.KeyTransparencyEntry) error {
	leaf, err := kt.ParseLeaf(e.Leaf)
	if err != nil {
		return invalid("leaf: %v", err)
	}
	if err := checkKTEntry(ev); err != nil {
		return err
	}
	next, err := checkKTLabels(leaf.Label, ev)
	if err != nil {
		return err
	}
	kind := byte(ev.GetKind())
	newest, found, err := KTNewest(b, kt.Kind(kind), ev.GetId())
	if err != nil {
		return err
	}
	if want := newest + 1; (found && ev.GetVersion() != want) || (!found && ev.GetVersion() != 0) {
		return invalid("version %d does not follow the newest", ev.GetVersion())
	}
	if err := checkSubject(b, e, ev); err != nil {
		return err
	}
	if err := addToMap(b, KTRef{leaf.Label, leaf.Commitment, e.Index}); err != nil {
		return err
	}
	b.row = append(append(b.row[:0], e.Opening[:]...), e.Raw...)
	if err := b.put(keyOf32(b.scratch(), prefixKTEntry, leaf.Label), b.row); err != nil {
		return err
	}
	if err := b.put(ktVersionKey(b.scratch(), kind, ev.GetId(), ev.GetVersion()), leaf.Label[:]); err != nil {
		return err
	}
	b.row = append(binary.BigEndian.AppendUint32(b.row[:0], ev.GetVersion()), leaf.Label[:]...)
	b.row = append(b.row, next[:]...)
	if err := b.put(ktKey(b.scratch(), prefixKTNewest, kind, ev.GetId()), b.row); err != nil {
		return err
	}
	if err := countKeyChange(b, ev, e.Event.GetTimeMs()); err != nil {
		return err
	}
	if kt.Kind(kind) == kt.KindRevocation {
		return b.endKey(Key(ev.GetId()))
	}
	return nil
}

// checkKTLabels checks that the leaf stands where the event's VRF proof says, and
// gives the label of the version after it.
func checkKTLabels(label kt.Label, ev *pb.KeyTransparencyEntry) (next kt.Label, err error) {
	own, err := kt.VRFProof(ev.GetVrfProof()).Label()
	if err != nil || own != label {
		return next, invalid("the label is not that of the VRF proof")
	}
	if next, err = kt.VRFProof(ev.GetNextVrfProof()).Label(); err != nil {
		return next, invalid("VRF proof of the next version: %v", err)
	}
	return next, nil
}

// addToMap writes a new label into the map, its index and its order.
func addToMap(b *Batch, ref KTRef) error {
	if _, found, err := KTLabel(b, ref.Label); err != nil || found {
		return orInvalid(err, "the label exists")
	}
	b.row = binary.BigEndian.AppendUint64(append(b.row[:0], ref.Commitment[:]...), ref.Index)
	if err := b.put(keyOf32(b.scratch(), prefixKTLabel, ref.Label), b.row); err != nil {
		return err
	}
	state, err := TransparencyState(b)
	if err != nil {
		return err
	}
	if err := b.put(keyOfU64(b.scratch(), prefixKTOrder, state.KTCount), ref.Label[:]); err != nil {
		return err
	}
	state.KTCount++
	if err := putTransparency(b, state); err != nil {
		return err
	}
	return insertLabel(b, kt.MapLeaf{Label: ref.Label, Commitment: ref.Commitment})
}

// checkKTEntry checks what does not depend on the views.
func checkKTEntry(ev *pb.KeyTransparencyEntry) error {
	if len(ev.GetVrfProof()) != vrfProofSize || len(ev.GetNextVrfProof()) != vrfProofSize {
		return invalid("VRF proofs of %d and %d bytes", len(ev.GetVrfProof()), len(ev.GetNextVrfProof()))
	}
	if len(ev.GetId()) == 0 || len(ev.GetId()) > maxKTID {
		return invalid("KT id of %d bytes", len(ev.GetId()))
	}
	switch ev.GetKind() {
	case uint32(kt.KindAccount):
		return checkAccountBinding(ev)
	case uint32(kt.KindIdentity):
		if _, err := field32(ev.GetId(), "identity key"); err != nil {
			return err
		}
		return checkKeySet(ev)
	case uint32(kt.KindRevocation):
		return checkRevocation(ev)
	default:
		return invalid("KT entry of kind %d", ev.GetKind())
	}
}

// KTLabel finds a label of the map. A username is taken when the label of its
// account's version 0 is found.
func KTLabel(r Reader, label kt.Label) (KTRef, bool, error) {
	ref, found, err := readRow(r, "KT labels", keyOf32(r.scratch(), prefixKTLabel, label), func(in *rowReader) KTRef {
		return KTRef{Commitment: in.array32(), Index: in.u64()}
	})
	ref.Label = label
	return ref, found, err
}

// KTEntry finds one version of an identifier.
func KTEntry(r Reader, kind kt.Kind, id []byte, version uint32) (KTVersion, bool, error) {
	if len(id) > maxKTID {
		return KTVersion{}, false, nil
	}
	label, found, err := readRow(r, "KT versions", ktVersionKey(r.scratch(), byte(kind), id, version), (*rowReader).array32)
	if err != nil || !found {
		return KTVersion{}, false, err
	}
	return ktEntry(r, label)
}

// ktEntry reads all that is kept under a label.
func ktEntry(r Reader, label kt.Label) (v KTVersion, found bool, err error) {
	if v.KTRef, found, err = KTLabel(r, label); err != nil || !found {
		return v, false, err
	}
	value, found, err := r.get(keyOf32(r.scratch(), prefixKTEntry, label))
	if err != nil || !found {
		return v, false, err
	}
	if len(value) < len(v.Opening) {
		return v, false, r.fault((&rowReader{bad: true}).end("KT entries"))
	}
	v.Opening, v.Raw = kt.Opening(value), append([]byte(nil), value[len(v.Opening):]...)
	ev, err := DecodeEvent(v.Raw)
	if err != nil {
		return v, false, err
	}
	v.Entry = ev.GetKeyTransparencyEntry()
	return v, true, nil
}

// KTNewest is the number of an identifier's newest version.
func KTNewest(r Reader, kind kt.Kind, id []byte) (version uint32, found bool, err error) {
	newest, found, err := ktNewest(r, kind, id)
	return newest.version, found, err
}

// KTAbsent is the number of an identifier's newest version and the label of the
// one after it, which the map lacks. The newest entry's next_vrf_proof is its proof.
func KTAbsent(r Reader, kind kt.Kind, id []byte) (version uint32, label kt.Label, found bool, err error) {
	newest, found, err := ktNewest(r, kind, id)
	return newest.version, newest.next, found, err
}

// checkAccountBinding checks the value of an account entry: version 0 says who
// registered first, later ones hand the name over.
func checkAccountBinding(ev *pb.KeyTransparencyEntry) error {
	binding := new(pb.AccountBinding)
	if err := (proto.UnmarshalOptions{RecursionLimit: maxEventDepth}).Unmarshal(ev.GetValue(), binding); err != nil {
		return invalid("account binding: malformed")
	}
	if err := checkKnown(binding.ProtoReflect()); err != nil {
		return err
	}
	if _, err := field32(binding.GetIdentityKey(), "identity key"); err != nil {
		return err
	}
	if ev.GetVersion() > 0 {
		return checkHandOver(binding)
	}
	if binding.GetAuthority() != pb.Authority_FIRST || binding.GetTombstone() ||
		len(binding.GetOldSignature())+len(binding.GetNewSignature())+len(binding.GetKeySetHash()) > 0 {
		return invalid("account binding: not that of a first registration")
	}
	return nil
}

type ktNewestRow struct {
	version     uint32
	label, next kt.Label
}

func ktNewest(r Reader, kind kt.Kind, id []byte) (ktNewestRow, bool, error) {
	if len(id) > maxKTID {
		return ktNewestRow{}, false, nil
	}
	return readRow(r, "KT newest versions", ktKey(r.scratch(), prefixKTNewest, byte(kind), id), func(in *rowReader) ktNewestRow {
		return ktNewestRow{version: in.u32(), label: in.array32(), next: in.array32()}
	})
}
