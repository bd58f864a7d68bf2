package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// payload makes bytes that nobody sent before. Most are short; some do not fit
// into one packet.
func (p *Person) payload() []byte {
	p.sends++
	text := fmt.Appendf(nil, "%s (%x) sends %d in world %d;", p.name, p.device.Seed()[:2], p.sends, p.world.Seed)
	size := p.rng.IntN(300)
	if p.rng.IntN(12) == 0 {
		size = p.rng.IntN(30_000)
	}
	for range size {
		text = append(text, byte('a'+p.rng.IntN(26)))
	}
	return text
}

// ttl is mostly the longest, at times so short that housekeeping is needed.
func (p *Person) ttl() uint32 {
	if p.rng.IntN(6) == 0 {
		return uint32(1 + p.rng.IntN(20))
	}
	return 0
}

func (p *Person) newSent(to Key, payload []byte) *Sent {
	s := &Sent{span: begin(), By: p.who(), To: to, Hash: hashOf(payload)}
	p.world.History.addSent(s)
	return s
}

// send puts one message into somebody's queue.
func (p *Person) send(ctx context.Context) { p.sendOne(ctx, p.other()) }

func (p *Person) sendOne(ctx context.Context, to *Person) {
	req := &pb.EnqueueRequest{Payload: p.payload(), TtlS: p.ttl()}
	device := to.DeviceKey()
	if p.rng.IntN(2) == 0 {
		req.Recipient = &pb.EnqueueRequest_RecipientKey{RecipientKey: slice(to.IdentityKey())}
	} else {
		device = to.someDevice(p.rng)
		req.Recipient = &pb.EnqueueRequest_RecipientDevice{RecipientDevice: slice(device)}
	}
	s := p.newSent(device, req.Payload)
	resp := new(pb.EnqueueResponse)
	outcome := p.insist(ctx, req, resp)
	s.finish()
	if s.Outcome = outcome; outcome == Done {
		s.Message = ID(resp.MessageId)
		p.repeat(ctx, req, resp)
	}
}

// insist makes a call and, at times, asks again under the same request_id for an
// outcome that it was not told. At times it chooses that id.
func (p *Person) insist(ctx context.Context, req, resp proto.Message) Outcome {
	s := begin()
	outcome := p.ask(ctx, req, resp)
	if s.finish(); outcome == Done {
		p.accepted(s, string(req.ProtoReflect().Descriptor().Name()))
	}
	return outcome
}

func (p *Person) ask(ctx context.Context, req, resp proto.Message) Outcome {
	p.told = nil
	if p.rng.IntN(6) == 0 {
		setRequestID(req, p.newRequestID())
	}
	err := p.client.Call(ctx, req, resp)
	var unknown *client.OutcomeError
	for tries := p.rng.IntN(4); tries > 0 && errors.As(err, &unknown); tries-- {
		if unknown.RequestID != nil {
			setRequestID(req, unknown.RequestID)
		}
		if requestID(req) == nil || !p.pause(ctx) || p.rng.IntN(3) == 0 && !p.rest(ctx, 25*time.Second) {
			break
		}
		if err = p.client.Call(ctx, req, resp); err == nil {
			return Done
		}
		// A refusal without a receipt to look at leaves the outcome open.
		if outcomeOf(err) == Refused && !settles(err) {
			p.note(err)
			return Unknown
		}
	}
	p.note(err)
	p.told = err
	return outcomeOf(err)
}

// repeat makes a call again that was answered, as somebody does who forgot the
// answer. It must be answered as before, and have no effect.
func (p *Person) repeat(ctx context.Context, req, resp proto.Message) {
	if requestID(req) == nil || !performed(resp) || !p.pause(ctx) || p.rng.IntN(12) == 0 && !p.rest(ctx, 15*time.Second) {
		return
	}
	again := resp.ProtoReflect().New().Interface()
	s := begin()
	err := p.client.Call(ctx, req, again)
	s.finish()
	if p.note(err); err == nil {
		p.accepted(s, "repeated call")
	}
	if err == nil && !sameAnswer(resp, again) || outcomeOf(err) == Refused && settles(err) {
		p.world.History.Wrong(fmt.Sprintf("%s: a repeated request was answered with %v (%v), before that with %v", p.name, again, err, resp))
	}
}

