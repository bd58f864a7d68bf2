package commands

import (
	"context"
	"errors"

	"quicprochat/kt"
	"quicprochat/log"
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// MaxResourcePart is the most bytes of a resource in one answer of
// AuditKeyTransparency (1 MiB): only deltas are longer.
const MaxResourcePart = 1 << 20

// Audit answers an AuditKeyTransparency (520) for a caller who was checked as far
// as there is one. Everything below the newest signed checkpoint is public as
// hashes and leaves; persons and identities are told to devices, and what a leaf
// commits to only to the account that did it. Refusals: BadRequest MISSING_FIELD,
// INVALID_FIELD, USERNAME_INVALID, KEY_INVALID; Unauthorized TOKEN_MISSING;
// Forbidden SCOPE; NotFound NO_SUCH_ENTRY; those of CheckpointFor and HeadProof.
func (e *Engine) Audit(ctx context.Context, caller Caller, req *pb.AuditKeyTransparencyRequest) (*pb.AuditKeyTransparencyResponse, error) {
	resp := &pb.AuditKeyTransparencyResponse{ServerTimeMs: e.clock.nowMS()}
	var err error
	switch q := req.GetQuery().(type) {
	case *pb.AuditKeyTransparencyRequest_Username:
		err = e.auditPerson(ctx, caller, req, resp, func(p *Proofs) error {
			name, err := nameOf(q.Username)
			if err != nil {
				return err
			}
			return p.Person(name)
		})
	case *pb.AuditKeyTransparencyRequest_IdentityKey:
		err = e.auditPerson(ctx, caller, req, resp, func(p *Proofs) error {
			key, err := keyOf("identity_key", q.IdentityKey)
			if err != nil {
				return err
			}
			return p.Identity(key[:])
		})
	case *pb.AuditKeyTransparencyRequest_Head:
		err = e.auditProof(ctx, caller, req, resp, func(*Proofs) error { return nil })
	case *pb.AuditKeyTransparencyRequest_Sizes:
		err = e.auditSizes(ctx, q.Sizes, resp)
	case *pb.AuditKeyTransparencyRequest_Resource:
		err = e.auditResource(ctx, q.Resource, resp)
	case *pb.AuditKeyTransparencyRequest_Index:
		err = e.auditLeaf(ctx, caller, q.Index, resp)
	case *pb.AuditKeyTransparencyRequest_Message:
		err = e.auditMessage(ctx, caller, q.Message, resp)
	default:
		err = missing("query")
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// auditPerson proves what only devices may ask.
func (e *Engine) auditPerson(ctx context.Context, caller Caller, req *pb.AuditKeyTransparencyRequest, resp *pb.AuditKeyTransparencyResponse, add func(*Proofs) error) error {
	if err := requireDevice(caller); err != nil {
		return err
	}
	return e.auditProof(ctx, caller, req, resp, add)
}

func requireDevice(caller Caller) error {
	switch {
	case !caller.Known():
		return errTokenMissing
	case !caller.IsDevice():
		return errScope
	}
	return nil
}

func (e *Engine) auditProof(ctx context.Context, caller Caller, req *pb.AuditKeyTransparencyRequest, resp *pb.AuditKeyTransparencyResponse, add func(*Proofs) error) error {
	asked := req.GetProof()
	if asked == nil {
		asked = new(pb.ProofRequest)
	}
	v, err := e.ProofView(ctx, caller, asked)
	if err != nil {
		return err
	}
	defer v.Release()
	if err := add(v.Proofs); err != nil {
		return err
	}
	proof, err := v.Proofs.Proof()
	resp.Answer = &pb.AuditKeyTransparencyResponse_Proof{Proof: proof}
	return err
}

var errNoSuchEntry = Refuse(pb.Status_NotFound, pb.Reason_NO_SUCH_ENTRY, "the published log has no such entry")

// signed is the newest signed checkpoint. Release it. The first one since the start
// is waited for: it is signed when a HEAD is published.
func (e *Engine) signed(ctx context.Context) (*Checkpoint, error) {
	if c := e.Checkpoint(); c != nil {
		return c, nil
	}
	if e.signer.Stopped() != nil {
		return nil, errNoSigning
	}
	p := e.acquire()
	if p == nil {
		return nil, errStopping
	}
	state, err := projections.TransparencyState(p.snap)
	p.release()
	if err != nil {
		return nil, err
	}
	if state.Heads == 0 {
		return nil, errNoSigning
	}
	return e.waitSigned(ctx, 1)
}

// auditSizes proves that one published size continues another.
func (e *Engine) auditSizes(ctx context.Context, pair *pb.SizePair, resp *pb.AuditKeyTransparencyResponse) error {
	from, to := pair.GetFrom(), pair.GetTo()
	if from == 0 || from > to {
		return invalid("sizes: from %d to %d: the first is at least 1, the second not below it", from, to)
	}
	c, err := e.signed(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	if to > c.Size {
		return errNoSuchEntry
	}
	hashes, err := e.log.ConsistencyProof(from, to)
	resp.Answer = &pb.AuditKeyTransparencyResponse_Consistency{Consistency: &pb.ConsistencyProof{Hashes: hashes}}
	return err
}

// noteResource is the path of the newest note.
const noteResource = "checkpoint"

// auditResource gives what the log also shows over HTTP.
func (e *Engine) auditResource(ctx context.Context, r *pb.LogResource, resp *pb.AuditKeyTransparencyResponse) error {
	c, err := e.signed(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	var body []byte
	if r.GetPath() == noteResource {
		body = c.Note
	} else {
		path, err := kt.ParseTilePath(r.GetPath())
		if err != nil {
			return invalid("resource.path names no resource of a log")
		}
		if body, err = e.Resource(c, path); err != nil {
			if errors.Is(err, log.ErrOutOfRange) {
				return errNoSuchEntry
			}
			return err
		}
	}
	size := uint64(len(body))
	if r.GetOffset() >= size {
		return invalid("resource.offset %d: the resource has %d bytes", r.GetOffset(), size)
	}
	body = body[r.GetOffset():]
	resp.Answer = &pb.AuditKeyTransparencyResponse_Resource{Resource: &pb.ResourcePart{
		Data: body[:min(len(body), MaxResourcePart)], Size: size,
	}}
	return nil
}

// Resource gives the bytes of a tile, bundle or delta that lies wholly below a
// checkpoint; any other is log.ErrOutOfRange.
func (e *Engine) Resource(c *Checkpoint, p kt.TilePath) ([]byte, error) {
	count := c.Size >> (8 * uint(p.Level))
	if p.Kind == kt.DeltaBundle {
		count = c.Head.Epoch + 1
	}
	if p.N > count/kt.TileWidth || p.N*kt.TileWidth+uint64(p.Width) > count {
		return nil, log.ErrOutOfRange
	}
	switch p.Kind {
	case kt.HashTile:
		return e.log.Tile(p.Level, p.N, p.Width)
	case kt.EntryBundle:
		return e.log.EntryBundle(p.N, p.Width)
	default:
		return e.Delta(c, p.N, p.Width)
	}
}

// auditLeaf shows a leaf with its path; what it commits to only to who did it.
func (e *Engine) auditLeaf(ctx context.Context, caller Caller, index uint64, resp *pb.AuditKeyTransparencyResponse) error {
	c, err := e.signed(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	if index >= c.Size {
		resp.Pending, resp.RetryAfterMs = true, e.nextHeadIn(c)
		return nil
	}
	record, err := e.log.Record(index)
	if err != nil {
		return err
	}
	path, err := e.log.InclusionProof(index, c.Size)
	if err != nil {
		return err
	}
	leaf := &pb.LeafProof{Index: index, Leaf: record.Leaf, Path: path, Note: c.Note}
	resp.Answer = &pb.AuditKeyTransparencyResponse_Leaf{Leaf: leaf}
	if !caller.IsDevice() || len(record.Event) == 0 {
		return nil
	}
	event, err := projections.DecodeEvent(record.Event)
	if err != nil {
		return err
	}
	if actor, known, err := actingAccount(c.Views, event); err != nil || !known || actor != caller.Account {
		return err
	}
	leaf.Opening, leaf.Event = record.Opening[:], record.Event
	return nil
}

// nextHeadIn is how long it takes at most until the HEAD after a checkpoint's is
// due, in milliseconds; at least a second, so that nobody asks all the time.
func (e *Engine) nextHeadIn(c *Checkpoint) uint64 {
	due := c.Head.TimeMS + uint64(headEvery.Milliseconds())
	return max(1000, due-min(due, e.clock.nowMS()))
}

// auditMessage finds the leaf of a message by the receipt that its sender has.
func (e *Engine) auditMessage(ctx context.Context, caller Caller, m *pb.SentMessage, resp *pb.AuditKeyTransparencyResponse) error {
	if err := requireDevice(caller); err != nil {
		return err
	}
	if len(m.GetMessageId()) != MessageIDSize {
		return invalid("message.message_id has %d bytes, not %d", len(m.GetMessageId()), MessageIDSize)
	}
	if _, ok := requestIDTime(m.GetRequestId()); !ok {
		return errRequestID
	}
	view, err := e.View()
	if err != nil {
		return err
	}
	index, found, err := e.messageIndex(view.Reader, caller.DeviceKey, m)
	view.Release()
	if err != nil {
		return err
	}
	if !found {
		return errNoSuchEntry
	}
	return e.auditLeaf(ctx, caller, index, resp)
}

// Methods whose receipts know messages.
var sendingMethods = [...]uint32{200, 205}

// messageIndex finds the event of a message. The receipt stands at the last event
// of its command; those of a batch's other messages lie before it, each with at
// most one event that made room per device.
func (e *Engine) messageIndex(view projections.Reader, device projections.Key, m *pb.SentMessage) (index uint64, found bool, err error) {
	for _, method := range sendingMethods {
		receipt, known, err := projections.Receipt(view, device, method, projections.ID(m.GetRequestId()))
		if err != nil {
			return 0, false, err
		}
		if !known {
			continue
		}
		const most = 2 * MaxBatchItems * (1 + MaxDevices) // a post and its Welcomes
		first := receipt.Index - min(receipt.Index, most)
		err = e.log.Iterate(first, receipt.Index+1, func(i uint64, r log.Record) error {
			if len(r.Event) == 0 || kt.Class(r.Leaf[0]) != kt.ClassOpaque {
				return nil
			}
			event, err := projections.DecodeEvent(r.Event)
			if err != nil {
				return err
			}
			if string(sentIn(event)) == string(m.GetMessageId()) {
				index, found = i, true
				return errFound
			}
			return nil
		})
		if found || (err != nil && !errors.Is(err, errFound)) {
			return index, found, unless(err, errFound)
		}
	}
	return 0, false, nil
}

// sentIn is the id of the message that an event put into queues; nil: none.
func sentIn(event *pb.Event) []byte {
	if post := event.GetChannelPosted(); post != nil {
		return post.GetMessageId()
	}
	return event.GetMessageEnqueued().GetMessageId()
}

// errFound ends an iteration.
var errFound = errors.New("found")

func unless(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// actingAccount tells whose doing an event is; known is false for what the server
// did by itself, and where that is not known any more.
func actingAccount(view projections.Reader, event *pb.Event) (account projections.ID, known bool, err error) {
	byKey := func(key []byte) (projections.ID, bool, error) {
		owner, found, err := projections.KeyOwner(view, key32(key))
		return owner.AccountID, found, err
	}
	switch body := event.GetBody().(type) {
	case *pb.Event_AccountRegistered:
		return id16(body.AccountRegistered.GetAccountId()), true, nil
	case *pb.Event_AccountReset:
		return id16(body.AccountReset.GetAccountId()), true, nil
	case *pb.Event_PasswordChanged:
		return id16(body.PasswordChanged.GetAccountId()), true, nil
	case *pb.Event_SessionStarted:
		return id16(body.SessionStarted.GetAccountId()), true, nil
	case *pb.Event_IdentityReplaced:
		return id16(body.IdentityReplaced.GetAccountId()), true, nil
	case *pb.Event_MessageEnqueued:
		return id16(body.MessageEnqueued.GetSenderId()), true, nil
	case *pb.Event_ChannelCreated:
		return id16(body.ChannelCreated.GetCreatorId()), true, nil
	case *pb.Event_ChannelMembersChanged:
		return id16(body.ChannelMembersChanged.GetActorId()), true, nil
	case *pb.Event_ChannelMemberUpdated:
		return id16(body.ChannelMemberUpdated.GetAccountId()), true, nil
	case *pb.Event_ChannelUpdated:
		return id16(body.ChannelUpdated.GetActorId()), true, nil
	case *pb.Event_ChannelEpochSet:
		return id16(body.ChannelEpochSet.GetActorId()), true, nil
	case *pb.Event_ChannelPosted:
		return id16(body.ChannelPosted.GetSenderId()), true, nil
	case *pb.Event_ChannelRotationRequested:
		return id16(body.ChannelRotationRequested.GetActorId()), true, nil
	case *pb.Event_MessagesDrained:
		return byKey(body.MessagesDrained.GetDeviceKey())
	case *pb.Event_MessagesConfirmed:
		return byKey(body.MessagesConfirmed.GetDeviceKey())
	case *pb.Event_MessagesAcked:
		return byKey(body.MessagesAcked.GetDeviceKey())
	case *pb.Event_RequestAnswered:
		return byKey(event.GetReceipt().GetCaller())
	case *pb.Event_RoleChanged:
		return byActor(body.RoleChanged.GetActor())
	case *pb.Event_KeyRevoked:
		return byActor(body.KeyRevoked.GetActor())
	case *pb.Event_KeyTransparencyEntry:
		return ownerOfEntry(view, body.KeyTransparencyEntry)
	}
	return account, false, nil
}

func byActor(actor *pb.Actor) (projections.ID, bool, error) {
	return id16(actor.GetAccountId()), actor.GetWay() == pb.Actor_SESSION, nil
}

// ownerOfEntry is whose name or key a key-transparency entry is about.
func ownerOfEntry(view projections.Reader, entry *pb.KeyTransparencyEntry) (projections.ID, bool, error) {
	if entry.GetKind() == uint32(kt.KindAccount) {
		account, found, err := projections.AccountByName(view, string(entry.GetId()))
		return account.ID, found, err
	}
	owner, found, err := projections.KeyOwner(view, key32(entry.GetId()))
	return owner.AccountID, found, err
}
