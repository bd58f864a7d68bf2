package push

import (
	"errors"
	"log/slog"
	"sync"

	pb "quicprochat/proto/qpcv1"
)

// ErrFull is what Link.TryPush returns when the client's limits leave no room.
var ErrFull = errors.New("the client takes no more pushes now")

// Binding ties a connection to a device. It holds the hints that were not sent
// yet.
type Binding struct {
	hub    *Hub
	device [32]byte
	link   Link
	token  [32]byte // guarded by hub.mu

	mu       sync.Mutex
	pending  []Message
	resync   bool // hints were dropped since the last successful resync
	queued   bool // in hub.queue, or a worker has it
	blocked  bool // a goroutine waits in link.Push
	released bool
}

// Bind ties link to a device. token is the hash of the session that the
// connection used; when it ends, link.SessionEnded is called.
func (h *Hub) Bind(device, token [32]byte, link Link) *Binding {
	b := &Binding{hub: h, device: device, token: token, link: link}
	h.mu.Lock()
	defer h.mu.Unlock()
	insert(h.bindings, device, b)
	insert(h.sessions, token, b)
	return b
}

// Use notes that the connection now uses another session of the same device,
// so that the end of the older one leaves the connection open.
func (b *Binding) Use(token [32]byte) {
	h := b.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if set := h.sessions[b.token]; set == nil {
		return // released
	} else if _, ok := set[b]; !ok {
		return
	}
	remove(h.sessions, b.token, b)
	b.token = token
	insert(h.sessions, token, b)
}

// Release forgets the connection; it must be called once, when it ends.
func (b *Binding) Release() {
	h := b.hub
	h.mu.Lock()
	remove(h.bindings, b.device, b)
	remove(h.sessions, b.token, b)
	h.mu.Unlock()
	b.mu.Lock()
	b.released, b.pending = true, nil
	b.mu.Unlock()
}

func insert(m map[[32]byte]map[*Binding]struct{}, k [32]byte, b *Binding) {
	set := m[k]
	if set == nil {
		set = make(map[*Binding]struct{}, 1)
		m[k] = set
	}
	set[b] = struct{}{}
}

func remove(m map[[32]byte]map[*Binding]struct{}, k [32]byte, b *Binding) {
	set := m[k]
	delete(set, b)
	if len(set) == 0 {
		delete(m, k)
	}
}

// add notes a hint and reports whether the binding must be queued for a worker.
func (b *Binding) add(m *Message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.released:
		return false
	case b.blocked:
		b.resync = true // after the one that waits, another must go out
		return false
	case b.resync:
		return false // the resync that is to be sent covers this one too
	case len(b.pending) >= MaxPending:
		b.pending, b.resync = b.pending[:0], true
	default:
		b.pending = append(b.pending, *m)
	}
	if b.queued {
		return false
	}
	b.queued = true
	return true
}

// send is run by one worker at a time: it sends what is pending until nothing
// is left or the client is full.
func (b *Binding) send() {
	var batch []Message
	for {
		b.mu.Lock()
		if b.released || (len(b.pending) == 0 && !b.resync) || b.blocked {
			b.queued = false
			b.mu.Unlock()
			return
		}
		resync := b.resync
		batch, b.pending = b.pending, batch[:0]
		b.mu.Unlock()

		if resync {
			b.sendResync()
			continue
		}
		for i := range batch {
			if !b.sendOne(&batch[i]) {
				break
			}
		}
	}
}

// sendOne sends one hint; false means that the rest of the batch is covered by
// a resync or that the connection is gone.
func (b *Binding) sendOne(m *Message) bool {
	p := &pb.PushNewMessage{Seq: m.Seq, Size: m.Size, MessageId: m.ID[:]}
	if m.Size <= MaxInline {
		data, found, err := b.hub.payload(m.Owner, m.ID)
		switch {
		case err != nil:
			b.hub.logger.Error("push: payload not readable", slog.Any("error", err))
		case !found:
			return true // fetched and released already: no news
		default:
			p.Payload = data
		}
	}
	switch err := b.link.TryPush(pb.PushType_NEW_MESSAGE, p); {
	case err == nil:
		return true
	case errors.Is(err, ErrFull):
		b.mu.Lock()
		b.pending, b.resync = b.pending[:0], true
		b.mu.Unlock()
	}
	return false
}

// sendResync sends the one push that stands for all that were dropped. The
// flag is cleared before it is sent: what comes later is news again.
func (b *Binding) sendResync() {
	b.mu.Lock()
	b.pending, b.resync = b.pending[:0], false
	b.mu.Unlock()
	p := &pb.PushNewMessage{Resync: true}
	if err := b.link.TryPush(pb.PushType_NEW_MESSAGE, p); !errors.Is(err, ErrFull) {
		return
	}
	b.mu.Lock()
	b.blocked = true
	b.mu.Unlock()
	b.hub.running.Go(b.awaitRoom)
}

// awaitRoom waits, outside the workers, until the client takes a push again.
// Hints that come meanwhile need another resync: the client may have read its
// queue between this one and them.
func (b *Binding) awaitRoom() {
	err := b.link.Push(pb.PushType_NEW_MESSAGE, &pb.PushNewMessage{Resync: true})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blocked = false
	if err != nil || b.released || !b.resync || b.queued {
		return
	}
	b.queued = true
	b.hub.queue.put(b)
}
