package commands

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"quicprochat/kt"
	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// Tx is what a decide function sees and does: the views with every earlier
// command applied, the caller, time and randomness, and the way out for events.
// It is valid only during the call.
type Tx struct {
	w      *writer
	caller Caller
	now    uint64

	// The newest event is held back until the next one, the next View or the
	// end of the command, so that the last one can still get the receipt.
	pending   *pb.Event
	pendingKT *kt.Label // set when pending is a key-transparency event

	emitted int   // events of this command
	wrote   bool  // an event or a payload left: the command may not refuse
	failed  error // first failure of Emit; fatal
}

// View is the state as of all earlier commands and of what this one emitted so
// far. Ask for it again after an Emit: a Reader that was taken before may miss
// the last event.
func (tx *Tx) View() projections.Reader {
	tx.settle()
	return tx.w.group.views(tx.w)
}

// Caller is the caller as the session says at this point of the log.
func (tx *Tx) Caller() *Caller { return &tx.caller }

// Now is the decision time in Unix milliseconds: max(wall clock, last event).
func (tx *Tx) Now() uint64 { return tx.now }

// Random returns n fresh random bytes.
func (tx *Tx) Random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return b
}

// NewID returns 16 fresh random bytes.
func (tx *Tx) NewID() (id [16]byte) {
	rand.Read(id[:])
	return id
}

// NewMessageID returns a fresh id for a message: Now in six bytes, which whoever
// learns the id is told anyway, and ten random ones. Payloads are stored under
// their owner in the order of their ids: a queue that is read from its beginning
// finds them one behind the other.
func (tx *Tx) NewMessageID() (id [16]byte) {
	rand.Read(id[:])
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], tx.now)
	copy(id[:6], ms[2:])
	return id
}

// Quotas reports whether queue and sender quotas apply (--limits).
func (tx *Tx) Quotas() bool { return tx.w.quotas }

// Emit decides an event: ev carries the body, Emit sets its time, and the
// engine adds the receipt to the last one. Reads through View see its effect.
// ev must not be changed afterwards. An error is fatal to the engine: return it.
func (tx *Tx) Emit(ev *pb.Event) error {
	if _, isKT := ev.GetBody().(*pb.Event_KeyTransparencyEntry); isKT && tx.failed == nil {
		tx.failed = errors.New("commands: a key-transparency event needs EmitKT")
	}
	return tx.emit(ev, nil)
}

// EmitKT decides the key-transparency event of a prepared version; its leaf is
// of class KT. value is what the label's version is bound to. Errors as Emit.
func (tx *Tx) EmitKT(p *PreparedKT, value []byte) error {
	return tx.emit(&pb.Event{Body: &pb.Event_KeyTransparencyEntry{KeyTransparencyEntry: &pb.KeyTransparencyEntry{
		Kind: uint32(p.Kind), Id: p.ID, Version: p.Version, Value: value,
		VrfProof: p.Proof[:], NextVrfProof: p.NextProof[:],
	}}}, &p.Label)
}

func (tx *Tx) emit(ev *pb.Event, label *kt.Label) error {
	tx.settle()
	if tx.failed != nil {
		return tx.failed
	}
	ev.TimeMs = tx.now
	tx.pending, tx.pendingKT = ev, label
	tx.emitted++
	tx.wrote = true
	return nil
}

// PutPayload stores a payload with the group; data is copied. The event that
// refers to it must be emitted by the same command.
func (tx *Tx) PutPayload(owner, id [16]byte, data []byte) {
	tx.wrote = true
	tx.w.group.records(tx.w).PutPayload(log.PayloadKey{Owner: owner, ID: id}, data)
}

// settle applies the event that is held back.
func (tx *Tx) settle() {
	ev, label := tx.pending, tx.pendingKT
	if ev == nil {
		return
	}
	tx.pending, tx.pendingKT = nil, nil
	if tx.failed != nil {
		return
	}
	if err := tx.w.append(ev, label); err != nil {
		tx.failed = err
	}
}

// finish ends a command whose decide function returned resp: the receipt goes
// on the last event, or on one of its own when that one is applied already or
// is a key-transparency event, which proofs hand out as it stands: who asked for
// it, and under which request_id, is nobody else's business.
func (tx *Tx) finish(c *Command, resp proto.Message) error {
	if tx.emitted > 0 && len(c.RequestID) > 0 {
		if tx.pending == nil || tx.pendingKT != nil {
			if err := tx.emit(&pb.Event{Body: &pb.Event_RequestAnswered{RequestAnswered: &pb.RequestAnswered{}}}, nil); err != nil {
				return err
			}
		}
		receipt, err := tx.w.receipt(&tx.caller, c, resp)
		if err != nil {
			return err
		}
		tx.pending.Receipt = receipt
	}
	tx.settle()
	if tx.failed == nil && tx.wrote && tx.emitted == 0 {
		return errors.New("commands: a payload was stored without an event")
	}
	return tx.failed
}

// append writes one event into the group: leaf, log record, views.
func (w *writer) append(ev *pb.Event, label *kt.Label) error {
	raw, err := marshalEvent.MarshalAppend(w.raw[:0], ev)
	if err != nil {
		return fmt.Errorf("marshal event: %w", err)
	}
	w.raw = raw
	g := w.group
	w.entry = projections.Entry{Raw: raw, Event: ev, Leaf: w.entry.Leaf[:0]}
	var under kt.Label
	switch ev.GetBody().(type) {
	case nil:
		return errors.New("commands: event without a body")
	case *pb.Event_ServerConfigured, *pb.Event_HeadSealed: // an open leaf: nothing to hide
	case *pb.Event_KeyTransparencyEntry:
		rand.Read(w.entry.Opening[:])
		under = *label
		g.keyEvents++
	default:
		rand.Read(w.entry.Opening[:])
	}
	w.entry.Leaf = projections.AppendLeaf(w.entry.Leaf, ev, raw, w.entry.Opening, under)
	if err := g.note(w, ev); err != nil {
		return err
	}
	w.entry.Index = g.records(w).Append(log.Record{Leaf: w.entry.Leaf, Opening: w.entry.Opening, Event: raw})
	if err := projections.Apply(g.views(w), &w.entry); err != nil {
		return fmt.Errorf("apply own event: %w", err)
	}
	w.clock.decided(ev.GetTimeMs())
	return nil
}

// marshalEvent makes event bytes: the same event gives the same bytes within
// one build, which scenario files rely on; the log keeps and hashes what was
// made once and never makes it again.
var marshalEvent = proto.MarshalOptions{Deterministic: true}
