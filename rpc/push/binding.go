package push

import (
	"errors"
	"log/slog"
	"sync"

	"google.golang.org/protobuf/proto"

	pb "quicprochat/proto/qpcv1"
)

// ErrFull is what Link.TryPush returns when the client's limits leave no room.
var ErrFull = errors.New("the client takes no more pushes now")

// Binding ties a connection to a device. It remembers what the connection was
// not told yet: the newest message, and how many there are.
type Binding struct {
	hub    *Hub
	device [32]byte
	link   Link
	token  [32]byte // guarded by hub.mu

	mu       sync.Mutex
	last     Message
	news     int  // messages since the last push was made
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
	b.released = true
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

// add notes a message and reports whether the binding must be queued for a
// worker.
func (b *Binding) add(m *Message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.released {
		return false
	}
	b.last = *m
	b.news++
	if b.queued || b.blocked {
		return false
	}
	b.queued = true
	return true
}

// take gives what there is to tell; news is 0 when the worker is done with the
// binding.
func (b *Binding) take() (last Message, news int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.released || b.blocked || b.news == 0 {
		b.queued = false
		return Message{}, 0
	}
	last, news = b.last, b.news
	b.news = 0
	return last, news
}

// send is run by one worker at a time, until nothing is left to tell or the
// client takes no more.
func (b *Binding) send() {
	for last, news := b.take(); news > 0; last, news = b.take() {
		kind, push := b.push(&last, news)
		if push == nil {
			continue
		}
		if err := b.link.TryPush(kind, push); errors.Is(err, ErrFull) {
			b.mu.Lock()
			b.blocked = true
			b.mu.Unlock()
			b.hub.running.Go(b.awaitRoom)
		}
	}
}

// push tells of one message, or that there are several. It is nil when the message
// was fetched and released already.
func (b *Binding) push(m *Message, news int) (pb.PushType, proto.Message) {
	if news > 1 {
		return pb.PushType_NEW_MESSAGE, &pb.PushNewMessage{Resync: true}
	}
	p := &pb.PushNewMessage{Seq: m.Seq, Size: m.Size, MessageId: m.ID[:]}
	if m.Size > MaxInline {
		return pb.PushType_NEW_MESSAGE, p
	}
	data, found, err := b.hub.payload(m.Owner, m.ID)
	switch {
	case err != nil:
		b.hub.logger.Error("push: payload not readable", slog.Any("error", err))
		return pb.PushType_NEW_MESSAGE, p
	case !found:
		return 0, nil
	case m.Control:
		return b.membership(m, data)
	}
	p.Payload = data
	return pb.PushType_NEW_MESSAGE, p
}

// membership tells of a control item.
func (b *Binding) membership(m *Message, data []byte) (pb.PushType, proto.Message) {
	item := new(pb.ControlItem)
	if err := proto.Unmarshal(data, item); err != nil {
		b.hub.logger.Error("push: control item not readable", slog.Any("error", err))
		return 0, nil
	}
	return pb.PushType_MEMBERSHIP, &pb.PushMembership{Seq: m.Seq, MessageId: m.ID[:], Item: item}
}

// awaitRoom waits, outside the workers, until the client takes a push again.
// What comes meanwhile needs another one: the client may have read its queue
// between the two.
func (b *Binding) awaitRoom() {
	err := b.link.Push(pb.PushType_NEW_MESSAGE, &pb.PushNewMessage{Resync: true})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blocked = false
	if err != nil || b.released || b.news == 0 || b.queued {
		return
	}
	b.queued = true
	b.hub.queue.put(b)
}
