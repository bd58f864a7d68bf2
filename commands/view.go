package commands

import (
	"errors"
	"sync/atomic"

	"quicprochat/kt"
	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// PreparedKT holds what a key-transparency event needs of the VRF: made outside
// the writer, where the private key is and where its cost does not add up.
type PreparedKT struct {
	Kind      kt.Kind
	ID        []byte
	Version   uint32
	Label     kt.Label
	Proof     kt.VRFProof // of (kind, id, version)
	NextProof kt.VRFProof // of (kind, id, version+1)
}

// View is the published state that a query reads. Release it when done.
type View struct {
	Reader projections.Reader
	Caller Caller
	Now    uint64 // Unix milliseconds
	// Payload reads a payload of the log; false when it was released.
	Payload func(owner, id [16]byte) ([]byte, bool, error)
	// Proofs collects the proof that the request asks for; nil without one. The
	// Reader is then that of the proof's checkpoint.
	Proofs *Proofs

	shared *published
}

// Release gives the view back; it must not be read afterwards. A View made by
// hand has nothing to give back.
func (v *View) Release() {
	if v.shared != nil {
		v.shared.release()
		v.shared = nil
	}
}

// published is one published state, shared by the views that read it and by the
// engine while it is the newest.
type published struct {
	snap *projections.Snapshot
	size uint64
	refs atomic.Int64
	gone func(*published) // called once, when the last reference went
}

// retain adds a reference unless the last one went.
func (p *published) retain() bool {
	for {
		n := p.refs.Load()
		if n == 0 {
			return false
		}
		if p.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (p *published) release() {
	if p.refs.Add(-1) == 0 {
		p.gone(p)
	}
}

// publish makes snap the state that queries see. The result has no reference of
// the caller's: only the next publish ends it.
func (e *Engine) publish(snap *projections.Snapshot) *published {
	p := &published{snap: snap, size: snap.Size(), gone: e.retire}
	p.refs.Store(1)
	e.readers.Add(1)
	if old := e.current.Swap(p); old != nil {
		old.release()
	}
	return p
}

// retire closes a snapshot that nobody reads any more.
func (e *Engine) retire(p *published) {
	if err := p.snap.Close(); err != nil {
		e.fail(err)
	}
	e.readers.Done()
}

// acquire is the newest published state with a reference added, nil after Stop.
func (e *Engine) acquire() *published {
	for {
		p := e.current.Load()
		if p == nil || p.retain() {
			return p
		}
	}
}

// View is the newest published state, for nobody in particular. Release it.
// The error is a *Refusal: the engine has stopped.
func (e *Engine) View() (*View, error) {
	p := e.acquire()
	if p == nil {
		return nil, errStopping
	}
	return &View{Reader: p.snap, Now: e.clock.nowMS(), Payload: e.payload, shared: p}, nil
}

// Query is the way of every read: the newest published state with the caller
// of a token (SHA-256; zero = none) checked against the level of the method's
// rule. It notes the use of the session. Release the View. Errors are a
// *Refusal, or internal.
func (e *Engine) Query(token [32]byte, level pb.Auth_Level) (*View, error) {
	v, err := e.View()
	if err != nil {
		return nil, err
	}
	v.Caller, err = Authorize(v.Reader, token, level, v.Now)
	if err != nil {
		v.Release()
		if damaged := (*projections.RebuildError)(nil); errors.As(err, &damaged) {
			e.viewsFailed(err) // only the next start can build them anew
		}
		return nil, err
	}
	e.touch(&v.Caller, v.Now)
	return v, nil
}

// Payload reads a payload; false when it was released.
func (e *Engine) Payload(owner, id [16]byte) ([]byte, bool, error) {
	return e.log.Payload(log.PayloadKey{Owner: owner, ID: id})
}

// Payloads calls fn for each key in order with its payload, nil when it was
// released; data is valid only during the call. Keys of one owner in ascending
// order are read with one scan.
func (e *Engine) Payloads(keys []log.PayloadKey, fn func(i int, data []byte) error) error {
	return e.log.Payloads(keys, fn)
}
