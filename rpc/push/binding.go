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
	low      bool // the device should upload KeyPackages
	words    []word
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

// word is a push that stands for itself: no queue holds what it says.
type word struct {
	kind    pb.PushType
	message proto.Message
}

// maxWords is how many of them wait for a worker; typing is worth nothing when it
// comes late.
const maxWords = 16

// add notes a message and reports whether the binding must be queued for a
// worker.
func (b *Binding) add(m *Message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = *m
	b.news++
	return b.enlist()
}

// addLow is add for a device that has few KeyPackages left.
func (b *Binding) addLow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.low = true
	return b.enlist()
}

// addWord is add for a word.
func (b *Binding) addWord(w word) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.blocked || len(b.words) >= maxWords {
		return b.dropWord(w)
	}
	b.words = append(b.words, w)
	return b.enlist()
}

// dropWord gives a word up. Whoever misses a MEMBERSHIP is told to look, and that
// KeyPackages are low is told with it.
func (b *Binding) dropWord(w word) bool {
	switch w.kind {
	case pb.PushType_MEMBERSHIP:
	case pb.PushType_NEW_MESSAGE:
		b.low = true
	default:
		return false
	}
	b.news += resyncNews
	return b.enlist()
}

// resyncNews is more than one message: that is told as a resync.
const resyncNews = 2

// enlist reports whether the binding must be queued, and notes that it is.
func (b *Binding) enlist() bool {
	if b.released || b.queued || b.blocked {
		return false
	}
	b.queued = true
	return true
}

// take gives what there is to tell: a word, or messages; news is 0 without a word
// when the worker is done with the binding.
func (b *Binding) take() (w word, last Message, news int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.released || b.blocked:
	case len(b.words) > 0:
		w = b.words[0]
		b.words = append(b.words[:0], b.words[1:]...)
		return w, last, 0
	case b.news > 0:
		last, news = b.last, b.news
		b.news = 0
		return w, last, news
	case b.low:
		b.low = false
		return word{pb.PushType_NEW_MESSAGE, &pb.PushNewMessage{KeyPackagesLow: true}}, last, 0
	}
	b.queued = false
	return w, last, 0
}

// send is run by one worker at a time, until nothing is left to tell or the
// client takes no more.
func (b *Binding) send() {
	for {
		w, last, news := b.take()
		switch {
		case w.message != nil:
			b.say(w)
		case news == 0:
			return
		default:
			b.announce(&last, news)
		}
	}
}

// say sends a word, or drops it.
func (b *Binding) say(w word) {
	if err := b.link.TryPush(w.kind, w.message); errors.Is(err, ErrFull) {
		b.mu.Lock()
		b.dropWord(w) // queued as it is
		b.mu.Unlock()
	}
}

// announce tells of new messages.
func (b *Binding) announce(last *Message, news int) {
	kind, push := b.push(last, news)
	if push == nil {
		return
	}
	low := false
	if m, ok := push.(*pb.PushNewMessage); ok {
		low = b.takeLow()
		m.KeyPackagesLow = low
	}
	if err := b.link.TryPush(kind, push); errors.Is(err, ErrFull) {
		b.mu.Lock()
		b.blocked, b.low = true, b.low || low
		b.mu.Unlock()
		b.hub.running.Go(b.awaitRoom)
	}
}

// takeLow tells once whether the device has few KeyPackages left.
func (b *Binding) takeLow() (low bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	low, b.low = b.low, false
	return low
}

// push tells of one message, or that there are several. It is nil when the message
// was fetched and released already.
func (b *Binding) push(m *Message, news int) (pb.PushType, proto.Message) {
	if news > 1 {
		return pb.PushType_NEW_MESSAGE, &pb.PushNewMessage{Resync: true}
	}
	p := &pb.PushNewMessage{Seq: m.Seq, Size: m.Size, MessageId: m.ID[:], ChannelSeq: m.ChannelSeq, Welcome: m.Welcome}
	if m.Channel != ([16]byte{}) {
		p.ChannelId = m.Channel[:]
	}
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
	err := b.link.Push(pb.PushType_NEW_MESSAGE, &pb.PushNewMessage{Resync: true, KeyPackagesLow: b.takeLow()})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blocked = false
	if err != nil || b.released || b.queued || (b.news == 0 && !b.low) {
		return
	}
	b.queued = true
	b.hub.queue.put(b)
}
