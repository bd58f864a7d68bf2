package projections

import (
	"encoding/binary"

	pb "quicprochat/proto/qpcv1"
)

// Channel is what a post to a channel reads and writes of it. Name and
// description have a row of their own (ChannelText): a post does not touch them.
type Channel struct {
	ID ID
	// Version rises with each change of name, description, settings or roles;
	// the first is 1.
	Version uint64
	// Epoch is what the next commit must expect.
	Epoch uint64
	// LastSeq is the channel_seq of the newest post; the first is 1.
	LastSeq   uint64
	Members   uint32
	Owners    uint32
	CreatedMS uint64
	Settings  ChannelSettings
	// Rotation is the newest request to rotate keys.
	Rotation Rotation
}

// Rotation is a request of a member to all members to rotate keys.
type Rotation struct {
	// AskedMS is zero when there was none.
	AskedMS uint64
	By      ID
	// Seq is the LastSeq of the channel at that moment: commits above it count.
	Seq uint64
}

// ChannelSettings are pb.ChannelSettings as a value.
type ChannelSettings struct {
	Posting     pb.PostingRule
	CommitOrder pb.CommitOrder
	TypingOff   bool
	Presence    bool
}

const (
	channelTypingOff = 1 << iota
	channelPresence
)

// MaxChannelName and MaxChannelDescription are the longest (encrypted) name and
// description in bytes.
const (
	MaxChannelName        = 1 << 10
	MaxChannelDescription = 4 << 10
)

// applyChannelCreated makes a channel with its creator as the only member.
func applyChannelCreated(b *Batch, ev *pb.ChannelCreated, nowMS uint64) error {
	id, err := fieldID(ev.GetChannelId(), "channel id")
	if err != nil {
		return err
	}
	creator, err := fieldID(ev.GetCreatorId(), "creator's account id")
	if err != nil {
		return err
	}
	if _, found, err := ChannelByID(b, id); err != nil || found {
		return orInvalid(err, "the channel exists")
	}
	settings, err := channelSettingsOf(ev.GetSettings())
	if err != nil {
		return err
	}
	c := Channel{ID: id, Version: 1, CreatedMS: nowMS, Settings: settings}
	if err := b.putChannelText(id, ev.GetName(), ev.GetDescription()); err != nil {
		return err
	}
	owner := ChannelMember{Account: creator, Role: pb.ChannelRole_CHANNEL_OWNER, State: pb.MemberState_JOINED, AddedMS: nowMS, JoinedMS: nowMS}
	if err := b.addMember(&c, &owner); err != nil {
		return err
	}
	return b.putChannel(&c)
}

// applyChannelUpdated changes metadata or roles; at least one owner stays.
func applyChannelUpdated(b *Batch, ev *pb.ChannelUpdated) error {
	c, _, err := b.channelOf(ev.GetChannelId(), ev.GetActorId())
	if err != nil {
		return err
	}
	if ev.GetVersion() != c.Version+1 {
		return invalid("version %d of a channel, the next is %d", ev.GetVersion(), c.Version+1)
	}
	c.Version++
	if ev.Settings != nil {
		if c.Settings, err = channelSettingsOf(ev.GetSettings()); err != nil {
			return err
		}
	}
	if ev.Name != nil || ev.Description != nil {
		name, description, err := ChannelText(b, c.ID)
		if err != nil {
			return err
		}
		if ev.Name != nil {
			name = ev.GetName()
		}
		if ev.Description != nil {
			description = ev.GetDescription()
		}
		if err := b.putChannelText(c.ID, name, description); err != nil {
			return err
		}
	}
	for _, change := range ev.GetRoles() {
		if err := b.changeMemberRole(&c, change); err != nil {
			return err
		}
	}
	if c.Owners == 0 {
		return invalid("a channel without an owner")
	}
	return b.putChannel(&c)
}

// applyChannelEpochSet repairs the epoch.
func applyChannelEpochSet(b *Batch, ev *pb.ChannelEpochSet) error {
	c, actor, err := b.channelOf(ev.GetChannelId(), ev.GetActorId())
	if err != nil {
		return err
	}
	if actor.Role != pb.ChannelRole_CHANNEL_OWNER {
		return invalid("an epoch is set by an owner")
	}
	c.Epoch = ev.GetEpoch()
	return b.putChannel(&c)
}

// applyChannelRotationRequested notes who asked for other keys, and since when.
func applyChannelRotationRequested(b *Batch, ev *pb.ChannelRotationRequested, nowMS uint64) error {
	c, actor, err := b.channelOf(ev.GetChannelId(), ev.GetActorId())
	if err != nil {
		return err
	}
	if actor.State != pb.MemberState_JOINED {
		return invalid("a rotation is asked for by who has joined")
	}
	c.Rotation = Rotation{AskedMS: nowMS, By: actor.Account, Seq: c.LastSeq}
	return b.putChannel(&c)
}

