package log

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// failure is the one-way switch of a log whose disk can no longer be trusted. What a failed write left behind is
// unknown, so nothing is tried again in place: a restart recovers from what is really there.
type failure struct {
	once sync.Once
	err  atomic.Pointer[error]
	ch   chan struct{}
}

func newFailure() *failure { return &failure{ch: make(chan struct{})} }

// set records the first cause and gives the error that every later write gets.
func (f *failure) set(cause error) error {
	f.once.Do(func() {
		err := fmt.Errorf("%w: %w", ErrFailed, cause)
		f.err.Store(&err)
		close(f.ch)
	})
	return f.get()
}

// get is nil while the log works.
func (f *failure) get() error {
	if p := f.err.Load(); p != nil {
		return *p
	}
	return nil
}
