package server

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quicprochat/commands"
	"quicprochat/log"
	"quicprochat/rpc/transparency"
)

// witnessing brings signed checkpoints to the witnesses, and what they cosign
// back. The nil witnessing has no witnesses.
//
//	engine ──newest checkpoint, each second──▶ Witnesses ──▶ witness
//	   ▲                                          │
//	   └──── ShowCosigned, StopSigning ───────────┘
type witnessing struct {
	witnesses *transparency.Witnesses
	engine    atomic.Pointer[commands.Engine] // nil until it has started
	stop      context.CancelFunc
	feeding   sync.WaitGroup

	mu   sync.Mutex
	held map[uint64]*commands.Checkpoint // by size, while a witness may sign it
}

// newWitnessing prepares the witnesses of a policy; nil without any.
func newWitnessing(policy transparency.WitnessPolicy, l *log.Log, logger *slog.Logger) *witnessing {
	if len(policy.Witnesses) == 0 {
		return nil
	}
	w := &witnessing{held: make(map[uint64]*commands.Checkpoint), stop: func() {}}
	w.witnesses = transparency.NewWitnesses(transparency.WitnessOptions{
		WitnessPolicy: policy, Prove: l.ConsistencyProof, Logger: logger,
		Cosigned: w.cosigned,
		Stop:     func(err *transparency.KnowsBetterError) { w.engine.Load().StopSigning(err) },
	})
	return w
}

func (w *witnessing) collectors() []prometheus.Collector {
	if w == nil {
		return nil
	}
	return w.witnesses.Collectors()
}

// ask is for commands.Options.Ask. That no witness answers does not stop a server
// whose guard is in place: what it signs now, they compare later.
func (w *witnessing) ask() func(context.Context, []byte, uint64) error {
	if w == nil {
		return nil
	}
	return func(ctx context.Context, note []byte, size uint64) error {
		_, err := w.witnesses.Ask(ctx, note, size)
		return err
	}
}

// feedEvery is how often the newest checkpoint is looked at.
const feedEvery = time.Second

// begin offers the engine's checkpoints from now on.
func (w *witnessing) begin(engine *commands.Engine) {
	if w == nil {
		return
	}
	w.engine.Store(engine)
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	w.feeding.Go(func() {
		tick := time.NewTicker(feedEvery)
		defer tick.Stop()
		last := uint64(0)
		for {
			last = w.feed(engine, last)
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
}

// feed offers the newest checkpoint if it is larger than the last one.
func (w *witnessing) feed(engine *commands.Engine, last uint64) uint64 {
	c := engine.Checkpoint()
	if c == nil {
		return last
	}
	if c.Size <= last {
		c.Release()
		return last
	}
	w.mu.Lock()
	w.held[c.Size] = c
	w.mu.Unlock()
	w.witnesses.Offer(c.Note, c.Size, func() {
		w.mu.Lock()
		delete(w.held, c.Size)
		w.mu.Unlock()
		c.Release()
	})
	return c.Size
}

// cosigned shows a note that a quorum has signed.
func (w *witnessing) cosigned(note []byte, size uint64) {
	w.mu.Lock()
	c := w.held[size]
	w.mu.Unlock()
	if c != nil {
		w.engine.Load().ShowCosigned(c, note)
	}
}

// close ends submissions and gives the checkpoints back; the engine must not have
// stopped yet.
func (w *witnessing) close() {
	if w == nil {
		return
	}
	w.stop()
	w.feeding.Wait()
	w.witnesses.Close()
}

// PublicLog shows the log to strangers over HTTP (C2SP tlog-tiles), as far as its
// newest checkpoint goes. It must not be used after Shutdown began.
func (n *Node) PublicLog() http.Handler {
	shown := new(shownNote)
	return transparency.NewHandler(transparency.Source{
		Log: n.log, Logger: n.config.Logger,
		Published: func() transparency.Published { return shown.published(n.engine) },
		Delta: func(number uint64, width int) ([]byte, error) {
			c := n.engine.Checkpoint()
			if c == nil {
				return nil, log.ErrOutOfRange
			}
			defer c.Release()
			return n.engine.Delta(c, number, width)
		},
	})
}

// shownNote decides which note strangers are shown: the newest cosigned one while
// the witnesses keep up, else the newest signed one; never one that is older than
// what was shown.
type shownNote struct {
	mu   sync.Mutex
	size uint64
}

// cosignedLag is how far the newest cosigned checkpoint may be behind.
const cosignedLag = 3 * time.Minute

func (s *shownNote) published(engine *commands.Engine) transparency.Published {
	c := engine.Checkpoint()
	if c == nil {
		return transparency.Published{Stopped: engine.SigningStopped() != nil}
	}
	defer c.Release()
	p := transparency.Published{Note: c.Note, Size: c.Size, Epochs: c.Head.Epoch + 1}
	size := c.Size
	s.mu.Lock()
	defer s.mu.Unlock()
	if cosigned := engine.CosignedCheckpoint(); cosigned != nil {
		behind := time.Duration(c.Head.TimeMS-cosigned.Head.TimeMS) * time.Millisecond
		if cosigned.Size >= s.size && behind <= cosignedLag {
			p.Note, size = cosigned.Note, cosigned.Size
		}
		cosigned.Release()
	}
	s.size = max(s.size, size)
	return p
}

// VerifierKeyFile is the file with the log's verifier key (C2SP signed-note), one
// line, which auditors and witnesses are given.
func (n *Node) VerifierKeyFile() string { return n.dir.VerifierKeyFile() }
