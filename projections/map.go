package projections

import (
	"quicprochat/kt"
)

// insertLabel adds a label to the map, which must not have it, and computes all
// hashes above it.
func insertLabel(b *Batch, leaf kt.MapLeaf) error {
	_, err := insertAt(b, 0, leaf)
	return err
}

// insertAt adds a leaf to the page at a depth on its path and returns the hash of
// that page.
func insertAt(b *Batch, depth int, leaf kt.MapLeaf) (kt.Hash, error) {
	if depth > maxPageDepth {
		return kt.Hash{}, invalid("the label exists in the map")
	}
	page, found, err := readPage(b, leaf.Label, depth)
	if err != nil {
		return kt.Hash{}, err
	}
	if !found && depth > 0 {
		return kt.Hash{}, b.fault(errMissingPage)
	}
	return insertInto(b, page, depth, leaf)
}

// insertInto is insertAt for a page in memory, which may not be stored yet.
func insertInto(b *Batch, page *mapPage, depth int, leaf kt.MapLeaf) (kt.Hash, error) {
	slot := slotOf(leaf.Label, depth)
	i := pageSlots + slot
	switch page.kind[i] {
	case kt.MapAbsent:
		page.put(slot, leaf)
	case kt.MapInner:
		hash, err := insertAt(b, depth+1, leaf)
		if err != nil {
			return kt.Hash{}, err
		}
		page.hash[i] = hash
	case kt.MapLeafNode:
		hash, err := split(b, depth+1, page.leaf[slot], leaf)
		if err != nil {
			return kt.Hash{}, err
		}
		page.kind[i], page.hash[i] = kt.MapInner, hash
	}
	page.foldSlot(slot)
	b.row = appendPage(b.row[:0], page)
	if err := b.put(mapPageKey(b.scratch(), leaf.Label, depth), b.row); err != nil {
		return kt.Hash{}, err
	}
	return page.hash[1], nil
}

// split makes the page below a slot in which a second label arrives.
func split(b *Batch, depth int, old, leaf kt.MapLeaf) (kt.Hash, error) {
	if depth > maxPageDepth || old.Label == leaf.Label {
		return kt.Hash{}, invalid("the label exists in the map")
	}
	page := new(mapPage)
	page.put(slotOf(old.Label, depth), old)
	page.fold()
	return insertInto(b, page, depth, leaf)
}

// readPage reads and completes the page at a depth on a label's path; without a
// row it is empty.
func readPage(r Reader, label kt.Label, depth int) (*mapPage, bool, error) {
	page := new(mapPage)
	_, found, err := readRow(r, "KT map", mapPageKey(r.scratch(), label, depth), func(in *rowReader) struct{} {
		parsePage(in, page)
		return struct{}{}
	})
	if err != nil {
		return nil, false, err
	}
	if found {
		page.fold()
	}
	return page, found, nil
}

// MapRoot is the root of the prefix map over all labels (docs/transparency.md);
// zero while there is none.
func MapRoot(r Reader) (kt.Hash, error) {
	page, _, err := readPage(r, kt.Label{}, 0)
	if err != nil {
		return kt.Hash{}, err
	}
	return page.hash[1], nil
}