// channelOf finds the channel that an event is about, with the member who acts.
func (b *Batch) channelOf(channelID, accountID []byte) (c Channel, m ChannelMember, err error) {
	id, err := fieldID(channelID, "channel id")
	if err != nil {
		return c, m, err
	}
	account, err := fieldID(accountID, "account id")
	if err != nil {
		return c, m, err
	}
	c, found, err := ChannelByID(b, id)
	if err != nil || !found {
		return c, m, orInvalid(err, "the channel does not exist")
	}
	m, found, err = MemberOf(b, id, account)
	if err != nil || !found {
		return c, m, orInvalid(err, "the account is no member of the channel")
	}
	return c, m, nil
}

func channelSettingsOf(s *pb.ChannelSettings) (ChannelSettings, error) {
	if _, known := pb.PostingRule_name[int32(s.GetPosting())]; !known {
		return ChannelSettings{}, invalid("posting rule %d", s.GetPosting())
	}
	if _, known := pb.CommitOrder_name[int32(s.GetCommitOrder())]; !known {
		return ChannelSettings{}, invalid("commit order %d", s.GetCommitOrder())
	}
	return ChannelSettings{
		Posting: s.GetPosting(), CommitOrder: s.GetCommitOrder(), TypingOff: s.GetTypingOff(), Presence: s.GetPresence(),
	}, nil
}

// ChannelByID finds a channel.
func ChannelByID(r Reader, id ID) (Channel, bool, error) {
	c, found, err := readRow(r, "channels", keyOfID(r.scratch(), prefixChannel, id), decodeChannel)
	c.ID = id
	return c, found, err
}

func decodeChannel(in *rowReader) Channel {
	c := Channel{
		Version: in.u64(), Epoch: in.u64(), LastSeq: in.u64(), Members: in.u32(), Owners: in.u32(), CreatedMS: in.u64(),
		Settings: ChannelSettings{Posting: pb.PostingRule(in.u8()), CommitOrder: pb.CommitOrder(in.u8())},
	}
	flags := in.u8()
	c.Settings.TypingOff, c.Settings.Presence = flags&channelTypingOff != 0, flags&channelPresence != 0
	c.Rotation = Rotation{AskedMS: in.u64(), By: in.id(), Seq: in.u64()}
	return c
}

func (b *Batch) putChannel(c *Channel) error {
	row := binary.BigEndian.AppendUint64(b.row[:0], c.Version)
	row = binary.BigEndian.AppendUint64(row, c.Epoch)
	row = binary.BigEndian.AppendUint64(row, c.LastSeq)
	row = binary.BigEndian.AppendUint32(row, c.Members)
	row = binary.BigEndian.AppendUint32(row, c.Owners)
	row = binary.BigEndian.AppendUint64(row, c.CreatedMS)
	var flags byte
	if c.Settings.TypingOff {
		flags |= channelTypingOff
	}
	if c.Settings.Presence {
		flags |= channelPresence
	}
	row = append(row, byte(c.Settings.Posting), byte(c.Settings.CommitOrder), flags)
	row = binary.BigEndian.AppendUint64(row, c.Rotation.AskedMS)
	row = append(row, c.Rotation.By[:]...)
	b.row = binary.BigEndian.AppendUint64(row, c.Rotation.Seq)
	return b.put(keyOfID(b.scratch(), prefixChannel, c.ID), b.row)
}

// ChannelText is a channel's name and description, as encrypted by its members.
func ChannelText(r Reader, id ID) (name, description []byte, err error) {
	type text struct{ name, description []byte }
	t, _, err := readRow(r, "channel texts", keyOfID(r.scratch(), prefixChannelText, id), func(in *rowReader) text {
		return text{append([]byte(nil), in.bytes()...), append([]byte(nil), in.bytes()...)}
	})
	return t.name, t.description, err
}

func (b *Batch) putChannelText(id ID, name, description []byte) error {
	if len(name) > MaxChannelName || len(description) > MaxChannelDescription {
		return invalid("a channel name of %d bytes with a description of %d", len(name), len(description))
	}
	b.row = appendBytes(appendBytes(b.row[:0], name), description)
	return b.put(keyOfID(b.scratch(), prefixChannelText, id), b.row)
}

// removeChannel forgets a channel that nobody is in any more. Posts that wait in
// queues stay: they are the readers'.
func (b *Batch) removeChannel(id ID) error {
	if err := b.removeChannelBans(id); err != nil {
		return err
	}
	if err := b.remove(keyOfID(b.scratch(), prefixChannelText, id)); err != nil {
		return err
	}
	return b.remove(keyOfID(b.scratch(), prefixChannel, id))
}
