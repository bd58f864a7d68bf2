package commands

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"os"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// howToGoOn ends every cause for which nothing is signed any more, and that only
// the right files or an operator's decision can end.
const howToGoOn = "if it is lost for good: stop the server, then quicprochat-server admin new-generation --accept-loss"

// Generation is the N of a log's origin that was begun after a loss.
type Generation struct {
	// Before and Origin are the origin until now and from now on.
	Before, Origin string
	// Lost is the size of a tree that was signed and that this log lacks, as far as
	// that is known here; 0 if it is not.
	Lost uint64
}

// BeginGeneration goes on with this log after its end was lost: from now on it has
// another origin, under which its key signs anew. All sessions end, and no number of
// a queue is given twice (GenerationBegun). Whoever holds a note of before is told
// of it and has to consent. It is an operator's decision about a server that is
// stopped: call it on an engine that serves nobody, and stop that. Errors are one
// sentence.
func (e *Engine) BeginGeneration(ctx context.Context) (Generation, error) {
	key := e.signer.key
	if key == nil {
		return Generation{}, errors.New("this server has no key to sign with")
	}
	note, least, lost, err := e.signer.lost()
	if err != nil {
		return Generation{}, err
	}
	g := Generation{Lost: lost}
	_, err = e.Do(ctx, &Command{Auth: pb.Auth_NONE, Decide: func(tx *Tx) (proto.Message, error) {
		return nil, beginGeneration(tx, key, least, note, &g)
	}})
	if err != nil {
		return Generation{}, err
	}
	return g, e.signer.forget()
}

// beginGeneration decides a generation above the log's own and above least.
func beginGeneration(tx *Tx, key ed25519.PrivateKey, least uint32, lostNote []byte, g *Generation) error {
	chain, err := readChain(tx.View())
	if err != nil {
		return err
	}
	newest := chain.newest()
	if !newest.LogKey.Equal(key.Public()) {
		return Refuse(pb.Status_BadRequest, pb.Reason_KEY_INVALID, "the log names another key than the one in secrets/: restore log and secrets from the same backup")
	}
	generation := max(newest.generation, least)
	if generation == math.MaxUint32 {
		return errors.New("commands: there is no later generation")
	}
	generation++
	name, _, err := kt.ParseOrigin(newest.Origin)
	if err != nil {
		return err
	}
	next := newest.Config
	next.Origin = kt.Origin(name, generation)
	next.Link(newest.index, key)
	g.Before, g.Origin = newest.Origin, next.Origin
	err = tx.Emit(&pb.Event{Body: &pb.Event_GenerationBegun{GenerationBegun: &pb.GenerationBegun{
		Generation: generation, Actor: &pb.Actor{Way: pb.Actor_DIRECTORY}, LostNote: lostNote,
	}}})
	if err != nil {
		return err
	}
	tx.w.group.headDue = true // the newest HEAD must name the newest CONFIG
	return tx.Emit(&pb.Event{Body: &pb.Event_ServerConfigured{ServerConfigured: &pb.ServerConfigured{Config: kt.AppendConfig(nil, next)}}})
}

// lost gathers what is known here of a log that was signed and is no more: the
// note that somebody showed, the largest generation of note and guard, and the
// larger of their sizes.
func (s *signer) lost() (note []byte, generation uint32, size uint64, err error) {
	if note, err = s.readEvidence(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, 0, 0, err
	}
	if note != nil {
		if size, generation, err = peekNote(note); err != nil {
			note = nil // torn, or somebody's else: it can't say anything
		}
	}
	if s.guard != nil && s.Stopped() != nil {
		generation = max(generation, s.guard.newest.generation)
		size = max(size, s.guard.newest.size)
	}
	return note, generation, size, nil
}

// peekNote reads whose note it is and of which size, before its signature is
// checked.
func peekNote(note []byte) (size uint64, generation uint32, err error) {
	origin, size, err := kt.PeekNote(note)
	if err != nil {
		return 0, 0, err
	}
	_, generation, err = kt.ParseOrigin(origin)
	return size, generation, err
}

// forget removes what speaks against the log of before: the generation that was
// begun has answered it. A damaged guard is made anew: under the new origin nothing
// was signed yet.
func (s *signer) forget() error {
	fs, dir := s.e.fs, s.e.dir
	if s.guard == nil {
		if err := createGuard(fs, dir, fs.PathJoin(dir, guardFile)); err != nil {
			return fmt.Errorf("make the signing guard anew: %w", err)
		}
	}
	if err := fs.Remove(fs.PathJoin(dir, evidenceFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the note that spoke against the log before: %w", err)
	}
	folder, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
