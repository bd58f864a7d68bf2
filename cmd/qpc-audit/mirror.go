package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"quicprochat/kt"
)

// mirrorCommand copies the public log.
type mirrorCommand struct {
	sourceFlags `embed:""`
	trustFlags  `embed:""`
	Dir         string `arg:"" placeholder:"DIR" help:"Folder of the copy."`
}

// Help is shown by mirror --help.
func (*mirrorCommand) Help() string {
	return `The folder has the layout of C2SP tlog-tiles (checkpoint, tile/…, kt/delta/…): any
static web server can serve it, and 'qpc-audit follow --url' can audit it. Entry
bundles are copied, hash tiles are made of them. Every run reads the whole copy
again, fetches what is missing and compares the root with the signed one; only then
the copy is changed. An interrupted run is taken up where it ended.`
}

// Run is called by kong.
func (c *mirrorCommand) Run(ctx context.Context, a *app) (err error) {
	pinned, err := c.pin()
	if err != nil {
		return err
	}
	policy, err := c.policy()
	if err != nil {
		return err
	}
	src, err := c.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	m := &mirror{dir: c.Dir, src: src, pinned: pinned, policy: policy, progress: newProgress(a.stderr).tell, now: time.Now}
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	defer unlock()
	size, err := m.update(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "mirrored %d leaves into %s, %d bundles fetched; the root is the signed one\n", size, c.Dir, m.fetched.Load())
	return err
}

// mirror is a copy of a log on disk. What is fetched waits in a folder of its own
// until the signed root says that it is the log's: a source that lies, or is cut
// off, spoils nothing.
//
//	DIR/checkpoint, tile/…, kt/…     what was verified
//	DIR/.incoming/tile/…, kt/…       what is new
type mirror struct {
	dir      string
	src      source
	pinned   *pin // nil: the first leaf names the key
	policy   kt.WitnessPolicy
	progress func(done, total uint64)
	now      func() time.Time

	known   *kt.Checkpoint // that of the copy; nil before the first
	note    []byte         // known, as it was signed
	tree    *compact.Range
	tiles   [8][]byte    // hashes of the tile that is not full yet, by level
	fetched atomic.Int64 // bundles; several at a time
}

// update brings the copy up to the newest checkpoint.
func (m *mirror) update(ctx context.Context) (size uint64, err error) {
	if err := m.readKnown(); err != nil {
		return 0, err
	}
	signed, err := m.src.checkpoint(ctx)
	if errors.Is(err, errMissing) {
		err = &unreachableError{errors.New("there is no checkpoint at this address")}
	}
	if err != nil {
		return 0, err
	}
	to, err := readCheckpoint(signed)
	if err != nil {
		return 0, unsettled("what the server shows is no checkpoint: %v", err)
	}
	err = m.advance(ctx, signed, to)
	var wrong *findingError
	if errors.As(err, &wrong) {
		// Once more, past caches: a finding must not be a proxy's mistake, nor that of
		// a run before.
		if err = m.discard(wrong); err == nil {
			err = m.advance(context.WithValue(ctx, pastCaches{}, true), signed, to)
		}
	}
	if errors.As(err, &wrong) {
		err = errors.Join(m.accuse(ctx, signed, to, wrong), m.discard(wrong))
	}
	return to.Size, err
}

// advance copies what is new and, if it is what was signed, takes it over.
func (m *mirror) advance(ctx context.Context, signed []byte, to kt.Checkpoint) error {
	if m.pinned != nil && m.pinned.opens(signed) != nil {
		return unsettled("the checkpoint, of %s, is not signed by the key given with --vkey, of %s: that is another log's key, or what the server shows is not the log's", to.Origin, m.pinned.origin)
	}
	if err := m.follows(to); err != nil {
		return err
	}
	if err := m.copyEntries(ctx, to); err != nil {
		return err
	}
	root, err := m.tree.GetRootHash(nil)
	if err != nil {
		return err
	}
	if kt.Hash(root) != to.Root {
		return finding(kt.StepConsistency, "the %d leaves that were copied have root %x, the checkpoint says %x", to.Size, root, to.Root)
	}
	if m.pinned == nil && !m.signedByLog(signed, to) {
		return unsettled("the checkpoint is not signed by the key that the log's first leaf names; if the key was changed since, give the new one with --vkey")
	}
	if err := m.copyDeltas(ctx, to); err != nil {
		return err
	}
	if err := m.policy.Met(signed); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return m.takeOver(signed)
}

// follows refuses a checkpoint that the copy can't be continued to.
func (m *mirror) follows(to kt.Checkpoint) error {
	if err := checkSize(to); err != nil || m.known == nil {
		return err
	}
	name, generation, _ := kt.ParseOrigin(to.Origin)
	knownName, knownGeneration, _ := kt.ParseOrigin(m.known.Origin)
	switch {
	case name != knownName:
		return usageError("%s is a copy of the log of %s, and the source shows that of %s: use another folder", m.dir, knownName, name)
	case generation > knownGeneration:
		return finding(kt.StepConfig, "the log was begun anew (%s after %s): its operator says that its newest part was lost and disowns what was signed; to copy the new one, after asking the operator, use another folder",
			to.Origin, m.known.Origin)
	case m.known.Size > to.Size:
		return unsettled("the server shows a checkpoint of %d leaves, the copy has one of %d: a cache is stale, or the server was put back to an old copy", to.Size, m.known.Size)
	case m.known.Size == to.Size && m.known.Root != to.Root:
		return finding(kt.StepConsistency, "two checkpoints of %d leaves with different roots are signed: two histories", to.Size)
	}
	return nil
}

