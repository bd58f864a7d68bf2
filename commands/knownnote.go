package commands

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/kt"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// chain is the CONFIGs of the log, oldest first.
type chain []chainLink

type chainLink struct {
	index uint64
	body  []byte
	kt.Config
	generation uint32
}

func readChain(view projections.Reader) (chain, error) {
	refs, err := projections.ConfigsFrom(view, 0)
	if err != nil {
		return nil, err
	}
	if len(refs) == 0 {
		return nil, errors.New("commands: a log without a configuration")
	}
	c := make(chain, len(refs))
	for i, ref := range refs {
		config, err := kt.ParseConfig(ref.Body)
		if err != nil {
			return nil, fmt.Errorf("commands: configuration at index %d: %w", ref.Index, err)
		}
		_, generation, err := kt.ParseOrigin(config.Origin)
		if err != nil {
			return nil, err
		}
		c[i] = chainLink{ref.Index, ref.Body, config, generation}
	}
	return c, nil
}

// configs is the chain as published.
func (e *Engine) configs() (chain, error) {
	p := e.acquire()
	if p == nil {
		return nil, errStopping
	}
	defer p.release()
	return readChain(p.snap)
}

func (c chain) newest() *chainLink { return &c[len(c)-1] }

// generation is the N of the log's origin now.
func (c chain) generation() uint32 { return c.newest().generation }

// open finds the CONFIG under whose origin and key a note was signed.
func (c chain) open(note []byte) (kt.Checkpoint, *chainLink, error) {
	var first error
	for i := len(c) - 1; i >= 0; i-- {
		checkpoint, err := kt.OpenCheckpoint(note, c[i].Origin, c[i].LogKey)
		if err == nil {
			return checkpoint, &c[i], nil
		}
		if first == nil {
			first = err
		}
	}
	return kt.Checkpoint{}, nil, first
}

// otherGeneration tells of which generation of the log a note is that the log's key
// has signed and that no CONFIG names: the generation of another copy of this log.
// 0 if it is of none.
func (c chain) otherGeneration(note []byte) uint32 {
	origin, _, err := kt.PeekNote(note)
	if err != nil {
		return 0
	}
	name, generation, err := kt.ParseOrigin(origin)
	newest := c.newest()
	if ours, _, ownErr := kt.ParseOrigin(newest.Origin); err != nil || ownErr != nil || name != ours {
		return 0
	}
	if _, err := kt.OpenCheckpoint(note, origin, newest.LogKey); err != nil {
		return 0
	}
	return generation
}

// refuseGivenUp refuses a note of an end that was lost.
func (c chain) refuseGivenUp(generation uint32) error {
	return Refuse(pb.Status_BadRequest, pb.Reason_LOG_GENERATION,
		"known_note: is of generation %d, whose end was lost; the log goes on as %s", generation, c.newest().Origin)
}

// knownNote is a note of this log that is part of its history.
type knownNote struct {
	kt.Checkpoint
	head kt.Head
}

// knownNotes keeps notes that were found to be good, by their hash: checking a
// signature costs as much as a request.
type knownNotes struct {
	mu    sync.Mutex
	notes map[[32]byte]knownNote
}

// maxKnownNotes bounds the notes kept. One takes about 300 bytes.
const maxKnownNotes = 4096

func (k *knownNotes) find(note []byte) (knownNote, bool) {
	hash := sha256.Sum256(note)
	k.mu.Lock()
	defer k.mu.Unlock()
	known, found := k.notes[hash]
	return known, found
}

func (k *knownNotes) add(note []byte, known knownNote) {
	hash := sha256.Sum256(note)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.notes == nil || len(k.notes) >= maxKnownNotes {
		k.notes = make(map[[32]byte]knownNote)
	}
	k.notes[hash] = known
}

