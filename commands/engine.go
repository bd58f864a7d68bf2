package commands

import (
	"context"
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// Command is one mutation on its way through the writer. Method, Auth and
// Retry come from the method's rule; the engine trusts no earlier check.
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
	// Decide is the decide function with its request bound.
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
	// AcceptTime starts although the clock contradicts the log (--accept-time).
	AcceptTime bool
	Logger     *slog.Logger // nil: slog.Default
}

// Engine is the single writer with everything that hangs on it.
type Engine struct{}

// Start opens the views, brings them up to the log, checks the clock and starts
// deciding. ctx ends the start, not the engine.
func Start(ctx context.Context, o Options) (*Engine, error) { panic("not built") }

// Do decides one command and returns its response when it is durable. Errors
// are a *Refusal, or internal.
func (e *Engine) Do(ctx context.Context, c *Command) (proto.Message, error) { panic("not built") }

// Query is the way of every read: the newest published state with the caller
// of a token (SHA-256; zero = none) checked against the level of the method's
// rule. It notes the use of the session. Release the View. Errors are a
// *Refusal, or internal.
func (e *Engine) Query(token [32]byte, level pb.Auth_Level) (*View, error) { panic("not built") }

// View is the newest published state, for nobody in particular. Release it.
// The error is a *Refusal: the engine has stopped.
func (e *Engine) View() (*View, error) { panic("not built") }

// Ready is nil when mutations are accepted, else the Refusal they would get.
func (e *Engine) Ready() error { panic("not built") }

// Now is the server's time in Unix milliseconds: max(wall clock, last event).
func (e *Engine) Now() uint64 { panic("not built") }

// Payload reads a payload; false when it was released.
func (e *Engine) Payload(owner, id [16]byte) ([]byte, bool, error) { panic("not built") }

// Payloads calls fn for each key in order with its payload, nil when it was
// released; data is valid only during the call. Keys of one owner in ascending
// order are read with one scan.
func (e *Engine) Payloads(keys []log.PayloadKey, fn func(i int, data []byte) error) error {
	panic("not built")
}

// OnPublish registers a hook that is called after each published group that has
// something to tell. It must not block, and what it gets is valid only during
// the call.
func (e *Engine) OnPublish(hook func(Published)) { panic("not built") }

// Failed is closed when the engine can't go on; Err tells why.
func (e *Engine) Failed() <-chan struct{} { panic("not built") }

// Err is the error that Failed was closed for, or nil.
func (e *Engine) Err() error { panic("not built") }

// Stop refuses new commands, finishes those that wait, flushes and closes the
// views.
func (e *Engine) Stop(ctx context.Context) error { panic("not built") }

// Published tells hooks what became visible with a group.
type Published struct {
	Messages []NewMessage
	Ended    []projections.Hash // token hashes of sessions that ended
}

// NewMessage is one new item of one device's queue.
type NewMessage struct {
	DeviceKey projections.Key
	Seq       uint64
	MessageID projections.ID
	Owner     projections.ID // account that the payload is stored under
	Size      uint32   // payload bytes
}
