package commands

import (
	"cmp"
	"fmt"
	"slices"

	"quicprochat/kt"
	"quicprochat/projections"
)

// Delta makes delta number n with the first width of its epochs (docs/formats/
// proofs.md), all of which must be at most the checkpoint's: every HEAD with the KT
// and CONFIG leaves before it that no earlier delta has. It costs a read per leaf.
func (e *Engine) Delta(c *Checkpoint, n uint64, width int) ([]byte, error) {
	first := n * kt.EpochsPerDelta
	last := first + uint64(width) - 1
	start, counted, err := e.afterEpoch(c, first)
	if err != nil {
		return nil, err
	}
	d := kt.Delta{Number: n}
	var end kt.Head
	for epoch := first; epoch <= last; epoch++ {
		var leaf kt.IndexedLeaf
		if leaf, end, err = e.headOf(c, epoch); err != nil {
			return nil, err
		}
		d.Leaves = append(d.Leaves, leaf)
	}
	stop := d.Leaves[len(d.Leaves)-1].Index
	configs, err := projections.ConfigsFrom(c.Views, start)
	if err != nil {
		return nil, err
	}
	for _, config := range configs {
		if config.Index < stop {
			leaf := append([]byte{byte(kt.ClassConfig)}, config.Body...)
			d.Leaves = append(d.Leaves, kt.IndexedLeaf{Index: config.Index, Leaf: leaf})
		}
	}
	err = projections.KTOrder(c.Views, counted, end.KTCount, func(_ uint64, label kt.Label) error {
		ref, found, err := projections.KTLabel(c.Views, label)
		if err == nil && !found {
			err = fmt.Errorf("commands: a label of the map's order is not in the map")
		}
		if err == nil {
			d.Leaves = append(d.Leaves, kt.IndexedLeaf{Index: ref.Index, Leaf: kt.AppendKTLeaf(nil, label, ref.Commitment)})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(d.Leaves, func(a, b kt.IndexedLeaf) int { return cmp.Compare(a.Index, b.Index) })
	return kt.AppendDelta(nil, d), nil
}

// afterEpoch is where a delta begins whose first epoch this is: the index after
// the HEAD before, and the number of KT leaves until there.
func (e *Engine) afterEpoch(c *Checkpoint, epoch uint64) (index, ktCount uint64, err error) {
	if epoch == 0 {
		return 0, 0, nil
	}
	leaf, head, err := e.headOf(c, epoch-1)
	return leaf.Index + 1, head.KTCount, err
}

// headOf reads the HEAD of an epoch.
func (e *Engine) headOf(c *Checkpoint, epoch uint64) (leaf kt.IndexedLeaf, head kt.Head, err error) {
	index, found, err := projections.HeadIndex(c.Views, epoch)
	if err == nil && !found {
		err = fmt.Errorf("commands: there is no epoch %d", epoch)
	}
	if err != nil {
		return leaf, head, err
	}
	leaf.Index = index
	if leaf.Leaf, err = leafAt(e.log, index); err != nil {
		return leaf, head, err
	}
	parsed, err := kt.ParseLeaf(leaf.Leaf)
	if err == nil && parsed.Class != kt.ClassHead {
		err = fmt.Errorf("commands: epoch %d stands at index %d, which is no HEAD", epoch, index)
	}
	return leaf, parsed.Head, err
}