// sameAnswer tells whether a repeated call was answered as before.
func sameAnswer(before, again proto.Message) bool {
	if before, ok := before.(*pb.FetchKeyPackageResponse); ok {
		return samePackages(before, again.(*pb.FetchKeyPackageResponse))
	}
	return proto.Equal(before, again)
}

// performed tells whether a response is that of a call that changed something:
// such a one leaves a receipt.
func performed(resp proto.Message) bool {
	switch r := resp.(type) {
	case *pb.BatchEnqueueResponse:
		return r.ChannelSeq > 0 || slices.ContainsFunc(r.Results, func(r *pb.BatchEnqueueResponse_Result) bool { return r.Status == pb.Status_Ok })
	case *pb.AckResponse:
		return r.Acked > 0
	case *pb.AddMemberResponse:
		return r.Added > 0
	case *pb.UploadKeyPackageResponse:
		return r.Stored > 0
	case *pb.FetchKeyPackageResponse:
		return len(r.Packages) > 0
	}
	return true
}

// newRequestID is a UUIDv7 of now.
func (p *Person) newRequestID() []byte {
	id := binary.BigEndian.AppendUint64(nil, nowMS()<<16|0x7000|p.rng.Uint64()&0x0fff)
	return binary.BigEndian.AppendUint64(id, 1<<63|p.rng.Uint64()>>2)
}

// settles tells whether a refusal was decided behind the check for a receipt, so
// that earlier sends of the request had no effect.
func settles(err error) bool {
	status, ok := statusOf(err)
	return ok && status.Reason != pb.Reason_REQUEST_ID_TIME &&
		(status.Status == pb.Status_BadRequest || status.Status == pb.Status_NotFound)
}

func statusOf(err error) (status *client.StatusError, ok bool) {
	ok = errors.As(err, &status)
	return status, ok
}

func requestID(req proto.Message) []byte {
	return req.(interface{ GetRequestId() []byte }).GetRequestId()
}

func setRequestID(req proto.Message, id []byte) {
	m := req.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByName("request_id"), protoreflect.ValueOfBytes(id))
}

// sendBatch sends several messages in one decision.
func (p *Person) sendBatch(ctx context.Context) {
	req := &pb.BatchEnqueueRequest{Atomic: p.rng.IntN(2) == 0}
	var sent []*Sent
	for range 1 + p.rng.IntN(6) {
		to := p.other()
		item := &pb.BatchEnqueueRequest_Item{
			Recipient: &pb.BatchEnqueueRequest_Item_RecipientKey{RecipientKey: slice(to.IdentityKey())},
			Payload:   p.payload(), TtlS: p.ttl(),
		}
		req.Items = append(req.Items, item)
		sent = append(sent, p.newSent(to.DeviceKey(), item.Payload))
	}
	resp := new(pb.BatchEnqueueResponse)
	outcome := p.insist(ctx, req, resp)
	for i, s := range sent {
		s.finish()
		s.Outcome = outcome
		if outcome != Done {
			continue
		}
		if r := resp.Results[i]; r.Status == pb.Status_Ok {
			s.Message = ID(r.MessageId)
		} else {
			s.Outcome = Refused
		}
	}
	if outcome == Done {
		p.repeat(ctx, req, resp)
	}
}

// read records a page and the calls that led to it.
func (p *Person) read(r *Read, err error, envelopes []*pb.Envelope) {
	r.finish()
	r.Outcome = outcomeOf(err)
	p.note(err)
	if client.ReasonOf(err) == pb.Reason_ACK_BEYOND_TAIL {
		p.world.History.Wrong(fmt.Sprintf("%s: item %d was handed out and lies beyond the tail now", p.name, r.After))
	}
	if err == nil {
		p.accepted(r.span, "read")
	}
	for _, e := range envelopes {
		if e.Control == nil {
			p.received = e
		}
		s := Seen{Seq: e.Seq, Message: ID(e.MessageId), Hash: hashOf(e.Payload), Control: e.Control != nil}
		copy(s.Post.Channel[:], e.ChannelId)
		s.Post.Seq, s.Post.Welcome = e.ChannelSeq, e.Welcome
		r.Seen = append(r.Seen, s)
	}
	if err == nil && len(envelopes) > 0 && r.Confirm {
		p.confirmed = envelopes[p.rng.IntN(len(envelopes))].Seq // of what was read, some is processed
	}
	p.world.History.addRead(r)
}

