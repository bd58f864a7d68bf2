package commands

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"quicprochat/kt"
	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// signer signs the newest published group that ends with a HEAD. It is a
// goroutine of its own: only replies that need a proof wait for it.
//
//	published group ──▶ guard synced ──▶ note signed ──▶ Checkpoint shown
//
// It stops signing, for this run, as soon as anything says that this log is an
// older copy of itself: the guard, or a note of this log that somebody shows.
type signer struct {
	e     *Engine
	key   ed25519.PrivateKey
	guard *guard
	wake  chan struct{}
	done  chan struct{}

	mu       sync.Mutex
	due      *sealedState // newest that is not signed yet
	closed   bool
	stopped  atomic.Pointer[error] // why nothing is signed any more
	halted   chan struct{}         // closed with stopped
	first    chan struct{}         // closed with the first checkpoint
	newest   atomic.Pointer[Checkpoint]
	cosigned atomic.Pointer[Checkpoint]
	notes    knownNotes
}

// sealedState is a published group that ends with a HEAD.
type sealedState struct {
	state *published // retained
	root  kt.Hash
	head  []byte
}

// newSigner opens the guard and holds it, and notes that were kept, against the
// log. Without a key nothing is ever signed.
func newSigner(e *Engine, key ed25519.PrivateKey) (*signer, error) {
	s := &signer{
		e: e, key: key, wake: make(chan struct{}, 1), done: make(chan struct{}),
		halted: make(chan struct{}), first: make(chan struct{}),
	}
	if key == nil {
		s.stop(errors.New("this server has no key to sign with"))
		return s, nil
	}
	guard, err := openGuard(e.fs, e.dir)
	if errors.Is(err, errGuard) {
		s.stop(fmt.Errorf("%w: put it back as it was; %s", err, howToGoOn))
		return s, nil
	} else if err != nil {
		return nil, err
	}
	s.guard = guard
	return s, nil
}

// checkStart compares what is known to have been signed with the log as it was
// recovered, before anything is appended to it.
func (s *signer) checkStart(view projections.Reader) error {
	if s.Stopped() != nil {
		return nil
	}
	chain, err := readChain(view)
	if err != nil {
		return err
	}
	state, err := projections.TransparencyState(view)
	if err != nil {
		return err
	}
	switch g := s.guard.newest; {
	case g.size == 0 && state.Heads > 0:
		s.e.logger.Warn("the signing guard is new although the log is not: if this directory was restored, make sure that nothing newer was ever signed")
	case g.generation > chain.generation():
		s.stop(laterGeneration("the guard names", g.generation, chain))
	case g.generation == chain.generation():
		if err := s.stopIfOther(s.holds(g.size, g.root, "the guard names")); err != nil {
			return err
		}
	}
	return s.checkEvidence(chain)
}

// otherHistory says that this log lacks what was signed for it.
type otherHistory struct{ text string }

func (e *otherHistory) Error() string { return e.text }

// holds checks that the log contains a tree that was signed: an *otherHistory if
// it does not; other errors are failures of reading.
func (s *signer) holds(size uint64, root kt.Hash, who string) error {
	if have := s.e.log.Size(); size > have {
		return &otherHistory{fmt.Sprintf("%s a checkpoint of %d records and the log has %d: it is an older copy; put the newest one back, or %s", who, size, have, howToGoOn)}
	}
	have, err := s.e.log.RootAt(size)
	if err != nil {
		return err
	}
	if have != root {
		return &otherHistory{fmt.Sprintf("%s another root for the first %d records: the log is not the one that was signed; put that one back, or %s", who, size, howToGoOn)}
	}
	return nil
}

// laterGeneration says that something was signed for a later generation of the log
// than this one.
func laterGeneration(who string, generation uint32, c chain) error {
	return &otherHistory{fmt.Sprintf("%s a checkpoint of generation %d and the log is %s: it is an older copy; put the newest one back, or %s",
		who, generation, c.newest().Origin, howToGoOn)}
}

// stopIfOther stops signing on an *otherHistory, and passes other errors on.
func (s *signer) stopIfOther(err error) error {
	if other := (*otherHistory)(nil); errors.As(err, &other) {
		s.stop(err)
		return nil
	}
	return err
}

