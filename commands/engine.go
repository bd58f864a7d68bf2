package commands

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// Command is one mutation on its way through the writer. Method and Auth come
// from the method's rule; the engine trusts no earlier check.
type Command struct {
	Method uint32        // id of the method; 0 for the server's own commands
	Auth   pb.Auth_Level // who may
	Token  [32]byte      // SHA-256 of the session token; zero = none
	Size   int           // bytes of the request, for the queue's bound
	// Entries is an upper estimate of the queue entries that the command makes
	// (items times devices); 0 counts as 1.
	Entries int
	// RequestID is the UUIDv7 of a method with retry REQUEST_ID, else nil, and
	// RequestHash the SHA-256 of the request with session_token and request_id
	// cleared (deterministic marshal).
	RequestID   []byte
	RequestHash [32]byte
	// WorksWhenFull: the command frees space, or is needed for that, and passes
	// while the disk is nearly full (Options.MinFree).
	WorksWhenFull bool
	// Decide is the decide function with its request bound. It may still run
	// after Do returned because its context ended.
	Decide func(*Tx) (proto.Message, error)
	// NewResponse makes an empty response message, to replay a receipt into.
	NewResponse func() proto.Message
}

// Options configure Start. Log, FS and Dir are required.
type Options struct {
	Log *log.Log // open; the engine does not close it
	FS  vfs.FS   // holds Dir
	Dir string   // data directory; the engine owns views/ and snapshots/ in it
	// Quotas is false with --limits off: no queue and sender quotas.
	Quotas bool
	// MinFree is the share of the disk in percent below which only commands pass
	// that WorksWhenFull; 0: never. A ballast file of the engine's lies in Dir
	// while there is room.
	MinFree int
	// AcceptTime starts although the clock contradicts the log (--accept-time).
	AcceptTime bool
	// WallClock tells the time of day; nil means time.Now. How long something
	// takes is not asked of it.
	WallClock func() time.Time
	Logger    *slog.Logger // nil: slog.Default
	// LogKey signs checkpoints; nil: none is signed and there are no proofs.
	LogKey ed25519.PrivateKey
	// VRF makes the labels of names and keys that nobody registered; it goes with
	// LogKey.
	VRF *kt.VRFPrivateKey
	// Ask asks the witnesses, before anything is signed, whether they know more of
	// this log than a note of the size given, which was signed before. An error
	// stops signing. nil: nobody is asked.
	Ask func(ctx context.Context, note []byte, size uint64) error
	// SnapshotEvery is after how many events the views are copied to
	// snapshots/; 0 means 1,000,000.
	SnapshotEvery uint64
}

// Engine is the single writer with everything that hangs on it.
type Engine struct {
	log    *log.Log
	views  *projections.Views
	fs     vfs.FS
	dir    string
	logger *slog.Logger
	clock  *clock
	space  *space

	calls     *sync.Pool // of *call
	queue     *queue
	slots     chan struct{} // a token per group between commit and publication
	committed chan *group   // writer to acker
	synced    chan *group   // within the acker
	spare     chan *group   // published groups to use again

	current atomic.Pointer[published]
	readers sync.WaitGroup // published states that are not closed yet
	payload func(owner, id [16]byte) ([]byte, bool, error)
	hooks   atomic.Pointer[[]func(Published)]
	hooking sync.Mutex

	stall    stall
	touches  touches
	counters counters

	signer *signer
	vrf    *kt.VRFPrivateKey
	absent absentLabels

	failure  atomic.Pointer[error]
	failed   chan struct{}
	failOnce sync.Once

	keepers  sync.WaitGroup // housekeeping goroutines
	quit     context.CancelFunc
	finished chan struct{} // the acker has published its last group
	stopOnce sync.Once
	stopped  chan struct{}
	stopErr  error
}

func newEngine(o Options) *Engine {
	e := &Engine{
		log: o.Log, fs: o.FS, dir: o.Dir, logger: o.Logger, clock: newClock(o.WallClock),
		calls:     newCallPool(),
		queue:     newQueue(),
		slots:     make(chan struct{}, pipelineDepth),
		committed: make(chan *group, pipelineDepth),
		synced:    make(chan *group, pipelineDepth),
		spare:     make(chan *group, pipelineDepth),
		failed:    make(chan struct{}),
		finished:  make(chan struct{}),
		stopped:   make(chan struct{}),
	}
	if e.logger == nil {
		e.logger = slog.Default()
	}
	e.space = newSpace(o, e.logger)
	e.payload, e.vrf = e.Payload, o.VRF
	e.hooks.Store(new([]func(Published)))
	return e
}

// spareGroup is an empty group, used before if there is one.
func (e *Engine) spareGroup() *group {
	select {
	case g := <-e.spare:
		return g
	default:
		return newGroup()
	}
}

