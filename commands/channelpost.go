package commands

import (
	"crypto/sha256"
	"fmt"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// PreparedPost is a BatchEnqueueRequest in its channel form, checked and hashed
// outside the writer. Only PreparePost makes one.
type PreparedPost struct {
	req      *pb.BatchEnqueueRequest
	payload  postPayload
	welcomes []preparedWelcome
}

// postPayload is one payload of a post: its own, or that of a Welcome.
type postPayload struct {
	payload []byte
	digest  [32]byte // SHA-256 of payload
}

type preparedWelcome struct {
	postPayload
	recipients []recipientName
}

// isPost tells the channel form of a BatchEnqueue.
func isPost(req *pb.BatchEnqueueRequest) bool {
	return len(req.GetChannelId()) > 0 || req.ExpectedEpoch != nil || len(req.GetPayload()) > 0 ||
		len(req.GetWelcomes())+len(req.GetAddMembers())+len(req.GetRemoveMembers()) > 0
}

// PreparePost checks a request as far as that needs no view. The payloads must
// not change until the command is done. Refusals, all BadRequest: MISSING_FIELD,
// INVALID_FIELD, KEY_INVALID, TOO_MANY_ITEMS, PAYLOAD_TOO_LARGE.
func PreparePost(req *pb.BatchEnqueueRequest) (*PreparedPost, error) {
	if _, err := channelIDOf(req.GetChannelId()); err != nil {
		return nil, err
	}
	if len(req.GetItems()) > 0 {
		return nil, invalid("items do not go with channel_id: a post has one payload, and Welcomes")
	}
	if ttl := req.GetTtlS(); ttl > longestTTL {
		return nil, invalid("ttl_s is %d, at most %d is allowed", ttl, longestTTL)
	}
	p := &PreparedPost{req: req}
	var err error
	if p.payload, err = newPostPayload("payload", req.GetPayload()); err != nil {
		return nil, err
	}
	total, recipients := len(req.GetPayload()), 0
	for i, w := range req.GetWelcomes() {
		welcome, err := prepareWelcome(i, w)
		if err != nil {
			return nil, err
		}
		total += len(w.GetPayload())
		recipients += len(welcome.recipients)
		p.welcomes = append(p.welcomes, welcome)
	}
	switch {
	case total > MaxBatchBytes:
		return nil, tooLarge("a post with its Welcomes", total, MaxBatchBytes)
	case recipients > MaxChannelMembers:
		return nil, tooMany("recipients of Welcomes", recipients, MaxChannelMembers)
	}
	if err := checkMemberKeys("add_members", req.GetAddMembers(), nil); err != nil {
		return nil, err
	}
	return p, checkMemberKeys("remove_members", req.GetRemoveMembers(), nil)
}

func newPostPayload(field string, payload []byte) (postPayload, error) {
	switch n := len(payload); {
	case n == 0:
		return postPayload{}, missing(field)
	case n > MaxPayload:
		return postPayload{}, tooLarge("a payload", n, MaxPayload)
	}
	return postPayload{payload, sha256.Sum256(payload)}, nil
}

func prepareWelcome(i int, w *pb.Welcome) (p preparedWelcome, err error) {
	if p.postPayload, err = newPostPayload(fmt.Sprintf("welcomes[%d].payload", i), w.GetPayload()); err != nil {
		return p, err
	}
	for _, key := range w.GetRecipientKeys() {
		name := recipientName{}
		if name.key, err = keyOf(fmt.Sprintf("welcomes[%d].recipient_keys", i), key); err != nil {
			return p, err
		}
		p.recipients = append(p.recipients, name)
	}
	for _, key := range w.GetRecipientDevices() {
		name := recipientName{isDevice: true}
		if name.key, err = keyOf(fmt.Sprintf("welcomes[%d].recipient_devices", i), key); err != nil {
			return p, err
		}
		p.recipients = append(p.recipients, name)
	}
	if len(p.recipients) == 0 {
		return p, missing(fmt.Sprintf("welcomes[%d].recipient_keys or recipient_devices", i))
	}
	return p, nil
}

// ttlMS is how long the post waits unread, in milliseconds.
func (p *PreparedPost) ttlMS() uint64 {
	if ttl := p.req.GetTtlS(); ttl > 0 {
		return uint64(ttl) * 1000
	}
	return uint64(longestTTL) * 1000
}

// post is one decision of PostToChannel while it is made.
type post struct {
	seat
	*PreparedPost
	delivery
	added, removed [][]byte // accounts
	// The same as sets: a post may have a thousand of each, and as many Welcomes.
	isAdded, isRemoved map[projections.ID]bool
}

// PostToChannel decides a post with everything that belongs to it, all or nothing:
// the payload for the members of before, the changes of members, and the Welcomes
// for those who are members then. With expected_epoch it is a commit: one is
// accepted per epoch, and no full queue holds it up. Refusals: those of seatOf;
// BadRequest STALE_EPOCH, CHANNEL_FULL; Forbidden CHANNEL_ROLE_TOO_LOW, NOT_JOINED;
// NotFound NO_SUCH_USER, NO_SUCH_MEMBER, NO_DEVICE; without expected_epoch
// RateLimited QUEUE_FULL or SENDER_QUOTA when no device at all can take it.
func PostToChannel(tx *Tx, p *PreparedPost) (*pb.BatchEnqueueResponse, error) {
	d := post{PreparedPost: p, delivery: delivery{tx: tx}}
	var err error
	if d.seat, err = seatOf(tx.View(), p.req.GetChannelId(), tx.Caller()); err != nil {
		return nil, err
	}
	if err := d.mayPost(); err != nil {
		return nil, err
	}
	if err := d.changeMembers(); err != nil {
		return nil, err
	}
	if len(p.welcomes) > 0 { // a device may get the post and a Welcome
		d.rooms = make(map[projections.Key]*room)
	}
	message, err := d.placePost()
	if err != nil {
		return nil, err
	}
	welcomes := make([]*placedPost, len(p.welcomes))
	for i := range p.welcomes {
		if welcomes[i], err = d.placeWelcome(&p.welcomes[i]); err != nil {
			return nil, err
		}
	}
	return d.emitAll(message, welcomes)
}

// mayPost checks the caller's right and the epoch.
func (d *post) mayPost() error {
	c := &d.channel
	expected := d.req.ExpectedEpoch
	switch {
	case expected == nil:
		if c.Settings.Posting == pb.PostingRule_POST_ADMINS {
			return d.require(pb.ChannelRole_CHANNEL_ADMIN)
		}
	case c.Settings.CommitOrder != pb.CommitOrder_COMMITS_ORDERED:
		return invalid("expected_epoch: this channel keeps no epoch")
	case *expected != c.Epoch:
		return &Refusal{
			Status: pb.Status_BadRequest, Reason: pb.Reason_STALE_EPOCH, CurrentEpoch: c.Epoch,
			Message: fmt.Sprintf("the channel's epoch is %d, not %d: process the commit that was faster, and make yours anew", c.Epoch, *expected),
		}
	}
	return nil
}

// changeMembers finds out whom the post adds and removes.
func (d *post) changeMembers() error {
	view := d.tx.View()
	d.isAdded, d.isRemoved = map[projections.ID]bool{}, map[projections.ID]bool{}
	for _, key := range d.req.GetRemoveMembers() {
		m, err := d.memberByKey(view, key)
		if err != nil {
			return err
		}
		if m.Account == d.member.Account {
			return invalid("remove_members names the sender: RemoveMember leaves a channel")
		}
		if err := d.mayRemove(m); err != nil {
			return err
		}
		if !d.isRemoved[m.Account] {
			d.isRemoved[m.Account] = true
			d.removed = append(d.removed, m.Account[:])
		}
	}
	if len(d.req.GetAddMembers()) == 0 {
		return nil
	}
	after := d.seat
	after.channel.Members -= uint32(len(d.removed))
	var err error
	d.added, err = after.invite(d.tx, d.req.GetAddMembers())
	for _, account := range d.added {
		d.isAdded[projections.ID(account)] = true
	}
	return err
}

// placedPost is a payload with its positions.
type placedPost struct {
	*postPayload
	placed
	id projections.ID
}

// placePost takes a position in the queue of every device of every member who
// receives posts, but the sending one.
func (d *post) placePost() (*placedPost, error) {
	accounts, err := d.receivers(d.tx.View())
	if err != nil {
		return nil, err
	}
	queues, err := d.queuesOf(accounts)
	if err != nil {
		return nil, err
	}
	p := &placedPost{postPayload: &d.payload}
	full, err := d.fill(&p.placed, queues, uint64(len(d.payload.payload)))
	if err != nil {
		return nil, err
	}
	if d.req.ExpectedEpoch == nil && len(queues) > 0 && len(p.targets) == 0 {
		return nil, refuseFull(full == len(queues))
	}
	p.lose()
	return p, nil
}

// queuesOf finds the queues of the devices of some accounts, but the sending one's.
func (d *post) queuesOf(accounts []projections.ID) ([]*room, error) {
	view := d.tx.View()
	devices := make([]projections.Key, 0, len(accounts)+len(accounts)/4)
	var err error
	for _, account := range accounts {
		if devices, err = reachableDevices(view, d.tx.Now(), account, devices); err != nil {
			return nil, err
		}
	}
	rooms := make([]room, len(devices))
	queues := make([]*room, 0, len(devices))
	for i, device := range devices {
		if device == d.tx.Caller().DeviceKey {
			continue
		}
		q, err := d.room(device, &rooms[i])
		if err != nil {
			return nil, err
		}
		queues = append(queues, q)
	}
	return queues, nil
}

// placeWelcome takes a position for a Welcome. Its recipients are members, once
// the post is decided.
func (d *post) placeWelcome(w *preparedWelcome) (*placedPost, error) {
	view := d.tx.View()
	p := &placedPost{postPayload: &w.postPayload}
	var queues []*room
	met := make(map[*room]bool, len(w.recipients))
	for _, name := range w.recipients {
		account, devices, err := activeDevices(view, d.tx.Now(), name, nil)
		if err != nil {
			return nil, err
		}
		if err := d.willBeMember(account); err != nil {
			return nil, err
		}
		if len(devices) == 0 {
			return nil, errNoDevice
		}
		for _, device := range devices {
			q, err := d.room(device, new(room))
			if err != nil {
				return nil, err
			}
			if !met[q] {
				met[q] = true
				queues = append(queues, q)
			}
		}
	}
	if _, err := d.fill(&p.placed, queues, uint64(len(w.payload))); err != nil {
		return nil, err
	}
	p.lose()
	return p, nil
}

// willBeMember refuses a Welcome for somebody who is not in the channel then.
func (d *post) willBeMember(account projections.ID) error {
	if d.isAdded[account] {
		return nil
	}
	_, found, err := projections.MemberOf(d.tx.View(), d.channel.ID, account)
	if err != nil {
		return err
	}
	if !found || d.isRemoved[account] {
		return Refuse(pb.Status_NotFound, pb.Reason_NO_SUCH_MEMBER, "a Welcome is for a member, or for somebody whom the post adds")
	}
	return nil
}

// emitAll emits the post, the change of members, and the Welcomes.
func (d *post) emitAll(message *placedPost, welcomes []*placedPost) (*pb.BatchEnqueueResponse, error) {
	seq, epoch := d.channel.LastSeq+1, d.channel.Epoch
	commit := d.req.ExpectedEpoch != nil
	if commit {
		epoch++
	}
	response := &pb.BatchEnqueueResponse{ServerTimeMs: d.tx.Now(), ChannelSeq: seq, Epoch: epoch, MessageId: message.id[:]}
	if err := d.emitPost(message, &pb.ChannelPosted{ChannelSeq: seq, Commit: commit}); err != nil {
		return nil, err
	}
	if len(d.added)+len(d.removed) > 0 {
		change := &pb.ChannelMembersChanged{Added: d.added, Removed: d.removed}
		if err := emitMembers(d.tx, d.channel.ID, change); err != nil {
			return nil, err
		}
	}
	for _, welcome := range welcomes {
		if err := d.emitPost(welcome, &pb.ChannelPosted{ChannelSeq: seq, Welcome: true}); err != nil {
			return nil, err
		}
		response.Results = append(response.Results, &pb.BatchEnqueueResponse_Result{MessageId: welcome.id[:]})
	}
	return response, nil
}

// emitPost emits one payload with what gives way to it. The payload is stored
// under the channel, once for all; nowhere when no queue had room.
func (d *post) emitPost(p *placedPost, ev *pb.ChannelPosted) error {
	if err := d.emitReleases(&p.placed); err != nil {
		return err
	}
	p.id = d.tx.NewMessageID()
	if len(p.targets) > 0 {
		d.tx.PutPayload(d.channel.ID, p.id, p.payload)
	}
	ev.ChannelId, ev.SenderId, ev.MessageId = d.channel.ID[:], d.member.Account[:], p.id[:]
	ev.Targets, ev.Skipped = p.targets, p.skipped
	ev.PayloadSize, ev.PayloadSha256 = uint32(len(p.payload)), p.digest[:]
	ev.ExpiresMs = d.tx.Now() + d.ttlMS()
	return d.tx.Emit(&pb.Event{Body: &pb.Event_ChannelPosted{ChannelPosted: ev}})
}