// signedByLog checks a note's signature by the key given, or by that of the copy's
// first leaf.
func (m *mirror) signedByLog(signed []byte, to kt.Checkpoint) bool {
	var key ed25519.PublicKey
	if m.pinned != nil {
		key = m.pinned.key
	} else if first, err := m.firstConfig(); err == nil {
		key = first.LogKey
	}
	_, err := kt.OpenCheckpoint(signed, to.Origin, key)
	return key != nil && err == nil
}

// accuse makes sure that a finding is one against the log, and saves the evidence.
func (m *mirror) accuse(ctx context.Context, signed []byte, to kt.Checkpoint, wrong *findingError) error {
	switch whole, err := m.whole(ctx); {
	case err != nil:
		return err
	case !whole:
		return fmt.Errorf("the copy in %s is damaged, its leaves are not those of its checkpoint: remove it and start again", m.dir)
	case !m.signedByLog(signed, to):
		return unsettled("what the server shows is not signed by the log's key, and does not hold: %s", wrong.Detail)
	}
	if m.known != nil && m.known.Size < to.Size && m.known.Origin == to.Origin {
		var fork *findingError
		if errors.As(continues(ctx, newTree(ctx, m.src, to), *m.known), &fork) {
			wrong = fork
		}
	}
	e := evidence{
		Format: evidenceFormat, Found: m.now().UTC(), Source: m.src.String(), Step: wrong.Step, Detail: wrong.Detail,
		KnownNote: string(m.note), Note: string(signed), Resource: wrong.Path, Body: wrong.Body,
		Beginning: wrong.Beginning, Consistency: wrong.Consistency,
	}
	if m.pinned != nil {
		e.Log = m.pinned.line
	} else if first, err := m.firstConfig(); err == nil {
		e.Log, _ = kt.VerifierKey(first.Origin, first.LogKey)
	}
	file, err := e.save(m.dir)
	if err != nil {
		return fmt.Errorf("%w; it could not be saved: %w", wrong, err)
	}
	wrong.File = file
	return wrong
}

// copyEntries reads every bundle, from the copy or from the source, makes the
// tiles of them, and writes what is new.
func (m *mirror) copyEntries(ctx context.Context, to kt.Checkpoint) error {
	m.begin()
	paths := kt.Tiles(kt.EntryBundle, 0, 0, to.Size)
	err := fetchAll(ctx, &copied{source: m.src, mirror: m}, paths, fetchers, func(p kt.TilePath, body []byte) error {
		leaves, err := entries(body, p.Width)
		if err != nil {
			return &findingError{Step: kt.StepLeaf, Detail: fmt.Sprintf("%s: %v", p, err), Path: p.String(), Body: body}
		}
		if err := m.write(p, body); err != nil {
			return err
		}
		for _, leaf := range leaves {
			if err := m.append(leaf); err != nil {
				return err
			}
		}
		m.progress(m.tree.End(), to.Size)
		return nil
	})
	if err != nil {
		return absent(err)
	}
	for level, hashes := range m.tiles {
		if width := len(hashes) / len(kt.Hash{}); width > 0 {
			n := (to.Size >> (8 * level)) / kt.TileWidth
			if err := m.write(kt.TilePath{Kind: kt.HashTile, Level: level, N: n, Width: width}, hashes); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *mirror) begin() {
	m.tree = (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	m.tiles = [8][]byte{}
}

// append adds a leaf to the tree and writes the tiles that it completes.
func (m *mirror) append(leaf []byte) error {
	var err error
	add := func(id compact.NodeID, hash []byte) {
		if id.Level%8 != 0 || err != nil {
			return
		}
		level := int(id.Level / 8)
		m.tiles[level] = append(m.tiles[level], hash...)
		if len(m.tiles[level]) == kt.TileWidth*len(kt.Hash{}) {
			err = m.write(kt.TilePath{Kind: kt.HashTile, Level: level, N: id.Index / kt.TileWidth, Width: kt.TileWidth}, m.tiles[level])
			m.tiles[level] = m.tiles[level][:0]
		}
	}
	hash := rfc6962.DefaultHasher.HashLeaf(leaf)
	if appendErr := m.tree.Append(hash, add); appendErr != nil {
		return appendErr
	}
	return err
}

// copyDeltas copies the deltas of the checkpoint's heads. They follow from the
// leaves; who audits the copy compares them.
func (m *mirror) copyDeltas(ctx context.Context, to kt.Checkpoint) error {
	src := &copied{source: m.src, mirror: m}
	epochs, _, err := epochsOf(ctx, src, to)
	if err != nil {
		return absent(err)
	}
	err = fetchAll(ctx, src, kt.Tiles(kt.DeltaBundle, 0, 0, epochs), deltaFetchers, func(p kt.TilePath, body []byte) error {
		if !isWhole(p, body) {
			return &findingError{Step: kt.StepLeaf, Detail: fmt.Sprintf("%s is no delta of that number", p), Path: p.String(), Body: body}
		}
		return m.write(p, body)
	})
	return absent(err)
}