// stop ends signing for this run. Only the first cause counts.
func (s *signer) stop(cause error) {
	if s.stopped.CompareAndSwap(nil, &cause) {
		close(s.halted)
		s.signal()
		if s.key != nil {
			s.e.logger.Error("no checkpoint is signed any more: proofs are refused until the cause is settled", "cause", cause)
		}
	}
}

// Stopped is why nothing is signed any more, or nil.
func (s *signer) Stopped() error {
	if cause := s.stopped.Load(); cause != nil {
		return *cause
	}
	return nil
}

// offer tells the signer of a published group with a HEAD at its end.
func (s *signer) offer(state *published, root kt.Hash, head []byte) {
	if s.Stopped() != nil || !state.retain() {
		return
	}
	next := &sealedState{state: state, root: root, head: append([]byte(nil), head...)}
	s.mu.Lock()
	skipped := s.due
	if s.closed {
		skipped = next
	} else {
		s.due = next
	}
	s.mu.Unlock()
	if skipped != nil {
		skipped.state.release()
	}
	s.signal()
}

// signal wakes the goroutine.
func (s *signer) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *signer) take() (due *sealedState, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	due, s.due = s.due, nil
	return due, s.closed
}

// run signs until close.
func (s *signer) run() {
	defer close(s.done)
	for range s.wake {
		due, closed := s.take()
		if due != nil {
			if err := s.sign(due); err != nil {
				due.state.release()
				s.e.fail(err)
			}
		}
		if s.Stopped() != nil {
			s.drop()
		}
		if closed {
			return
		}
	}
}

// sign makes the checkpoint of a sealed group. It takes over the reference. An
// error is fatal: what of the guard is durable is not known.
func (s *signer) sign(due *sealedState) error {
	if s.Stopped() != nil || s.e.Err() != nil {
		due.state.release()
		return nil
	}
	chain, err := readChain(due.state.snap)
	if err != nil {
		return err
	}
	config := chain.newest()
	if !config.LogKey.Equal(s.key.Public()) {
		s.stop(errors.New("the log names another key than the one in secrets/: restore log and secrets from the same backup"))
		due.state.release()
		return nil
	}
	leaf, err := kt.ParseLeaf(due.head)
	if err != nil {
		return err
	}
	c := &Checkpoint{
		Checkpoint: kt.Checkpoint{Origin: config.Origin, Size: due.state.size, Root: due.root},
		HeadLeaf:   due.head, Head: leaf.Head, state: due.state, Views: due.state.snap,
		Map: projections.NewMapView(due.state.snap), superseded: make(chan struct{}),
	}
	if err := s.guard.write(guarded{chain.generation(), c.Size, c.Root}); err != nil {
		return err
	}
	if c.Note, err = kt.SignCheckpoint(c.Checkpoint, s.key); err != nil {
		return fmt.Errorf("sign a checkpoint: %w", err)
	}
	s.notes.add(c.Note, knownNote{c.Checkpoint, c.Head})
	if !show(&s.newest, c) {
		close(s.first)
	}
	return nil
}

// show makes c the newest checkpoint of its kind; it tells whether there was one.
func show(at *atomic.Pointer[Checkpoint], c *Checkpoint) bool {
	old := at.Swap(c)
	if old != nil {
		close(old.superseded)
		old.Release()
	}
	return old != nil
}

// drop forgets the checkpoints: an open one keeps old rows of the views.
func (s *signer) drop() {
	for _, at := range []*atomic.Pointer[Checkpoint]{&s.newest, &s.cosigned} {
		if c := at.Swap(nil); c != nil {
			c.Release()
		}
	}
}

// acquire is the newest checkpoint of a kind with a reference added, or nil: also
// when signing stopped and the goroutine has yet to drop what was shown.
func (s *signer) acquire(at *atomic.Pointer[Checkpoint]) *Checkpoint {
	for {
		if s.Stopped() != nil {
			return nil
		}
		c := at.Load()
		if c == nil || c.state.retain() {
			return c
		}
	}
}