// known checks the note that a caller knows. One with a good signature that is
// not of this log's history is evidence that the log was put back: it is kept,
// and signing stops. Refusals: BadRequest INVALID_FIELD for a note that is none of
// this log's, LOG_GENERATION for one of an end that was lost and given up,
// Unavailable SIGNING_STOPPED.
func (s *signer) known(note []byte) (knownNote, error) {
	if known, found := s.notes.find(note); found {
		return known, nil
	}
	chain, err := s.e.configs()
	if err != nil {
		return knownNote{}, err
	}
	checkpoint, link, err := chain.open(note)
	if err != nil {
		return knownNote{}, s.foreign(note, chain)
	}
	err = s.holds(checkpoint.Size, checkpoint.Root, "somebody shows")
	if other := (*otherHistory)(nil); errors.As(err, &other) {
		if link.generation < chain.generation() {
			return knownNote{}, chain.refuseGivenUp(link.generation)
		}
		return knownNote{}, s.accuse(note, err)
	} else if err != nil {
		return knownNote{}, err
	}
	leaf, err := leafAt(s.e.log, checkpoint.Size-1)
	if err != nil {
		return knownNote{}, err
	}
	parsed, err := kt.ParseLeaf(leaf)
	if err != nil || parsed.Class != kt.ClassHead {
		return knownNote{}, fmt.Errorf("commands: a note was signed at %d records, whose last is no HEAD (%w)", checkpoint.Size, err)
	}
	known := knownNote{checkpoint, parsed.Head}
	s.notes.add(note, known)
	return known, nil
}

// foreign refuses a note that no CONFIG of the log opens: it is of a generation that
// only another copy of this log has, or none of this log's at all.
func (s *signer) foreign(note []byte, chain chain) error {
	switch other := chain.otherGeneration(note); {
	case other > chain.generation():
		return s.accuse(note, laterGeneration("somebody shows", other, chain))
	case other > 0:
		return chain.refuseGivenUp(other)
	}
	return Refuse(pb.Status_BadRequest, pb.Reason_INVALID_FIELD, "known_note: is not signed by this log")
}

// evidenceFile holds a note of this log that its history lacks.
const evidenceFile = "guard.evidence"

// accuse stops signing because of a note, and keeps that.
func (s *signer) accuse(note []byte, why error) error {
	s.stop(why)
	if err := s.keepEvidence(note); err != nil {
		s.e.logger.Error("the note that speaks against this log could not be kept", "error", err)
	}
	return errNoSigning
}

func (s *signer) keepEvidence(note []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.e.fs.PathJoin(s.e.dir, evidenceFile)
	if _, err := s.e.fs.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err // the first one is enough
	}
	// Under its name only once it is whole: half a note speaks for nobody.
	file, err := s.e.fs.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err := file.Write(append([]byte(nil), note...)); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := s.e.fs.Rename(path+".new", path); err != nil {
		return err
	}
	folder, err := s.e.fs.OpenDir(s.e.dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// checkEvidence reads a note that was kept. While the log still lacks it nothing
// is signed; once the right log is back it says nothing any more.
func (s *signer) checkEvidence(c chain) error {
	path := s.e.fs.PathJoin(s.e.dir, evidenceFile)
	note, err := s.readEvidence()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	checkpoint, link, err := c.open(note)
	if later := c.otherGeneration(note); err != nil && later > c.generation() {
		s.stop(laterGeneration("somebody shows, kept in "+path+",", later, c))
		return nil
	}
	if err != nil || link.generation < c.generation() {
		s.e.logger.Warn("a kept note says nothing about this log as it is now: remove it", "file", path, "error", err)
		return nil
	}
	return s.stopIfOther(s.holds(checkpoint.Size, checkpoint.Root, "somebody shows, kept in "+path+","))
}

// readEvidence reads the note that was kept; os.ErrNotExist without one.
func (s *signer) readEvidence() ([]byte, error) {
	file, err := s.e.fs.Open(s.e.fs.PathJoin(s.e.dir, evidenceFile))
	if err != nil {
		return nil, fmt.Errorf("open the kept note: %w", err)
	}
	note, err := io.ReadAll(io.LimitReader(file, kt.MaxNoteSize))
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("read the kept note: %w", err)
	}
	return note, nil
}
