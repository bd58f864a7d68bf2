package projections

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// Transparency is where key transparency stands at one point of the log.
type Transparency struct {
	// KTCount is the number of KT leaves.
	KTCount uint64
	// Heads is the number of HEAD leaves: the epoch of the next one.
	Heads uint64
	// NewestHead is the log index of the newest HEAD, 0 without one.
	NewestHead uint64
	// NewestConfig is the log index of the newest CONFIG.
	NewestConfig uint64
}

// TransparencyState reads where key transparency stands.
func TransparencyState(r Reader) (Transparency, error) {
	state, _, err := readRow(r, "transparency", keyOf(r.scratch(), prefixTransparency), func(in *rowReader) Transparency {
		return Transparency{KTCount: in.u64(), Heads: in.u64(), NewestHead: in.u64(), NewestConfig: in.u64()}
	})
	return state, err
}

func putTransparency(b *Batch, t Transparency) error {
	row := b.row[:0]
	for _, v := range [...]uint64{t.KTCount, t.Heads, t.NewestHead, t.NewestConfig} {
		row = binary.BigEndian.AppendUint64(row, v)
	}
	b.row = row
	return b.put(keyOf(b.scratch(), prefixTransparency), row)
}

// NextHead is the head that sums up everything before the batch's end, made at a
// time (Unix milliseconds).
func NextHead(b *Batch, timeMS uint64) (kt.Head, error) {
	state, err := TransparencyState(b)
	if err != nil {
		return kt.Head{}, err
	}
	h := kt.Head{
		Epoch: state.Heads, TimeMS: timeMS, PrevHead: state.NewestHead, Config: state.NewestConfig, KTCount: state.KTCount,
	}
	if h.MapRoot, err = MapRoot(b); err != nil {
		return kt.Head{}, err
	}
	h.HeadsRoot, err = HeadsRoot(b, state.Heads)
	return h, err
}

// applyHeadSealed makes the head a second time from the views: one that says
// anything else is refused, so nothing is built on a root that is not the map's.
func applyHeadSealed(b *Batch, e *Entry, ev *pb.HeadSealed) error {
	leaf, err := kt.ParseLeaf(e.Leaf)
	if err != nil {
		return invalid("leaf: %v", err)
	}
	want, err := NextHead(b, e.Event.GetTimeMs())
	if err != nil {
		return err
	}
	if leaf.Head != want {
		return invalid("%s of the head differs from the views", headDifference(leaf.Head, want))
	}
	state, err := TransparencyState(b)
	if err != nil {
		return err
	}
	if err := addHead(b, state.Heads, kt.LeafHash(e.Leaf)); err != nil {
		return err
	}
	b.row = binary.BigEndian.AppendUint64(b.row[:0], e.Index)
	if err := b.put(keyOfU64(b.scratch(), prefixHead, state.Heads), b.row); err != nil {
		return err
	}
	state.Heads++
	state.NewestHead = e.Index
	return putTransparency(b, state)
}

// headDifference names the first field in which two heads differ.
func headDifference(a, b kt.Head) string {
	switch {
	case a.Epoch != b.Epoch:
		return "epoch"
	case a.TimeMS != b.TimeMS:
		return "time_ms"
	case a.PrevHead != b.PrevHead:
		return "prev_head"
	case a.Config != b.Config:
		return "config"
	case a.KTCount != b.KTCount:
		return "kt_count"
	case a.MapRoot != b.MapRoot:
		return "map_root"
	}
	return "heads_root"
}

// HeadIndex is the log index of the HEAD of an epoch.
func HeadIndex(r Reader, epoch uint64) (index uint64, found bool, err error) {
	return readRow(r, "heads", keyOfU64(r.scratch(), prefixHead, epoch), (*rowReader).u64)
}

// KTOrder calls each with the labels of KT leaves number from to to-1, in the
// order of the log; number 0 is the log's first.
func KTOrder(r Reader, from, to uint64, each func(number uint64, label kt.Label) error) error {
	next := from
	lower := keyOfU64(nil, prefixKTOrder, from)
	upper := keyOfU64(nil, prefixKTOrder, max(from, to))
	err := scanRows(r, lower, upper, func(key, value []byte) (bool, error) {
		if len(value) != len(kt.Label{}) || !bytes.Equal(key[1:], binary.BigEndian.AppendUint64(nil, next)) {
			return false, fmt.Errorf("%w of KT order", errRow)
		}
		next++
		return true, each(next-1, kt.Label(value))
	})
	if err == nil && next < to {
		return fmt.Errorf("views: there are no KT leaves %d to %d", next, to)
	}
	return err
}