// close ends the signer; it must not be offered anything any more.
func (s *signer) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
	<-s.done
	if due, _ := s.take(); due != nil {
		due.state.release()
	}
	s.drop()
	return s.closeGuard()
}

// closeGuard closes the guard file, of a signer that was never made too.
func (s *signer) closeGuard() error {
	if s == nil || s.guard == nil {
		return nil
	}
	return s.guard.close()
}

// Config is the newest CONFIG of the published log.
func (e *Engine) Config() (kt.Config, error) {
	chain, err := e.configs()
	if err != nil {
		return kt.Config{}, err
	}
	return chain.newest().Config, nil
}

// Checkpoint is the newest signed checkpoint, nil before the first. Release it.
func (e *Engine) Checkpoint() *Checkpoint { return e.signer.acquire(&e.signer.newest) }

// SigningStopped tells why no checkpoint is signed any more, or is nil.
func (e *Engine) SigningStopped() error { return e.signer.Stopped() }

// Cosigned shows a note of the newest checkpoint with cosignatures of witnesses:
// from now on it is what ProofRequest.cosigned gets. A note of another checkpoint
// than the newest changes nothing and gives false: its views are gone.
func (e *Engine) Cosigned(note []byte, size uint64) bool {
	c := e.Checkpoint()
	if c == nil {
		return false
	}
	if c.Size != size {
		c.Release()
		return false
	}
	show(&e.signer.cosigned, &Checkpoint{
		Checkpoint: c.Checkpoint, Note: append([]byte(nil), note...), HeadLeaf: c.HeadLeaf, Head: c.Head,
		Views: c.Views, Map: c.Map, state: c.state, superseded: make(chan struct{}),
	})
	return true
}

// CheckpointFor waits for the checkpoint that a request's proof is made under:
// one that covers every key event that was published when it asked, so that
// whoever was told of a change finds it proved. Release it. Refusals: Unavailable
// SIGNING_STOPPED, BadRequest NOT_SUPPORTED when no witness cosigns,
// DeadlineExceeded.
func (e *Engine) CheckpointFor(ctx context.Context, req *pb.ProofRequest) (*Checkpoint, error) {
	if err := e.signer.Stopped(); err != nil {
		return nil, errNoSigning
	}
	if req.GetCosigned() {
		c := e.CosignedCheckpoint()
		if c == nil && e.signer.Stopped() != nil {
			return nil, errNoSigning
		}
		if c == nil {
			return nil, Refuse(pb.Status_BadRequest, pb.Reason_NOT_SUPPORTED, "no witness has cosigned this server's log")
		}
		return c, nil
	}
	need, err := e.newestHead()
	if err != nil {
		return nil, err
	}
	return e.waitSigned(ctx, need)
}

var errNoSigning = Refuse(pb.Status_Unavailable, pb.Reason_SIGNING_STOPPED,
	"the server signs no checkpoints: its log may be an older copy; its operator has to settle that")

// newestHead is the size of the log with the newest published HEAD as its last
// record.
func (e *Engine) newestHead() (uint64, error) {
	p := e.acquire()
	if p == nil {
		return 0, errStopping
	}
	defer p.release()
	state, err := projections.TransparencyState(p.snap)
	return state.NewestHead + 1, err
}

// waitSigned waits for a checkpoint of at least a size.
func (e *Engine) waitSigned(ctx context.Context, size uint64) (*Checkpoint, error) {
	for {
		var superseded <-chan struct{}
		if c := e.Checkpoint(); c != nil {
			if c.Size >= size {
				return c, nil
			}
			superseded = c.superseded
			c.Release()
		} else {
			superseded = e.signer.first
		}
		select {
		case <-superseded:
		case <-e.signer.halted:
			return nil, errNoSigning
		case <-e.failed:
			return nil, errStorage
		case <-ctx.Done():
			return nil, deadline(ctx, "no checkpoint was signed in time")
		}
	}
}

// leafAt is the leaf of one record.
func leafAt(l *log.Log, index uint64) ([]byte, error) {
	record, err := l.Record(index)
	return record.Leaf, err
}