func (p *Person) newRead() *Read { return &Read{span: begin(), Device: p.DeviceKey()} }

func (p *Person) pageSize() uint32 { return uint32(p.rng.IntN(5)) }

// confirm reads on from what was processed, as the SDK does.
func (p *Person) confirm(ctx context.Context) {
	r := p.newRead()
	r.Confirm, r.After = true, p.confirmed
	resp, err := p.client.Fetch(ctx, &pb.FetchRequest{AfterSeq: &r.After, MaxItems: p.pageSize()})
	p.read(r, err, resp.GetEnvelopes())
}

// wait does the same, and waits for something to come.
func (p *Person) wait(ctx context.Context) {
	r := p.newRead()
	r.Confirm, r.After = true, p.confirmed
	resp, err := p.client.FetchWait(ctx, &pb.FetchWaitRequest{
		AfterSeq: &r.After, MaxItems: p.pageSize(), TimeoutMs: uint32(1 + p.rng.IntN(4000)),
	})
	p.read(r, err, resp.GetEnvelopes())
}

// drain takes what lies beyond the cursor.
func (p *Person) drain(ctx context.Context) {
	r := p.newRead()
	r.Drain, r.SkipsDrained = true, true
	resp, err := p.client.Fetch(ctx, &pb.FetchRequest{MaxItems: p.pageSize()})
	p.read(r, err, resp.GetEnvelopes())
}

// peek looks and changes nothing.
func (p *Person) peek(ctx context.Context) {
	r := p.newRead()
	req := &pb.PeekRequest{IncludeDrained: p.rng.IntN(2) == 0, MaxItems: p.pageSize()}
	if p.confirmed > 0 && p.rng.IntN(2) == 0 {
		req.FromSeq = p.confirmed
		r.After = req.FromSeq - 1
	}
	resp, err := p.client.Peek(ctx, req)
	r.SkipsDrained = !req.IncludeDrained
	p.read(r, err, resp.GetEnvelopes())
}

// ack removes some of what a look at the queue shows.
func (p *Person) ack(ctx context.Context) {
	r := p.newRead()
	page, err := p.client.Peek(ctx, &pb.PeekRequest{IncludeDrained: true})
	p.read(r, err, page.GetEnvelopes())
	if err != nil || len(page.Envelopes) == 0 {
		return
	}
	a := &Acked{span: begin(), Device: p.DeviceKey()}
	p.world.History.addAck(a)
	req := &pb.AckRequest{}
	for _, e := range page.Envelopes {
		if p.rng.IntN(3) == 0 {
			a.Seqs = append(a.Seqs, e.Seq)
		}
	}
	if len(a.Seqs) == 0 || p.rng.IntN(4) == 0 {
		a.UpTo = page.Envelopes[p.rng.IntN(len(page.Envelopes))].Seq
	}
	req.Seqs, req.UpTo = a.Seqs, a.UpTo
	resp := new(pb.AckResponse)
	outcome := p.insist(ctx, req, resp)
	a.finish()
	if a.Outcome = outcome; outcome == Done {
		p.repeat(ctx, req, resp)
	}
}

// collect reads and confirms until nothing is left. The world is calm by then.
func (p *Person) collect(ctx context.Context) error {
	after := uint64(0)
	for {
		r := p.newRead()
		r.Confirm, r.After = true, after
		resp, err := p.client.Fetch(ctx, &pb.FetchRequest{AfterSeq: &r.After})
		p.read(r, err, resp.GetEnvelopes())
		if err != nil {
			return err
		}
		if gap := resp.GetGap(); gap != nil {
			after = max(after, gap.UpToSeq)
		}
		if n := len(resp.Envelopes); n > 0 {
			after = max(after, resp.Envelopes[n-1].Seq)
		} else if resp.GetGap() == nil {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}
