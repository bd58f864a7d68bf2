package commands

import (
	"fmt"
	"slices"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// Ack decides the removal of items of the caller's queue: single positions, a
// prefix, or both; a prefix also ends a gap in it, as a confirmation does.
// Positions that hold nothing any more are counted and no error; when nothing at
// all is left to remove, nothing is decided. Refusals, all
// BadRequest: MISSING_FIELD without any position, TOO_MANY_ITEMS, INVALID_FIELD
// for position 0, ACK_BEYOND_TAIL for one that was never assigned.
func Ack(tx *Tx, req *pb.AckRequest) (*pb.AckResponse, error) {
	if err := checkAck(req); err != nil {
		return nil, err
	}
	device := tx.Caller().DeviceKey
	state, found, err := projections.Queue(tx.View(), device)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("commands: a device session without a queue")
	}
	if req.GetUpTo() > state.Tail() {
		return nil, beyondTail("up_to", req.GetUpTo())
	}
	seqs := slices.Sorted(slices.Values(req.GetSeqs()))
	if n := len(seqs); n > 0 && seqs[n-1] > state.Tail() {
		return nil, beyondTail("seqs:", seqs[n-1])
	}
	a := acknowledgement{view: tx.View(), device: device, state: state, upTo: req.GetUpTo()}
	if err := a.collect(slices.Compact(seqs)); err != nil {
		return nil, err
	}
	// A position that is listed twice is gone the second time.
	response := &pb.AckResponse{
		Acked:       uint32(a.prefix) + uint32(len(a.single)),
		AlreadyGone: uint32(len(req.GetSeqs()) - a.found),
	}
	endsGap := state.GapCount > 0 && state.GapUpTo <= a.upTo
	if response.GetAcked() == 0 && !endsGap {
		return response, nil
	}
	err = tx.Emit(&pb.Event{Body: &pb.Event_MessagesAcked{MessagesAcked: &pb.MessagesAcked{
		DeviceKey: device[:], Seqs: a.single, UpTo: a.upTo,
	}}})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func checkAck(req *pb.AckRequest) error {
	switch n := len(req.GetSeqs()); {
	case n == 0 && req.GetUpTo() == 0:
		return missing("seqs or up_to")
	case n > MaxAckSeqs:
		return tooMany("seqs", n, MaxAckSeqs)
	case slices.Contains(req.GetSeqs(), 0):
		return invalid("seqs: positions begin at 1")
	}
	return nil
}

// acknowledgement finds out what an Ack removes.
type acknowledgement struct {
	view   projections.Reader
	device projections.Key
	state  projections.QueueState
	upTo   uint64

	prefix int      // items that up_to removes
	single []uint64 // positions beyond up_to that hold an item
	found  int      // listed positions that hold an item, wherever
}

// collect looks the sorted positions up, and counts the prefix.
func (a *acknowledgement) collect(seqs []uint64) error {
	for _, seq := range seqs {
		_, found, err := projections.QueueItemAt(a.view, a.device, seq)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		a.found++
		if seq > a.upTo {
			a.single = append(a.single, seq)
		}
	}
	return a.countPrefix()
}

// countPrefix counts the items up to upTo.
func (a *acknowledgement) countPrefix() error {
	if a.upTo >= a.state.Tail() {
		a.prefix = int(a.state.Count)
		return nil
	}
	for from, more := a.state.Head, true; more && from <= a.upTo; {
		var items []projections.QueueItem
		var err error
		items, more, err = projections.QueueItems(a.view, a.device, from, MaxAckSeqs, noLimit)
		if err != nil {
			return err
		}
		for _, item := range items {
			if item.Seq > a.upTo {
				return nil
			}
			a.prefix++
			from = item.Seq + 1
		}
	}
	return nil
}

// NewAck makes the command of an Ack.
func NewAck(rule *pb.Rule, req *pb.AckRequest) (*Command, error) {
	return NewCommand(rule, req, func(tx *Tx) (*pb.AckResponse, error) { return Ack(tx, req) })
}
