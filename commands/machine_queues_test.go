package commands_test

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// deviceQueue is a queue with what housekeeping keeps in mind about it.
type deviceQueue struct {
	queueModel
	owner string // username
	// look is the minute, plus one, in which housekeeping looks for expired items
	// next; 0 = never. A message moves it only to an earlier one.
	look uint64
	// drains are the hours in which items were handed out by draining, while some
	// of these items are still kept.
	drains []drainedHour
}

type drainedHour struct{ hour, upTo uint64 }

// minuteAfter is the first minute, plus one, that begins when a time is over.
func minuteAfter(ms uint64) uint64 { return (ms+aMinute-1)/aMinute + 1 }

func (q *deviceQueue) add(message *modelMessage) {
	q.put(message)
	if minute := minuteAfter(message.expires); q.look == 0 || minute < q.look {
		q.look = minute
	}
}

// drained counts the items that a draining Fetch handed out and that are kept.
func (q *deviceQueue) drained() (n int) {
	for _, it := range q.items {
		if it.seq <= q.cursor {
			n++
		}
	}
	return n
}

// trim forgets hours whose items are all gone.
func (q *deviceQueue) trim() {
	q.drains = slices.DeleteFunc(q.drains, func(d drainedHour) bool {
		return q.drained() == 0 || d.upTo < q.items[0].seq
	})
}

func (q *deviceQueue) release(upTo uint64) {
	q.remove(func(it modelItem) bool { return it.seq <= upTo })
	q.trim()
}

// room tells why a queue does not take one more message, or up to which position
// drained items, oldest first and at most 256, have to give way to it.
func (q *deviceQueue) room(sender string, size int) (why pb.Reason, giveWay uint64) {
	judge := func(items []modelItem) pb.Reason {
		bytes, count, own := size, 1, size
		for _, it := range items {
			bytes += len(it.payload)
			if it.sender == sender {
				count, own = count+1, own+len(it.payload)
			}
		}
		switch {
		case len(items)+1 > 10_000 || bytes > 64<<20:
			return pb.Reason_QUEUE_FULL
		case count > 1_000 || own > 64<<20/10:
			return pb.Reason_SENDER_QUOTA
		}
		return 0
	}
	why = judge(q.items)
	if why == 0 {
		return 0, 0
	}
	for i := 0; i < min(len(q.items), 256) && q.items[i].seq <= q.cursor; i++ {
		if judge(q.items[i+1:]) == 0 {
			return 0, q.items[i].seq
		}
	}
	return why, 0
}

// envelope is what Enqueue and an item of a batch have in common, and the rest
// of their call.
type envelope struct {
	sender            string
	recipient, device []byte // one of them
	payload           []byte
	ttl               uint32
	now               uint64
	// barren are queues in which an earlier message of the call found nothing that
	// could give way: the call does not look again.
	barren map[projections.Key]bool
	// channel is the one that the message names.
	channel *modelChannel
}

func (m *serverModel) devices(e *envelope) []projections.Key {
	for name, a := range m.accounts {
		switch {
		case len(e.recipient) > 0 && m.person(e.recipient) == name:
			return m.reachable(name, e.now)
		case len(e.device) > 0 && slices.Contains(a.devices, projections.Key(e.device)) && !m.banned(name, e.now):
			return []projections.Key{projections.Key(e.device)}
		}
	}
	return nil
}

// reachable are the devices of a person that messages go to.
func (m *serverModel) reachable(name string, now uint64) []projections.Key {
	if m.banned(name, now) {
		return nil
	}
	return m.accounts[name].devices
}

// control is the server's own word to devices of a person.
func (m *serverModel) control(name string, devices []projections.Key, item *pb.ControlItem, now uint64) {
	if len(devices) == 0 {
		return
	}
	m.events++
	payload, _ := proto.MarshalOptions{Deterministic: true}.Marshal(item)
	message := &modelMessage{payload: string(payload), owner: name, control: item, enqueued: now, expires: expiry(now, 0)}
	for _, device := range devices {
		m.queues[device].add(message)
	}
}

// deliver puts one message into the queues that have room.
func (m *serverModel) deliver(e *envelope) (*modelMessage, prediction) {
	devices := m.devices(e)
	if len(devices) == 0 {
		return nil, refused(pb.Status_NotFound, pb.Reason_NO_DEVICE)
	}
	message := &modelMessage{
		sender: e.sender, payload: string(e.payload), enqueued: e.now, expires: expiry(e.now, e.ttl), channel: e.channel,
	}
	for name, a := range m.accounts {
		if slices.Contains(a.devices, devices[0]) {
			message.owner = name
		}
	}
	into, past, why := m.split(devices, message, e.barren)
	if len(into) == 0 {
		return nil, refused(pb.Status_RateLimited, why)
	}
	for _, q := range into {
		q.add(message)
	}
	for _, q := range past {
		q.lost, q.lostUpTo, q.next = q.lost+1, q.next, q.next+1
	}
	m.events++
	return message, prediction{}
}

