package kt

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
)

// ranges makes the compact ranges of both trees: of leaves and of heads.
var ranges = &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

func rangeRoot(r *compact.Range) Hash {
	if r.End() == 0 {
		return EmptyHeadsRoot
	}
	root, err := r.GetRootHash(nil)
	if err != nil {
		panic("kt: root of a range from 0: " + err.Error())
	}
	return Hash(root)
}

func rangeAppend(r *compact.Range, leaf []byte) {
	hash := LeafHash(leaf)
	if err := r.Append(hash[:], nil); err != nil {
		panic("kt: appending to a range: " + err.Error())
	}
}

// Replayer reads a whole log, leaf by leaf, and checks everything that the leaves
// say about each other: classes and forms, the chain of CONFIGs, that no label
// stands twice, and every field and both roots of every HEAD, by making them
// again. It holds the map in memory, about 150 bytes a label.
//
// It is not safe for concurrent use.
type Replayer struct {
	replay
	tree *compact.Range
}

// NewReplayer starts before the first leaf.
func NewReplayer() *Replayer {
	return &Replayer{replay: newReplay(), tree: ranges.NewEmptyRange(0)}
}

// Append checks the next leaf, whose index is Size. Errors are *EvidenceError, or
// wrap ErrFormat; after one the Replayer is as before the call.
func (r *Replayer) Append(leaf []byte) error {
	if err := r.add(r.Size(), leaf); err != nil {
		return err
	}
	rangeAppend(r.tree, leaf)
	return nil
}

// Size is the number of leaves so far.
func (r *Replayer) Size() uint64 { return r.tree.End() }

// Root is the RFC 6962 root of the leaves so far.
func (r *Replayer) Root() Hash { return rangeRoot(r.tree) }

// Check compares a checkpoint, which the caller has opened, with the leaves so
// far. Errors are *EvidenceError, or wrap ErrMalformed if it is of another size.
func (r *Replayer) Check(c Checkpoint) error {
	switch {
	case c.Size != r.Size():
		return fmt.Errorf("%w: a checkpoint of %d leaves after %d", ErrMalformed, c.Size, r.Size())
	case c.Root != r.Root():
		return evidence(StepConsistency, "the root of %d leaves is %x, the checkpoint says %x", c.Size, r.Root(), c.Root)
	case c.Origin != r.config.Origin:
		return evidence(StepConfig, "the checkpoint of %d leaves is of %s, the newest CONFIG names %s", c.Size, c.Origin, r.config.Origin)
	case r.heads.End() == 0 || r.headIndex != c.Size-1:
		return evidence(StepHead, "a checkpoint was signed at %d leaves, of which the last is no HEAD", c.Size)
	}
	return nil
}

// replay is what both replayers keep: everything but the log's tree.
type replay struct {
	m           Map
	heads       *compact.Range
	config      Config
	configIndex uint64
	configLeaf  []byte // nil before the first
	head        Head
	headIndex   uint64
	headLeaf    []byte // nil before the first
}

func newReplay() replay { return replay{heads: ranges.NewEmptyRange(0)} }

// Head is the last HEAD and its index; ok is false before the first.
func (r *replay) Head() (h Head, index uint64, ok bool) {
	return r.head, r.headIndex, r.headLeaf != nil
}

// HeadLeaf is the last HEAD leaf; nil before the first.
func (r *replay) HeadLeaf() []byte { return bytes.Clone(r.headLeaf) }

// Config is the newest CONFIG and its index; ok is false before the first.
func (r *replay) Config() (c Config, index uint64, ok bool) {
	return r.config, r.configIndex, r.configLeaf != nil
}

// Map is the map of all KT leaves so far, to be read only.
func (r *replay) Map() *Map { return &r.m }

// Heads is the number of HEADs so far: the epoch of the next one.
func (r *replay) Heads() uint64 { return r.heads.End() }

// HeadsRoot is the root over all HEADs so far.
func (r *replay) HeadsRoot() Hash { return rangeRoot(r.heads) }

