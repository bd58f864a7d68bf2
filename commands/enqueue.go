package commands

import (
	"crypto/sha256"
	"time"

	"google.golang.org/protobuf/proto"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// sendable is what an EnqueueRequest and an item of a batch have in common.
type sendable interface {
	GetRecipientKey() []byte
	GetRecipientDevice() []byte
	GetPayload() []byte
	GetTtlS() uint32
	GetClass() pb.MessageClass
}

// outgoing is one message as its sender wants it, checked and hashed as far as
// that needs no view.
type outgoing struct {
	to      recipientName
	payload []byte
	digest  [32]byte // SHA-256 of payload
	ttlMS   uint64
	channel []byte // of sender and recipient; nil: none
}

// recipientName is how a sender names who shall get a message: by identity key,
// or by device key.
type recipientName struct {
	key      [KeySize]byte
	isDevice bool
}

// longestTTL is MaxTTL in the unit of ttl_s.
const longestTTL = uint32(MaxTTL / time.Second)

func newOutgoing(m sendable) (o outgoing, err error) {
	switch class := m.GetClass(); class {
	case pb.MessageClass_NORMAL:
	case pb.MessageClass_EPHEMERAL:
		return o, notSupported("passing messages (class EPHEMERAL) in a batch are")
	default:
		return o, invalid("class %d is unknown", class)
	}
	o.payload = m.GetPayload()
	field, key := "recipient_key", m.GetRecipientKey()
	if o.to.isDevice = len(m.GetRecipientDevice()) > 0; o.to.isDevice {
		field, key = "recipient_device", m.GetRecipientDevice()
	}
	if o.to.key, err = keyOf(field, key); err != nil {
		return o, err
	}
	ttl := m.GetTtlS()
	switch n := len(o.payload); {
	case n == 0:
		return o, missing("payload")
	case n > MaxPayload:
		return o, tooLarge("a payload", n, MaxPayload)
	case ttl > longestTTL:
		return o, invalid("ttl_s is %d, at most %d is allowed", ttl, longestTTL)
	case ttl == 0:
		ttl = longestTTL
	}
	o.ttlMS = uint64(ttl) * 1000
	o.digest = sha256.Sum256(o.payload)
	return o, nil
}

// enqueueCommand is the command of an Enqueue, with what is checked and hashed
// outside the writer and with the memory of its answer: a command is decided once.
type enqueueCommand struct {
	Command
	message  outgoing
	response pb.EnqueueResponse
	id       projections.ID
}

// NewEnqueue makes the command of an Enqueue. It checks the request as far as that
// needs no view. Refusals, all BadRequest: MISSING_FIELD, INVALID_FIELD, KEY_INVALID,
// PAYLOAD_TOO_LARGE (limit in bytes), NOT_SUPPORTED, those of NewCommand.
func NewEnqueue(rule *pb.Rule, req *pb.EnqueueRequest) (*Command, error) {
	c := new(enqueueCommand)
	var err error
	if c.message, err = newOutgoing(req); err != nil {
		return nil, err
	}
	if c.message.channel = req.GetChannelId(); len(c.message.channel) > 0 {
		if _, err := channelIDOf(c.message.channel); err != nil {
			return nil, err
		}
	}
	if err := c.bind(rule, req); err != nil {
		return nil, err
	}
	c.Decide = func(tx *Tx) (proto.Message, error) { return decidedResponse(c.enqueue(tx)) }
	c.NewResponse = newResponse[*pb.EnqueueResponse]
	c.Entries = MaxDevices
	return &c.Command, nil
}

// enqueue decides one message: it goes to the device that the request names, or
// to every device of the named identity that is active now. Devices whose queue
// is full, or holds the sender's share, are skipped and will be told of a gap.
// Refusals: NotFound NO_DEVICE; RateLimited QUEUE_FULL or SENDER_QUOTA when no
// device at all can take it; with a channel Forbidden NOT_A_MEMBER, NOT_JOINED.
func (c *enqueueCommand) enqueue(tx *Tx) (*pb.EnqueueResponse, error) {
	d := delivery{tx: tx, single: tx.w.single.reset()}
	if len(c.message.channel) > 0 {
		if err := bothJoined(tx.View(), c.message.channel, tx.Caller(), c.message.to); err != nil {
			return nil, err
		}
	}
	placed, err := d.place(&c.message)
	if err != nil {
		return nil, err
	}
	id, err := d.emit(placed)
	if err != nil {
		return nil, err
	}
	c.id = *id
	c.response.MessageId, c.response.ServerTimeMs = c.id[:], tx.Now()
	return &c.response, nil
}