// split makes room for a message and tells the queues that have some from those
// that have none; why is QUEUE_FULL only if all are full by themselves.
func (m *serverModel) split(devices []projections.Key, message *modelMessage, barren map[projections.Key]bool) (into, past []*deviceQueue, why pb.Reason) {
	why = pb.Reason_QUEUE_FULL
	size := len(message.payload)
	for _, device := range devices {
		q := m.queues[device]
		reason, giveWay := pb.Reason(0), uint64(0)
		if m.quotas {
			reason, giveWay = q.room(message.sender, size)
		}
		if giveWay > 0 && barren[device] {
			reason, _ = (&deviceQueue{queueModel: queueModel{items: q.items}}).room(message.sender, size)
			giveWay = 0
		}
		switch {
		case reason != 0:
			if q.drained() > 0 {
				barren[device] = true
			}
			if past = append(past, q); reason != pb.Reason_QUEUE_FULL {
				why = reason
			}
			continue
		case giveWay > 0:
			q.release(giveWay)
			m.events++
		}
		into = append(into, q)
	}
	return into, past, why
}

// enqueue is Enqueue. With a channel, both must have joined it.
func (m *serverModel) enqueue(req *pb.EnqueueRequest, s *modelSession, now uint64) prediction {
	e := &envelope{
		s.account, req.GetRecipientKey(), req.GetRecipientDevice(), req.GetPayload(), req.GetTtlS(), now, map[projections.Key]bool{}, nil,
	}
	if len(req.GetChannelId()) > 0 {
		c, me, p := m.seat(req.GetChannelId(), s)
		if p.status != pb.Status_Ok {
			return p
		}
		joined := false
		for name, member := range c.members {
			a := m.accounts[name]
			joined = joined || member.joined && (len(e.recipient) > 0 && m.everBy(e.recipient) == name || len(e.device) > 0 && slices.Contains(a.devices, projections.Key(e.device)))
		}
		if !me.joined || !joined {
			return forbidden(pb.Reason_NOT_JOINED)
		}
		e.channel = c
	}
	message, refusal := m.deliver(e)
	if message == nil {
		return refusal
	}
	answer := &pb.EnqueueResponse{ServerTimeMs: now}
	return prediction{answer: answer, learn: func(got proto.Message) {
		message.id = projections.ID(got.(*pb.EnqueueResponse).GetMessageId())
		answer.MessageId = message.id[:]
	}}
}

// batch judges each item after those before it. An atomic one is tried first.
func (m *serverModel) batch(req *pb.BatchEnqueueRequest, s *modelSession, now uint64) prediction {
	if req.GetAtomic() {
		for _, p := range m.clone().deliverAll(req, s, now) {
			if p.status != pb.Status_Ok {
				return refused(p.status, p.reason)
			}
		}
	}
	items := m.deliverAll(req, s, now)
	answer := &pb.BatchEnqueueResponse{ServerTimeMs: now}
	for _, p := range items {
		answer.Results = append(answer.Results, &pb.BatchEnqueueResponse_Result{Status: p.status, Reason: p.reason})
	}
	return prediction{answer: answer, learn: func(got proto.Message) {
		for i, result := range got.(*pb.BatchEnqueueResponse).GetResults() {
			if i < len(items) && items[i].message != nil && len(result.GetMessageId()) > 0 {
				items[i].message.id = projections.ID(result.GetMessageId())
				answer.Results[i].MessageId = items[i].message.id[:]
			}
		}
	}}
}

type delivered struct {
	prediction
	message *modelMessage
}

func (m *serverModel) deliverAll(req *pb.BatchEnqueueRequest, s *modelSession, now uint64) (all []delivered) {
	barren := map[projections.Key]bool{}
	for _, it := range req.GetItems() {
		if len(it.GetPayload()) == 0 {
			all = append(all, delivered{prediction: badRequest(pb.Reason_MISSING_FIELD)})
			continue
		}
		message, p := m.deliver(&envelope{
			s.account, it.GetRecipientKey(), it.GetRecipientDevice(), it.GetPayload(), it.GetTtlS(), now, barren, nil,
		})
		all = append(all, delivered{p, message})
	}
	return all
}