// Do decides one command and returns its response when it is durable and
// visible. The error is a *Refusal (AsRefusal), ErrStale, or internal. When ctx
// ends first, the refusal (DeadlineExceeded) tells whether the command was not
// executed or its outcome is unknown.
func (e *Engine) Do(ctx context.Context, c *Command) (proto.Message, error) {
	if ctx.Err() != nil {
		return nil, deadline(ctx, "the request's time was over: it was not executed")
	}
	if err := e.stall.check(); err != nil {
		return nil, err
	}
	p := e.newCall(c)
	if err := e.queue.push(p); err != nil {
		p.recycle()
		return nil, err
	}
	return p.wait(ctx)
}

// Ready is nil when mutations are accepted, else the Refusal that they get, on a
// full disk all but those that free space.
func (e *Engine) Ready() error {
	e.queue.mu.Lock()
	closed := e.queue.closed
	e.queue.mu.Unlock()
	if closed != nil {
		return closed
	}
	return cmp.Or(e.stall.check(), e.clock.check(), e.space.check())
}

// Now is the server's time in Unix milliseconds: max(wall clock, last event).
func (e *Engine) Now() uint64 { return e.clock.nowMS() }

// OnPublish registers a hook that is called after each published group that has
// something to tell, in order. It must not block, and what it gets is valid only
// during the call.
func (e *Engine) OnPublish(hook func(Published)) {
	e.hooking.Lock()
	defer e.hooking.Unlock()
	hooks := append((*e.hooks.Load())[:len(*e.hooks.Load()):len(*e.hooks.Load())], hook)
	e.hooks.Store(&hooks)
}

// Published tells hooks what became visible with a group.
type Published struct {
	Messages []NewMessage
	Ended    []projections.Hash // token hashes of sessions that ended
	Members  []MembersChanged
	Low      []projections.Key // devices that should upload KeyPackages
}

// MembersChanged tells who came into a channel and who left it.
type MembersChanged struct {
	Channel        projections.ID
	Added, Removed []projections.ID // accounts
}

// NewMessage is one new item of one device's queue.
type NewMessage struct {
	DeviceKey projections.Key
	Seq       uint64
	MessageID projections.ID
	Owner     projections.ID // account or channel that the payload is stored under
	Size      uint32         // payload bytes
	Control   bool           // the payload is a ControlItem
	// As in the Envelope; zero outside of channels.
	Channel    projections.ID
	ChannelSeq uint64
	Welcome    bool
}

var (
	errStopping = Refuse(pb.Status_Unavailable, pb.Reason_STOPPING, "the server is stopping")
	errStorage  = Refuse(pb.Status_Unavailable, pb.Reason_STORAGE, "the server's storage failed: it restarts; the outcome of the request is unknown")
)

// fail ends deciding for good. Only the first cause counts.
func (e *Engine) fail(cause error) {
	e.failOnce.Do(func() {
		e.failure.Store(&cause)
		e.logger.Error("engine failed: restart the server, the log tells what is durable", "cause", cause)
		e.queue.close(errStorage)
		e.space.release(cause)
		if e.views != nil {
			e.views.Fail(cause)
		}
		close(e.failed)
	})
}

// viewsFailed is told of failures of the views' background work, and of damage.
func (e *Engine) viewsFailed(err error) {
	if damaged := (*projections.RebuildError)(nil); errors.As(err, &damaged) {
		err = fmt.Errorf("%w: start again, and they are built anew from the log", err)
	}
	e.fail(fmt.Errorf("views: %w", err))
}

// refusal is what commands get that can't be decided any more.
func (e *Engine) refusal() error {
	if e.Err() != nil {
		return errStorage
	}
	return errStopping
}

// Failed is closed when the engine can't go on; Err tells why. The process
// should end with an error: a restart recovers from the log.
func (e *Engine) Failed() <-chan struct{} { return e.failed }

// Err is the error that Failed was closed for, or nil.
func (e *Engine) Err() error {
	if cause := e.failure.Load(); cause != nil {
		return *cause
	}
	return nil
}

// Stop refuses new commands, finishes those that wait, flushes and closes the
// views. It waits for Views that are not released. When ctx ends first, Stop
// returns its error and the stop goes on; calling it again waits again.
func (e *Engine) Stop(ctx context.Context) error {
	e.stopOnce.Do(func() {
		e.queue.close(errStopping)
		e.quit()
		go func() {
			defer close(e.stopped)
			e.stopErr = e.shutdown()
		}()
	})
	select {
	case <-e.stopped:
		return e.stopErr
	case <-ctx.Done():
		return fmt.Errorf("stop the engine: %w", context.Cause(ctx))
	}
}

func (e *Engine) shutdown() error {
	<-e.finished
	e.keepers.Wait()
	signerErr := e.signer.close()
	if last := e.current.Swap(nil); last != nil {
		last.release()
	}
	e.readers.Wait()
	if err := errors.Join(signerErr, e.views.Close()); err != nil {
		return fmt.Errorf("close guard and views: %w", err)
	}
	return e.Err()
}
