package commands

import (
	"fmt"
	"slices"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// delivery places the messages of one call. All are placed before the first is
// emitted: a call that is refused has emitted nothing, and the messages of a
// batch see the positions and the quotas that those before them took.
type delivery struct {
	tx *Tx
	// single is the memory of a call with one message; nil: of several.
	single *single
	// The caches stay nil for a single message, which meets no queue twice.
	recipients map[recipientName]*recipient
	rooms      map[projections.Key]*room
}

// recipient is who a message goes to, with the queues of the active devices.
type recipient struct {
	account projections.ID
	queues  []*room

	// Most people have one device, which takes no memory of its own.
	device [1]projections.Key
	first  room
	slot   [1]*room
}

// placed is a message with its positions, ready to be emitted.
type placed struct {
	*outgoing
	account  projections.ID
	targets  []*pb.MessageEnqueued_Target
	skipped  [][]byte
	lost     []*room               // full ones
	released []*pb.DrainedReleased // what gives way to it

	// The first target, as in recipient.
	first pb.MessageEnqueued_Target
	slot  [1]*pb.MessageEnqueued_Target
}

// place takes a position for a message in every queue of its recipient that has
// room. Refusals are those of Enqueue; a message that is refused takes nothing.
func (d *delivery) place(o *outgoing) (*placed, error) {
	to, err := d.recipient(o.to)
	if err != nil {
		return nil, err
	}
	p := d.newPlaced()
	p.outgoing, p.account = o, to.account
	p.targets = p.slot[:0]
	full, err := d.fill(p, to.queues, uint64(len(o.payload)))
	switch {
	case err != nil:
		return nil, err
	case len(to.queues) == 0:
		return nil, errNoDevice
	case len(p.targets) == 0:
		return nil, refuseFull(full == len(to.queues))
	}
	p.lose()
	return p, nil
}

var errNoDevice = Refuse(pb.Status_NotFound, pb.Reason_NO_DEVICE, "the recipient has no active device")

// fill takes a position for a message of size bytes in every queue that has room,
// and tells how many were full by themselves. Nothing is lost yet in the others.
func (d *delivery) fill(p *placed, queues []*room, size uint64) (full int, err error) {
	var more []pb.MessageEnqueued_Target // beside the first, in one piece
	for i, q := range queues {
		verdict, err := q.fit(d.tx, size)
		if err != nil {
			return 0, err
		}
		switch verdict {
		case queueFull:
			full++
			fallthrough
		case senderQuota:
			p.lost = append(p.lost, q)
			continue
		}
		if upTo := q.takeRelease(); upTo > 0 {
			p.released = append(p.released, &pb.DrainedReleased{DeviceKey: q.device[:], UpTo: upTo})
		}
		target := &p.first
		if len(p.targets) > 0 {
			if more == nil {
				more = make([]pb.MessageEnqueued_Target, len(queues)-i)
				p.targets = slices.Grow(p.targets, len(queues)-i)
			}
			target, more = &more[0], more[1:]
		}
		target.DeviceKey, target.Seq = q.device[:], q.take(size)
		p.targets = append(p.targets, target)
	}
	return full, nil
}

// lose plans the gaps of a message that is accepted.
func (p *placed) lose() {
	for _, q := range p.lost {
		q.lose()
		p.skipped = append(p.skipped, q.device[:])
	}
}

// recipient looks a recipient up. Nobody is a recipient without devices: the
// answer does not tell an unknown key from one that has none, or that is banned.
func (d *delivery) recipient(name recipientName) (*recipient, error) {
	if known := d.recipients[name]; known != nil {
		return known, nil
	}
	to := d.newRecipient()
	to.queues = to.slot[:0]
	var devices []projections.Key
	var err error
	if to.account, devices, err = activeDevices(d.tx.View(), d.tx.Now(), name, to.device[:0]); err != nil {
		return nil, err
	}
	for i, device := range devices {
		q := &to.first
		if i > 0 {
			q = new(room)
		}
		if q, err = d.room(device, q); err != nil {
			return nil, err
		}
		to.queues = append(to.queues, q)
	}
	if d.recipients != nil {
		d.recipients[name] = to
	}
	return to, nil
}

// activeDevices appends the devices that a name stands for at now to dst.
func activeDevices(view projections.Reader, now uint64, name recipientName, dst []projections.Key) (projections.ID, []projections.Key, error) {
	account, found, err := recipientAccount(view, name)
	if err != nil || !found {
		return account, nil, err
	}
	if !name.isDevice {
		devices, err := reachableDevices(view, now, account, dst)
		return account, devices, err
	}
	if banned, err := projections.BannedAt(view, account, now); err != nil || banned {
		return account, nil, err
	}
	return account, append(dst, name.key), nil
}

// reachableDevices appends the active devices of an account to dst, none while it is
// banned.
func reachableDevices(view projections.Reader, now uint64, account projections.ID, dst []projections.Key) ([]projections.Key, error) {
	if banned, err := projections.BannedAt(view, account, now); err != nil || banned {
		return dst, err
	}
	devices, _, err := projections.DevicesOf(view, dst, account)
	return devices, err
}

func recipientAccount(view projections.Reader, name recipientName) (account projections.ID, found bool, err error) {
	if name.isDevice {
		device, found, err := projections.DeviceByKey(view, name.key)
		return device.AccountID, found, err
	}
	owner, found, err := projections.KeyOwner(view, name.key)
	// A replaced identity key is revoked.
	return owner.AccountID, found && owner.IsIdentity && !owner.Revoked, err
}

// room is the room of a device: one that this call has met already, or q, filled
// from the view.
func (d *delivery) room(device projections.Key, q *room) (*room, error) {
	if known := d.rooms[device]; known != nil {
		return known, nil
	}
	state, found, err := projections.Queue(d.tx.View(), device)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("commands: an active device without a queue")
	}
	q.device, q.state = device, state
	if d.tx.Quotas() {
		if q.share, err = projections.SenderShare(d.tx.View(), device, d.tx.Caller().Account); err != nil {
			return nil, err
		}
	}
	if d.rooms != nil {
		d.rooms[device] = q
	}
	return q, nil
}