func (p *modelPage) answer(ok bool, answer proto.Message) prediction {
	if !ok {
		return badRequest(pb.Reason_ACK_BEYOND_TAIL)
	}
	return prediction{answer: answer}
}

// read is Fetch and FetchWait.
func (m *serverModel) read(s *modelSession, after *uint64, limit uint32, now uint64) (modelPage, bool) {
	q := m.queues[s.device]
	if after != nil {
		items, lost := len(q.items), q.lost
		p, ok := q.follow(*after, now, int(limit))
		if len(q.items) < items || q.lost < lost {
			q.trim()
			m.events++
		}
		return p, ok
	}
	drained := q.drained()
	p := q.drain(now, int(limit))
	if p.last > 0 {
		m.events++
	}
	if hour := now / anHour; q.drained() > drained {
		q.drains = slices.DeleteFunc(q.drains, func(d drainedHour) bool { return d.hour == hour })
		q.drains = append(q.drains, drainedHour{hour, q.cursor})
	}
	return p, true
}

func (m *serverModel) peek(req *pb.PeekRequest, s *modelSession, now uint64) prediction {
	q, from := m.queues[s.device], req.GetFromSeq()
	if !req.GetIncludeDrained() {
		from = max(from, q.cursor+1)
	}
	p := q.page(from, now, int(req.GetMaxItems()), req.GetIncludeDrained())
	return prediction{answer: &pb.PeekResponse{Envelopes: p.envelopes, More: p.more, Gap: p.gap}}
}

func (m *serverModel) ack(req *pb.AckRequest, s *modelSession) prediction {
	q, listed := m.queues[s.device], map[uint64]bool{}
	switch {
	case len(req.GetSeqs()) == 0 && req.GetUpTo() == 0:
		return badRequest(pb.Reason_MISSING_FIELD)
	case slices.Contains(req.GetSeqs(), 0):
		return badRequest(pb.Reason_INVALID_FIELD)
	}
	if len(req.GetSeqs()) > 0 && slices.Max(req.GetSeqs()) > q.tail() || req.GetUpTo() > q.tail() {
		return badRequest(pb.Reason_ACK_BEYOND_TAIL)
	}
	answer := &pb.AckResponse{}
	for _, seq := range req.GetSeqs() {
		if !slices.ContainsFunc(q.items, func(it modelItem) bool { return it.seq == seq }) || listed[seq] {
			answer.AlreadyGone++
		}
		listed[seq] = true
	}
	gone := q.remove(func(it modelItem) bool { return it.seq <= req.GetUpTo() || listed[it.seq] })
	answer.Acked = uint32(len(gone))
	if endsGap := q.lost > 0 && q.lostUpTo <= req.GetUpTo(); len(gone) > 0 || endsGap {
		if req.GetUpTo() > 0 {
			q.confirm(req.GetUpTo())
		}
		q.trim()
		m.events++
	}
	return prediction{answer: answer}
}

// housekeeping is what the server does by itself every ten seconds. Each kind of
// change is an event of its own.
func (m *serverModel) housekeeping(now uint64) {
	for _, q := range m.queues {
		if q.look != 0 && q.look-1 <= now/aMinute {
			m.events++
			q.expireDue(now)
		}
	}
	for _, q := range m.queues {
		// Whole hours count, so that nothing goes before its day is over.
		over := func(d drainedHour) bool { return (d.hour+1)*anHour+aDay <= now }
		if len(q.drains) > 0 && over(q.drains[0]) {
			m.events++
			last := q.drains[0]
			for _, d := range q.drains {
				if over(d) {
					last = d
				}
			}
			q.release(last.upTo)
		}
	}
	sessions := len(m.sessions)
	m.sessions = slices.DeleteFunc(m.sessions, func(s *modelSession) bool { return s.over(now) })
	if len(m.sessions) < sessions {
		m.events++
	}
	const step = 10 * aMinute
	receipts := len(m.receipts)
	for name := range m.receipts {
		if requestTime(name.id) < (now-aDay)/step*step {
			delete(m.receipts, name)
		}
	}
	if len(m.receipts) < receipts {
		m.events++
	}
	m.keepPackages(now)
	m.keepBans(now)
	m.keepReports(now)
}

// expireDue removes what expired and looks when to come again.
func (q *deviceQueue) expireDue(now uint64) {
	var seqs []uint64
	q.look = 0
	for _, it := range q.items {
		if it.expires <= now {
			seqs = append(seqs, it.seq)
		} else if minute := minuteAfter(it.expires); q.look == 0 || minute < q.look {
			q.look = minute
		}
	}
	q.expire(seqs)
	q.trim()
}
