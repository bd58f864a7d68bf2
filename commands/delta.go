package commands

import (
	"cmp"
	"fmt"
	"slices"

	"quicprochat/kt"
	"quicprochat/log"
	"quicprochat/projections"
)

// Delta is what auditors of keys alone read (kt.Delta): the KT, CONFIG and HEAD
// leaves of epochs 256 n to 256 n + width - 1, width being 1 to 256. r is a
// published state. Epochs that it does not have are log.ErrOutOfRange.
func Delta(r projections.Reader, l *log.Log, n uint64, width int) ([]byte, error) {
	state, err := projections.TransparencyState(r)
	if err != nil {
		return nil, err
	}
	if width < 1 || width > kt.EpochsPerDelta || n > state.Heads/kt.EpochsPerDelta || n*kt.EpochsPerDelta+uint64(width) > state.Heads {
		return nil, fmt.Errorf("%w: delta %d of %d epochs", log.ErrOutOfRange, n, width)
	}
	first, last := n*kt.EpochsPerDelta, n*kt.EpochsPerDelta+uint64(width)-1
	d := kt.Delta{Number: n}
	begin, counted := uint64(0), uint64(0) // behind the HEAD before the delta
	if first > 0 {
		before, index, err := headOf(r, l, first-1)
		if err != nil {
			return nil, err
		}
		begin, counted = index+1, before.KTCount
	}
	var newest kt.Head
	var end uint64
	for epoch := first; epoch <= last; epoch++ {
		if newest, end, err = headOf(r, l, epoch); err != nil {
			return nil, err
		}
		d.Leaves = append(d.Leaves, kt.IndexedLeaf{Index: end, Leaf: kt.AppendHeadLeaf(nil, newest)})
	}
	if err := appendConfigs(&d, r, begin, end); err != nil {
		return nil, err
	}
	err = projections.KTOrder(r, counted, newest.KTCount, func(_ uint64, label kt.Label) error {
		ref, found, err := projections.KTLabel(r, label)
		if err == nil && !found {
			err = fmt.Errorf("views: KT label %x is not in the map", label)
		}
		d.Leaves = append(d.Leaves, kt.IndexedLeaf{Index: ref.Index, Leaf: kt.AppendKTLeaf(nil, label, ref.Commitment)})
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(d.Leaves, func(a, b kt.IndexedLeaf) int { return cmp.Compare(a.Index, b.Index) })
	return kt.AppendDelta(nil, d), nil
}

// headOf reads the HEAD of an epoch from the log.
func headOf(r projections.Reader, l *log.Log, epoch uint64) (kt.Head, uint64, error) {
	index, found, err := projections.HeadIndex(r, epoch)
	if err != nil || !found {
		return kt.Head{}, 0, orMissing(err, "the HEAD of epoch %d", epoch)
	}
	leaf, err := leafAt(l, index)
	if err != nil {
		return kt.Head{}, 0, err
	}
	parsed, err := kt.ParseLeaf(leaf)
	if err == nil && (parsed.Class != kt.ClassHead || parsed.Head.Epoch != epoch) {
		err = fmt.Errorf("views: record %d is not the HEAD of epoch %d", index, epoch)
	}
	return parsed.Head, index, err
}

func orMissing(err error, format string, args ...any) error {
	if err == nil {
		err = fmt.Errorf("views: "+format+" is missing", args...)
	}
	return err
}

// appendConfigs adds the CONFIG leaves from begin on that lie before end.
func appendConfigs(d *kt.Delta, r projections.Reader, begin, end uint64) error {
	configs, err := projections.ConfigsFrom(r, begin)
	if err != nil {
		return err
	}
	for _, c := range configs {
		if c.Index < end {
			d.Leaves = append(d.Leaves, kt.IndexedLeaf{Index: c.Index, Leaf: append([]byte{byte(kt.ClassConfig)}, c.Body...)})
		}
	}
	return nil
}
