package push

import "sync"

// queue holds the bindings that have something to send, each at most once, so
// it is bounded by the number of connections.
type queue struct {
	mu     sync.Mutex
	filled sync.Cond
	items  []*Binding
	closed bool
}

func (q *queue) init() { q.filled.L = &q.mu }

func (q *queue) put(b *Binding) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = append(q.items, b)
	q.filled.Signal()
}

// take waits for a binding; nil means that the queue is closed.
func (q *queue) take() *Binding {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed {
		q.filled.Wait()
	}
	if q.closed {
		return nil
	}
	b := q.items[0]
	q.items[0] = nil
	q.items = q.items[1:]
	return b
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.items = true, nil
	q.filled.Broadcast()
}

func (h *Hub) work() {
	for b := h.queue.take(); b != nil; b = h.queue.take() {
		b.send()
	}
}
