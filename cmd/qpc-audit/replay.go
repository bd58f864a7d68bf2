package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"quicprochat/kt"
)

// replayer makes the log again from what a source serves and compares.
type replayer interface {
	// advance reads on to a checkpoint, whose signature is checked later, and
	// compares everything. known, if not nil, was verified before and must lie on
	// the way. Errors: *findingError, those of the source. After an error the
	// replayer is not used any more.
	advance(ctx context.Context, src source, to kt.Checkpoint, known *kt.Checkpoint, progress func(done uint64)) error
	// position is how far it is: leaves, or those that the last delta covers.
	position() uint64
	config() (kt.Config, uint64, bool)
	head() (kt.Head, uint64, bool)
	io.WriterTo
}

// fullReplayer reads every leaf.
type fullReplayer struct{ *kt.Replayer }

func (r fullReplayer) position() uint64                  { return r.Size() }
func (r fullReplayer) config() (kt.Config, uint64, bool) { return r.Config() }
func (r fullReplayer) head() (kt.Head, uint64, bool)     { return r.Head() }

func (r fullReplayer) advance(ctx context.Context, src source, to kt.Checkpoint, known *kt.Checkpoint, progress func(uint64)) error {
	err := r.read(ctx, src, to, known, progress)
	var wrong *findingError
	if errors.As(err, &wrong) && known != nil && known.Size < to.Size {
		// Of two histories the leaves show consequences only: name the cause.
		if cause := continues(ctx, newTree(ctx, src, to), *known); cause != nil {
			return cause
		}
	}
	return err
}

func (r fullReplayer) read(ctx context.Context, src source, to kt.Checkpoint, known *kt.Checkpoint, progress func(uint64)) error {
	if err := r.passing(known); err != nil {
		return err
	}
	if r.Size() < to.Size {
		err := fetchAll(ctx, src, kt.Tiles(kt.EntryBundle, 0, r.Size(), to.Size), fetchers, func(p kt.TilePath, body []byte) error {
			leaves, err := entries(body, p.Width)
			if err != nil {
				return &findingError{Step: kt.StepLeaf, Detail: fmt.Sprintf("%s: %v", p, err), Path: p.String(), Body: body}
			}
			for _, leaf := range leaves[r.Size()-p.N*kt.TileWidth:] {
				if err := r.add(leaf, known, p, body); err != nil {
					return err
				}
			}
			progress(r.Size())
			return nil
		})
		if err != nil {
			return absent(err)
		}
	}
	return r.check(ctx, src, to)
}

// check compares a checkpoint with what was read.
func (r fullReplayer) check(ctx context.Context, src source, to kt.Checkpoint) error {
	err := asFinding(r.Check(to))
	var wrong *findingError
	if errors.As(err, &wrong) && wrong.Step == kt.StepHead {
		if leaf, readErr := lastLeaf(ctx, src, to); readErr == nil {
			wrong.Index, wrong.Leaf = to.Size-1, leaf
		}
	}
	return err
}

func (r fullReplayer) add(leaf []byte, known *kt.Checkpoint, p kt.TilePath, body []byte) error {
	if err := asFinding(r.Append(leaf)); err != nil {
		var wrong *findingError
		if errors.As(err, &wrong) {
			wrong.Path, wrong.Body = p.String(), body
			wrong.after(&r)
		}
		return err
	}
	return r.passing(known)
}

// passing compares the root on the way with the one that was verified before.
func (r fullReplayer) passing(known *kt.Checkpoint) error {
	if known != nil && r.Size() == known.Size && r.Root() != known.Root {
		return finding(kt.StepConsistency, "the first %d leaves have root %x, and a checkpoint that was signed before says %x", known.Size, r.Root(), known.Root)
	}
	return nil
}

// absent turns a resource that must be there into a finding.
func absent(err error) error {
	switch {
	case errors.Is(err, errMissing):
		f := finding(kt.StepConsistency, "the server signed a checkpoint and does not serve what it covers: %v", err)
		f.absent = true
		return f
	case errors.Is(err, errTooLong):
		return finding(kt.StepLeaf, "the server signed a checkpoint and serves something else than what it covers: %v", err)
	}
	return err
}

// keyReplayer reads deltas.
type keyReplayer struct{ *kt.KTReplayer }

func (r keyReplayer) config() (kt.Config, uint64, bool) { return r.Config() }
func (r keyReplayer) head() (kt.Head, uint64, bool)     { return r.Head() }

func (r keyReplayer) position() uint64 {
	if _, index, ok := r.Head(); ok {
		return index + 1
	}
	return 0
}

