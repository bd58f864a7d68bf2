package commands

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// frankTagSize is an HMAC-SHA-256.
const frankTagSize = sha256.Size

// frankLabel begins what a tag is made over.
const frankLabel = "qpc-frank-v1\x00"

// FrankKey is the server's secret for tags: with a tag a recipient can show the
// server who sent a ciphertext, and nobody can show it to others. A key that is
// gone leaves its tags worthless, no more.
type FrankKey struct {
	id     uint32
	secret [32]byte
}

// NewFrankKey is the key of an id, from its secret.
func NewFrankKey(id uint32, secret [32]byte) *FrankKey { return &FrankKey{id, secret} }

// franked is what a tag is made over.
type franked struct {
	serverName string
	sender     string // username on this server
	recipient  projections.Key
	channel    []byte
	message    projections.ID
	payload    [32]byte // SHA-256
	timeMS     uint64
}

// tag is HMAC-SHA-256(key, "qpc-frank-v1" ‖ 0 ‖ key id u32 ‖ fields, each with its
// length u32): server name, sender as user@server, recipient's identity key, channel
// id, message id, SHA-256 of the payload, time u64. Integers are big-endian.
func (k *FrankKey) tag(f franked) []byte {
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write(binary.BigEndian.AppendUint32([]byte(frankLabel), k.id))
	var length [4]byte
	for _, field := range [...][]byte{
		[]byte(f.serverName), []byte(f.sender + "@" + f.serverName), f.recipient[:], f.channel, f.message[:], f.payload[:],
		binary.BigEndian.AppendUint64(nil, f.timeMS),
	} {
		binary.BigEndian.PutUint32(length[:], uint32(len(field)))
		mac.Write(length[:])
		mac.Write(field)
	}
	return mac.Sum(nil)
}

// verify recomputes a tag.
func (k *FrankKey) verify(t *pb.FrankTag, f franked) bool {
	return t.GetKeyId() == k.id && hmac.Equal(t.GetTag(), k.tag(f))
}

// FrankEnvelopes adds tags to messages that are about to be delivered to the view's
// caller, with their payloads. A message that left the queue meanwhile, or whose
// sender's account is gone, gets none.
func FrankEnvelopes(v *View, k *FrankKey, serverName string, envelopes []*pb.Envelope) error {
	var recipient *projections.Account
	names := map[projections.ID]string{}
	for _, e := range envelopes {
		if e.GetControl() != nil {
			continue
		}
		item, found, err := projections.QueueItemAt(v.Reader, v.Caller.DeviceKey, e.GetSeq())
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		name, known := names[item.Sender]
		if !known {
			sender, _, err := projections.AccountByID(v.Reader, item.Sender)
			if err != nil {
				return err
			}
			name = sender.Username
			names[item.Sender] = name
		}
		if recipient == nil {
			account, _, err := projections.AccountByID(v.Reader, v.Caller.Account)
			if err != nil {
				return err
			}
			recipient = &account
		}
		if name == "" || recipient.Username == "" {
			continue
		}
		e.Frank = &pb.FrankTag{KeyId: k.id, Tag: k.tag(franked{
			serverName: serverName, sender: name, recipient: recipient.IdentityKey, channel: channelOf(&item),
			message: item.MessageID, payload: sha256.Sum256(e.GetPayload()), timeMS: item.EnqueuedMS,
		})}
	}
	return nil
}

// channelOf is the channel of an item as it is delivered: empty outside of channels.
func channelOf(item *projections.QueueItem) []byte {
	if item.Channel == (projections.ID{}) {
		return nil
	}
	return item.Channel[:]
}