// messageEvent is the event of one message together with what it points to: one
// allocation on the path that is taken most.
type messageEvent struct {
	event        pb.Event
	body         pb.Event_MessageEnqueued
	message      pb.MessageEnqueued
	id, to, from projections.ID
	digest       [32]byte
}

// emit decides a placed message and returns its id, drawn here, which a single
// message's caller must copy. Messages are emitted in the order in which they were
// placed.
func (d *delivery) emit(p *placed) (*projections.ID, error) {
	if err := d.emitReleases(p); err != nil {
		return nil, err
	}
	e := d.newEvent()
	e.id, e.to, e.from, e.digest = d.tx.NewMessageID(), p.account, d.tx.Caller().Account, p.digest
	d.tx.PutPayload(e.to, e.id, p.payload)
	e.event.Body, e.body.MessageEnqueued = &e.body, &e.message
	e.message.MessageId = e.id[:]
	e.message.AccountId = e.to[:]
	e.message.SenderId = e.from[:]
	e.message.Targets = p.targets
	e.message.Skipped = p.skipped
	e.message.PayloadSize = uint32(len(p.payload))
	e.message.PayloadSha256 = e.digest[:]
	e.message.ExpiresMs = d.tx.Now() + p.ttlMS
	e.message.ChannelId = p.channel
	return &e.id, d.tx.Emit(&e.event)
}

// emitReleases emits what gives way to a placed message.
func (d *delivery) emitReleases(p *placed) error {
	for _, release := range p.released {
		if err := d.tx.Emit(&pb.Event{Body: &pb.Event_DrainedReleased{DrainedReleased: release}}); err != nil {
			return err
		}
	}
	return nil
}
