package push

import (
	"log/slog"
	"sync"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// MaxInline is the largest payload, in bytes, that a push carries itself.
const MaxInline = 16 << 10

// workers send pushes: enough to read payloads while a packet is written, few
// enough to leave the cores to the engine.
const workers = 2

// Link is a connection as the hub sees it.
type Link interface {
	// TryPush sends one message on a stream of its own and never blocks.
	// ErrFull means that the client's stream or data limit is reached.
	TryPush(t pb.PushType, m proto.Message) error
	// Push does the same but waits for the client to allow it; it returns an
	// error when the connection ends first.
	Push(t pb.PushType, m proto.Message) error
	// SessionEnded closes the connection, because the session that it used
	// last is over. It must not block.
	SessionEnded()
}

// Message is one message that was put into the queue of one device.
type Message struct {
	Device [32]byte
	Owner  [16]byte
	ID     [16]byte
	Seq    uint64
	// Size of the payload in bytes.
	Size uint32
	// Control tells that the payload is a ControlItem.
	Control bool
	// As in the Envelope; zero outside of channels.
	Channel    [16]byte
	ChannelSeq uint64
	Welcome    bool
}

// Options are the dependencies of a Hub.
type Options struct {
	// Payload reads a stored payload; found is false once it was released.
	Payload func(owner, id [16]byte) (data []byte, found bool, err error)
	Logger  *slog.Logger
}

// Hub knows the bound connections and the waiting calls. All methods are safe
// for concurrent use.
type Hub struct {
	payload func(owner, id [16]byte) ([]byte, bool, error)
	logger  *slog.Logger

	mu       sync.RWMutex
	bindings map[[32]byte]map[*Binding]struct{} // by device key
	sessions map[[32]byte]map[*Binding]struct{} // by hash of the session last used
	waiters  map[[32]byte]*Waiter               // by device key: one each
	waits    map[[16]byte]int                   // by account
	closed   bool

	queue   queue
	running sync.WaitGroup
}

// NewHub starts the hub's workers. Close ends them.
func NewHub(o Options) *Hub {
	h := &Hub{
		payload:  o.Payload,
		logger:   o.Logger,
		bindings: make(map[[32]byte]map[*Binding]struct{}),
		sessions: make(map[[32]byte]map[*Binding]struct{}),
		waiters:  make(map[[32]byte]*Waiter),
		waits:    make(map[[16]byte]int),
	}
	h.queue.init()
	for range workers {
		h.running.Go(h.work)
	}
	return h
}

// Publish distributes what became visible: hints for connected devices, a
// signal for waiting calls, the end of sessions. It never blocks and may be
// called by the one goroutine that releases replies.
func (h *Hub) Publish(messages []Message, ended [][32]byte) {
	if len(messages) > 0 {
		h.announce(messages)
	}
	if len(ended) > 0 {
		h.endSessions(ended)
	}
}

func (h *Hub) announce(messages []Message) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if len(h.bindings) == 0 && len(h.waiters) == 0 {
		return
	}
	for i := range messages {
		m := &messages[i]
		if w := h.waiters[m.Device]; w != nil {
			w.signal(Woken)
		}
		for b := range h.bindings[m.Device] {
			if b.add(m) {
				h.queue.put(b)
			}
		}
	}
}

// LowOnKeyPackages tells devices that few of their KeyPackages are left. As
// Publish, it never blocks.
func (h *Hub) LowOnKeyPackages(devices [][32]byte) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, device := range devices {
		for b := range h.bindings[device] {
			if b.addLow() {
				h.queue.put(b)
			}
		}
	}
}

// Tell sends devices what no queue of theirs holds, to each of their connections.
// It never blocks. What a client leaves no room for is dropped; a MEMBERSHIP then
// becomes part of a resync.
func (h *Hub) Tell(devices [][32]byte, t pb.PushType, m proto.Message) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if len(h.bindings) == 0 {
		return
	}
	for _, device := range devices {
		for b := range h.bindings[device] {
			if b.addWord(word{t, m}) {
				h.queue.put(b)
			}
		}
	}
}

func (h *Hub) endSessions(ended [][32]byte) {
	h.mu.RLock()
	var links []Link
	for _, token := range ended {
		for b := range h.sessions[token] {
			links = append(links, b.link)
		}
	}
	h.mu.RUnlock()
	for _, l := range links {
		l.SessionEnded()
	}
}

// Close wakes every waiter with Stopped, drops what is pending and ends the
// workers. Connections must be closed before it, or it waits for the pushes
// that they block.
func (h *Hub) Close() {
	h.StopWaiting()
	h.queue.close()
	h.running.Wait()
}

// Devices is the number of devices with a bound connection.
func (h *Hub) Devices() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.bindings)
}