func (r keyReplayer) advance(ctx context.Context, src source, to kt.Checkpoint, known *kt.Checkpoint, progress func(uint64)) error {
	if to.Size == 0 {
		return finding(kt.StepHead, "a checkpoint of an empty log was signed")
	}
	epochs, last, err := epochsOf(ctx, src, to)
	if err != nil {
		return absent(err)
	}
	tree := newTree(ctx, src, to)
	if known != nil && known.Size < to.Size {
		if err := continues(ctx, tree, *known); err != nil {
			return err
		}
	}
	if r.Heads() < epochs {
		err = fetchAll(ctx, src, kt.Tiles(kt.DeltaBundle, 0, r.Heads(), epochs), deltaFetchers, func(p kt.TilePath, body []byte) error {
			delta, err := kt.ParseDelta(body)
			if err == nil {
				err = r.Apply(delta)
			}
			if err := asFinding(err); err != nil {
				var wrong *findingError
				if errors.As(err, &wrong) {
					wrong.Path, wrong.Body = p.String(), body
					wrong.after(&r)
				}
				return err
			}
			progress(r.position())
			return nil
		})
		if err != nil {
			return absent(err)
		}
	}
	if r.position() != to.Size {
		wrong := finding(kt.StepHead, "the checkpoint's last leaf, at index %d, is a HEAD of epoch %d, and in the deltas the newest is at index %d", to.Size-1, epochs-1, r.position()-1)
		wrong.Index, wrong.Leaf = to.Size-1, last
		wrong.after(&r)
		return wrong
	}
	path, err := tree.lastPath()
	if err != nil {
		return asProofFinding(ctx, err, "the last leaf of the checkpoint of %d leaves can't be shown: %v", to.Size, err)
	}
	return asFinding(r.Check(to, path))
}

// continues checks that a tree contains an earlier one. If not, the finding shows
// what the tree begins with instead.
func continues(ctx context.Context, t *tree, known kt.Checkpoint) error {
	root, err := t.beginning(known.Size)
	if err != nil {
		return asProofFinding(ctx, err, "the checkpoint of %d leaves can't be shown to continue the one of %d that was signed before: %v", t.at.N, known.Size, err)
	}
	if root == known.Root {
		return nil
	}
	f := finding(kt.StepConsistency, "the checkpoint of %d leaves does not continue the one of %d that was signed before: its first %d leaves have root %x, not %x",
		t.at.N, known.Size, known.Size, root, known.Root)
	if proof, err := t.consistency(known.Size); err == nil {
		f.Beginning, f.Consistency = root[:], proof
	}
	return f
}

// asProofFinding: tiles that do not fit the signed root are evidence, a network
// that does not answer is not.
func asProofFinding(ctx context.Context, err error, format string, args ...any) error {
	var unreachable *unreachableError
	if ctx.Err() != nil || errors.As(err, &unreachable) {
		return err
	}
	return finding(kt.StepConsistency, format, args...)
}

// lastLeaf reads the leaf at a checkpoint's end. Whether it is that of the signed
// tree is not checked.
func lastLeaf(ctx context.Context, src source, c kt.Checkpoint) ([]byte, error) {
	p := kt.TilePath{Kind: kt.EntryBundle, N: (c.Size - 1) / kt.TileWidth, Width: int((c.Size-1)%kt.TileWidth) + 1}
	body, err := src.resource(ctx, p)
	if err != nil {
		return nil, err
	}
	leaves, err := entries(body, p.Width)
	if err != nil {
		return nil, finding(kt.StepLeaf, "%s: %v", p, err)
	}
	return leaves[len(leaves)-1], nil
}

// epochsOf reads from the last leaf, which must be a HEAD, how many heads a
// checkpoint covers. What it says is checked by the replay.
func epochsOf(ctx context.Context, src source, c kt.Checkpoint) (epochs uint64, leaf []byte, err error) {
	if leaf, err = lastLeaf(ctx, src, c); err != nil {
		return 0, nil, err
	}
	last, err := kt.ParseLeaf(leaf)
	if err != nil || last.Class != kt.ClassHead {
		wrong := finding(kt.StepHead, "a checkpoint was signed at %d leaves, of which the last is no HEAD", c.Size)
		wrong.Index, wrong.Leaf = c.Size-1, leaf
		return 0, nil, wrong
	}
	if last.Head.Epoch >= c.Size {
		return 0, nil, finding(kt.StepHead, "the HEAD at the end of %d leaves is one of epoch %d", c.Size, last.Head.Epoch)
	}
	return last.Head.Epoch + 1, leaf, nil
}