// add checks the leaf at index, of any class, against all before.
func (r *replay) add(index uint64, leaf []byte) error {
	err := r.addLeaf(index, leaf)
	var e *EvidenceError
	if errors.As(err, &e) {
		e.Leaf = &IndexedLeaf{Index: index, Leaf: bytes.Clone(leaf)}
	}
	return err
}

func (r *replay) addLeaf(index uint64, leaf []byte) error {
	l, err := ParseLeaf(leaf)
	if err != nil {
		return evidence(StepLeaf, "at index %d: %w", index, err)
	}
	if (index == 0) != (l.Class == ClassConfig && l.Config.Previous == nil) || index > 0 && r.configLeaf == nil {
		return evidence(StepConfig, "the first CONFIG does not stand at index 0, once: index %d is %v", index, l.Class)
	}
	switch l.Class {
	case ClassConfig:
		return r.addConfig(index, l.Config, leaf)
	case ClassHead:
		return r.addHead(index, l.Head, leaf)
	case ClassKT:
		if r.m.Len() == maxMapLabels {
			return fmt.Errorf("%w: more than %d labels", ErrFormat, maxMapLabels)
		}
		if err := r.m.Insert(l.Label, l.Commitment); err != nil {
			return evidence(StepMap, "label %x stands again at index %d: %w", l.Label, index, err)
		}
		if r.m.crowded() {
			return evidence(StepMap, "the %d labels up to index %d share more of their first bits than those of a VRF do", r.m.Len(), index)
		}
	}
	return nil
}

func (r *replay) addConfig(index uint64, c Config, leaf []byte) error {
	if c.FormatVersion > FormatVersion {
		return fmt.Errorf("%w: %d, from index %d on", ErrFormat, c.FormatVersion, index)
	}
	if r.configLeaf != nil {
		if err := c.VerifyLink(r.config, r.configIndex); err != nil {
			return evidence(StepConfig, "at index %d: %w", index, err)
		}
	}
	r.config, r.configIndex, r.configLeaf = c, index, bytes.Clone(leaf)
	return nil
}

func (r *replay) addHead(index uint64, h Head, leaf []byte) error {
	wrong := func(step Step, field string, got, want any) error {
		return evidence(step, "HEAD at index %d: %s is %v, replayed it is %v", index, field, got, want)
	}
	switch {
	case r.config.FormatVersion < FormatVersion:
		return evidence(StepHead, "HEAD at index %d in a log of format %d", index, r.config.FormatVersion)
	case h.Epoch != r.heads.End():
		return wrong(StepHead, "epoch", h.Epoch, r.heads.End())
	case h.PrevHead != r.headIndex: // 0 before the first
		return wrong(StepHead, "prev_head", h.PrevHead, r.headIndex)
	case h.Config != r.configIndex:
		return wrong(StepHead, "config", h.Config, r.configIndex)
	case h.TimeMS < r.head.TimeMS:
		return wrong(StepHead, "time_ms", h.TimeMS, fmt.Sprint("at least ", r.head.TimeMS))
	case h.KTCount != r.m.Len():
		return wrong(StepHead, "kt_count", h.KTCount, r.m.Len())
	case h.MapRoot != r.m.Root():
		return wrong(StepMap, "map_root", fmt.Sprintf("%x", h.MapRoot), fmt.Sprintf("%x", r.m.Root()))
	case h.HeadsRoot != r.HeadsRoot():
		return wrong(StepHeads, "heads_root", fmt.Sprintf("%x", h.HeadsRoot), fmt.Sprintf("%x", r.HeadsRoot()))
	}
	r.head, r.headIndex, r.headLeaf = h, index, bytes.Clone(leaf)
	rangeAppend(r.heads, leaf)
	return nil
}

// NextHead is the HEAD that must stand at the next index if it is made at timeMS,
// for whoever writes a log. There must be a CONFIG.
func (r *replay) NextHead(timeMS uint64) Head {
	return Head{
		Epoch: r.heads.End(), TimeMS: timeMS, PrevHead: r.headIndex, Config: r.configIndex,
		KTCount: r.m.Len(), MapRoot: r.m.Root(), HeadsRoot: r.HeadsRoot(),
	}
}
