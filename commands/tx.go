package commands

import (
	"quicprochat/kt"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// Tx is what a decide function sees and does: the views with every earlier
// command applied, the caller, time and randomness, and the way out for events.
// It is valid only during the call.
type Tx struct{}

// View is the state as of all earlier commands and of what this one emitted so
// far. Ask for it again after an Emit: a Reader that was taken before may miss
// the last event.
func (tx *Tx) View() projections.Reader { panic("not built") }

// Caller is the caller as the session says at this point of the log.
func (tx *Tx) Caller() *Caller { panic("not built") }

// Now is the decision time in Unix milliseconds: max(wall clock, last event).
func (tx *Tx) Now() uint64 { panic("not built") }

// Random returns n fresh random bytes.
func (tx *Tx) Random(n int) []byte { panic("not built") }

// NewID returns 16 fresh random bytes.
func (tx *Tx) NewID() [16]byte { panic("not built") }

// Quotas reports whether queue and sender quotas apply (--limits).
func (tx *Tx) Quotas() bool { panic("not built") }

// Emit decides an event: ev carries the body, Emit sets its time, and the
// engine adds the receipt to the last one. Reads through View see its effect.
// ev must not be changed afterwards. An error is fatal to the engine: return it.
func (tx *Tx) Emit(ev *pb.Event) error { panic("not built") }

// EmitKT decides the key-transparency event of a prepared version; its leaf is
// of class KT. value is what the label's version is bound to.
func (tx *Tx) EmitKT(p *PreparedKT, value []byte) error { panic("not built") }

// PutPayload stores a payload with the group; data is copied.
func (tx *Tx) PutPayload(owner, id [16]byte, data []byte) { panic("not built") }

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

	shared *published
}

// Release gives the view back. The zero effect on a View made by hand.
func (v *View) Release() { panic("not built") }

type published struct{}
