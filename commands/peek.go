package commands

import (
	pb "quicprochat/proto/qpcv1"
)

// Peek reads a page of the caller's queue from the published view and changes
// nothing. from_seq 0 begins at the first live item; items that a draining Fetch
// handed out are left out unless include_drained. The envelopes come without
// payloads: FillPayloads adds them.
func Peek(v *View, req *pb.PeekRequest) (*pb.PeekResponse, error) {
	r := reading{device: v.Caller.DeviceKey, now: v.Now, maxItems: pageItems(req.GetMaxItems())}
	state, err := r.queue(v.Reader)
	if err != nil {
		return nil, err
	}
	from := req.GetFromSeq()
	if !req.GetIncludeDrained() {
		from = max(from, state.Cursor+1)
	}
	w, _, err := r.page(v.Reader, state, from, req.GetIncludeDrained())
	if err != nil {
		return nil, err
	}
	return &pb.PeekResponse{Envelopes: w.envelopes(), More: w.more, Gap: w.gap}, nil
}
