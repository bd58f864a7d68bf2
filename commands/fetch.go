package commands

import (
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// fetchable is what FetchRequest and FetchWaitRequest have in common.
type fetchable interface {
	GetMaxItems() uint32
}

// Both forms are told apart by the presence of after_seq.
func afterSeq(req fetchable) *uint64 {
	switch r := req.(type) {
	case *pb.FetchRequest:
		return r.AfterSeq
	case *pb.FetchWaitRequest:
		return r.AfterSeq
	}
	return nil
}

// lookAt reads a queue as Fetch does, and changes nothing.
func lookAt(view projections.Reader, caller *Caller, now uint64, req fetchable) (*window, error) {
	return reading{device: caller.DeviceKey, now: now, maxItems: pageItems(req.GetMaxItems())}.window(view, req)
}

// tryAt is lookAt for whoever hands nothing out that changes something: such a
// window comes without its page.
func tryAt(v *View, req fetchable) (*window, error) {
	return reading{device: v.Caller.DeviceKey, now: v.Now, maxItems: pageItems(req.GetMaxItems()), tentative: true}.window(v.Reader, req)
}

func (r reading) window(view projections.Reader, req fetchable) (*window, error) {
	if after := afterSeq(req); after != nil {
		return r.following(view, *after)
	}
	return r.draining(view)
}

// pageItems is a wish for at most so many items as an int.
func pageItems(wish uint32) int { return int(min(wish, MaxPageItems)) }

// decideFetch reads a queue and decides what that changes: nothing, when nothing
// is confirmed or drained.
func decideFetch(tx *Tx, req fetchable) (*window, error) {
	caller := tx.Caller()
	w, err := lookAt(tx.View(), caller, tx.Now(), req)
	if err != nil {
		return nil, err
	}
	device := append([]byte(nil), caller.DeviceKey[:]...)
	switch {
	case w.confirm > 0:
		err = tx.Emit(&pb.Event{Body: &pb.Event_MessagesConfirmed{MessagesConfirmed: &pb.MessagesConfirmed{
			DeviceKey: device, UpTo: w.confirm,
		}}})
	case w.drain > 0:
		err = tx.Emit(&pb.Event{Body: &pb.Event_MessagesDrained{MessagesDrained: &pb.MessagesDrained{
			DeviceKey: device, UpTo: w.drain,
		}}})
	}
	return w, err
}

// Fetch decides a read of the caller's queue. Without after_seq it hands out
// what lies beyond the cursor and moves it; with after_seq it removes what is
// confirmed and hands out what follows. The envelopes come without payloads:
// FillPayloads adds them when the decision is durable. Refusal: BadRequest
// ACK_BEYOND_TAIL.
func Fetch(tx *Tx, req *pb.FetchRequest) (*pb.FetchResponse, error) {
	w, err := decideFetch(tx, req)
	if err != nil {
		return nil, err
	}
	return &pb.FetchResponse{Envelopes: w.envelopes(), More: w.more, Gap: w.gap}, nil
}

// FetchWait decides as Fetch; the waiting is done outside the writer, by whoever
// calls again when something was published for the device.
func FetchWait(tx *Tx, req *pb.FetchWaitRequest) (*pb.FetchWaitResponse, error) {
	w, err := decideFetch(tx, req)
	if err != nil {
		return nil, err
	}
	return &pb.FetchWaitResponse{Envelopes: w.envelopes(), More: w.more, Gap: w.gap}, nil
}

// ReadFetch answers a Fetch from the published view when it changes nothing: an
// idle poll, or a page that is read again. ok is false when a command must decide
// it. The envelopes come without payloads, as those of Fetch. Refusal: BadRequest
// ACK_BEYOND_TAIL.
func ReadFetch(v *View, req *pb.FetchRequest) (response *pb.FetchResponse, ok bool, err error) {
	w, err := tryAt(v, req)
	if err != nil || w.changes() {
		return nil, false, err
	}
	return &pb.FetchResponse{Envelopes: w.envelopes(), More: w.more, Gap: w.gap}, true, nil
}

// ReadFetchWait answers a FetchWait from the published view as ReadFetch does.
// An answer with neither envelopes nor a gap means: wait.
func ReadFetchWait(v *View, req *pb.FetchWaitRequest) (response *pb.FetchWaitResponse, ok bool, err error) {
	w, err := tryAt(v, req)
	if err != nil || w.changes() {
		return nil, false, err
	}
	return &pb.FetchWaitResponse{Envelopes: w.envelopes(), More: w.more, Gap: w.gap}, true, nil
}

// NewFetch makes the command of a Fetch that ReadFetch can't answer.
func NewFetch(rule *pb.Rule, req *pb.FetchRequest) (*Command, error) {
	return NewCommand(rule, req, func(tx *Tx) (*pb.FetchResponse, error) { return Fetch(tx, req) })
}

// NewFetchWait makes the command of a FetchWait that ReadFetchWait can't answer.
func NewFetchWait(rule *pb.Rule, req *pb.FetchWaitRequest) (*Command, error) {
	return NewCommand(rule, req, func(tx *Tx) (*pb.FetchWaitResponse, error) { return FetchWait(tx, req) })
}
