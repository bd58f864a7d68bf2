package kt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// EpochsPerDelta is the number of HEADs in a full delta.
const EpochsPerDelta = 256

// deltaMagic begins a delta.
const deltaMagic = "qpc-delta-v1\n"

// ErrDelta is in the chain of errors about the bytes of a delta.
var ErrDelta = errors.New("malformed delta")

// IndexedLeaf is a leaf and where it stands in the log.
type IndexedLeaf struct {
	Index uint64
	Leaf  []byte
}

// Delta number N holds what the epochs 256 N to 256 N + 255 say about keys: every
// KT, CONFIG and HEAD leaf after the HEAD before them, with its log index. The
// newest delta may end with an earlier epoch.
//
//	"qpc-delta-v1\n" │ u64 N │ leaf │ leaf …        leaf = u64 index │ u16 length │ leaf
type Delta struct {
	Number uint64
	Leaves []IndexedLeaf
}

// Epochs is the number of HEADs in the delta.
func (d Delta) Epochs() int {
	n := 0
	for _, l := range d.Leaves {
		if Class(l.Leaf[0]) == ClassHead {
			n++
		}
	}
	return n
}

// AppendDelta appends a delta's bytes. It encodes any value with leaves of less
// than 64 KiB; only one that keeps the rules is parsed again.
func AppendDelta(dst []byte, d Delta) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, deltaMagic...), d.Number)
	for _, l := range d.Leaves {
		dst = binary.BigEndian.AppendUint64(dst, l.Index)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(l.Leaf)))
		dst = append(dst, l.Leaf...)
	}
	return dst
}

// ParseDelta reads a delta, whose leaves share memory with b. It accepts only
// leaves of the three classes, in ascending order, with consecutive HEADs of the
// delta's epochs, the last leaf being one. Errors wrap ErrDelta.
func ParseDelta(b []byte) (Delta, error) {
	rest, found := bytes.CutPrefix(b, []byte(deltaMagic))
	if !found || len(rest) < 8 {
		return Delta{}, fmt.Errorf("%w: it does not start as one", ErrDelta)
	}
	d := Delta{Number: binary.BigEndian.Uint64(rest)}
	rest = rest[8:]
	if d.Number > 1<<63/EpochsPerDelta {
		return Delta{}, fmt.Errorf("%w: number %d", ErrDelta, d.Number)
	}
	next := d.Number * EpochsPerDelta
	ended := false
	for len(rest) > 0 {
		if len(rest) < 10 || len(rest)-10 < int(binary.BigEndian.Uint16(rest[8:])) {
			return Delta{}, fmt.Errorf("%w: it ends inside a leaf", ErrDelta)
		}
		n := 10 + int(binary.BigEndian.Uint16(rest[8:]))
		l := IndexedLeaf{Index: binary.BigEndian.Uint64(rest), Leaf: rest[10:n:n]}
		rest = rest[n:]
		if k := len(d.Leaves); k > 0 && l.Index <= d.Leaves[k-1].Index {
			return Delta{}, fmt.Errorf("%w: index %d after %d", ErrDelta, l.Index, d.Leaves[k-1].Index)
		}
		parsed, err := ParseLeaf(l.Leaf)
		if err != nil || parsed.Class == ClassOpaque {
			return Delta{}, fmt.Errorf("%w: a leaf of class %v at index %d: %v", ErrDelta, parsed.Class, l.Index, err)
		}
		if ended = parsed.Class == ClassHead; ended {
			if parsed.Head.Epoch != next || next == (d.Number+1)*EpochsPerDelta {
				return Delta{}, fmt.Errorf("%w: epoch %d in delta %d, want %d", ErrDelta, parsed.Head.Epoch, d.Number, next)
			}
			next++
		}
		d.Leaves = append(d.Leaves, l)
	}
	if !ended {
		return Delta{}, fmt.Errorf("%w: it does not end with a HEAD", ErrDelta)
	}
	return d, nil
}

// KTReplayer reads deltas alone, at the cost of key events instead of all events,
// and checks what a Replayer checks about them: the chain of CONFIGs, labels that
// stand twice, all fields and both roots of every HEAD. What it can't see:
//
//   - whether the deltas are the log: leaves of the log that the deltas leave out,
//     and HEADs that were shown to somebody and never served in a delta. Of the
//     former it sees only what its own HEADs contradict; Check ties the last HEAD
//     to a note, and thereby, through heads_root, all of them, but no KT leaf;
//   - other events: their number, classes and forms, and the log's root.
//
// It is not safe for concurrent use.
type KTReplayer struct{ replay }

// NewKTReplayer starts before delta 0.
func NewKTReplayer() *KTReplayer { return &KTReplayer{replay: newReplay()} }

// Next is the number of the delta to apply next: the newest one again as long as
// it was not full.
func (r *KTReplayer) Next() uint64 { return r.heads.End() / EpochsPerDelta }

// Apply checks the delta Next. Leaves up to the last HEAD are known and skipped.
// Errors are *EvidenceError, or wrap ErrDelta or ErrFormat; after one the
// KTReplayer must not be used any more.
func (r *KTReplayer) Apply(d Delta) error {
	if d.Number != r.Next() {
		return fmt.Errorf("%w: number %d, want %d", ErrDelta, d.Number, r.Next())
	}
	for _, l := range d.Leaves {
		if r.headLeaf != nil && l.Index <= r.headIndex {
			if l.Index == r.headIndex && !bytes.Equal(l.Leaf, r.headLeaf) {
				return evidence(StepHead, "index %d was a HEAD and is another leaf now", l.Index)
			}
			continue
		}
		if err := r.add(l.Index, l.Leaf); err != nil {
			return err
		}
	}
	return nil
}

// Check ties the last HEAD to a checkpoint, which the caller has opened, by its
// inclusion path as the last leaf. Errors are *EvidenceError, or wrap ErrMalformed
// if the checkpoint is of another size.
func (r *KTReplayer) Check(c Checkpoint, path [][]byte) error {
	switch {
	case r.headLeaf == nil || c.Size != r.headIndex+1:
		return fmt.Errorf("%w: a checkpoint of %d leaves after the HEAD at index %d", ErrMalformed, c.Size, r.headIndex)
	case c.Origin != r.config.Origin:
		return evidence(StepConfig, "the checkpoint of %d leaves is of %s, the newest CONFIG names %s", c.Size, c.Origin, r.config.Origin)
	}
	hash := LeafHash(r.headLeaf)
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, r.headIndex, c.Size, hash[:], path, c.Root[:]); err != nil {
		return evidence(StepHead, "the HEAD at index %d is not in the checkpoint's tree: %w", r.headIndex, err)
	}
	return nil
}

// WriteTo writes the state, from which ReadKTReplayer goes on.
func (r *KTReplayer) WriteTo(w io.Writer) (int64, error) { return r.write(w, nil) }

// ReadKTReplayer reads what WriteTo of a KTReplayer wrote. Errors wrap
// ErrReplayState, or are those of in.
func ReadKTReplayer(in io.Reader) (*KTReplayer, error) {
	state, _, err := readReplay(in, false)
	if err != nil {
		return nil, err
	}
	return &KTReplayer{*state}, nil
}
