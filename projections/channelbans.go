package projections

import (
	pb "quicprochat/proto/qpcv1"
)

// A ban from a channel is decided by a member whose role allows it; it keeps an
// account from being taken in, and ends with the channel at the latest.

func applyChannelUserBanned(b *Batch, ev *pb.ChannelUserBanned, nowMS uint64) error {
	channel, actor, err := b.channelOf(ev.GetChannelId(), ev.GetActorId())
	if err != nil {
		return err
	}
	ban := Ban{SinceMS: nowMS, UntilMS: ev.GetUntilMs(), Reason: ev.GetReason(), By: pb.Actor_SESSION, ByAccount: actor.Account}
	if ban.Account, err = fieldID(ev.GetAccountId(), "account id"); err != nil {
		return err
	}
	if ban.UntilMS != 0 && (ban.UntilMS <= nowMS || ban.UntilMS > maxTimeMS) || len(ban.Reason) > maxBanReason || ban.Account == actor.Account {
		return invalid("a ban from a channel until %d with a reason of %d bytes", ban.UntilMS, len(ban.Reason))
	}
	if _, found, err := b.get(keyOfID(b.scratch(), prefixAccount, ban.Account)); err != nil || !found {
		return orInvalid(err, "the account does not exist")
	}
	if err := b.removeChannelBan(channel.ID, ban.Account); err != nil {
		return err
	}
	b.encodeBan(&ban)
	if err := b.put(channelBanKey(b.scratch(), channel.ID, ban.Account), b.row); err != nil || ban.UntilMS == 0 {
		return err
	}
	return b.put(channelBanEndKey(b.scratch(), ban.UntilMS, channel.ID, ban.Account), nil)
}

func applyChannelUserUnbanned(b *Batch, ev *pb.ChannelUserUnbanned) error {
	channel, _, err := b.channelOf(ev.GetChannelId(), ev.GetActorId())
	if err != nil {
		return err
	}
	account, err := fieldID(ev.GetAccountId(), "account id")
	if err != nil {
		return err
	}
	if _, found, err := ChannelBanOf(b, channel.ID, account); err != nil || !found {
		return orInvalid(err, "the account is not banned from the channel")
	}
	return b.removeChannelBan(channel.ID, account)
}

func applyChannelBansExpired(b *Batch, ev *pb.ChannelBansExpired, nowMS uint64) error {
	for _, over := range ev.GetBans() {
		channel, err := fieldID(over.GetChannelId(), "channel id")
		if err != nil {
			return err
		}
		account, err := fieldID(over.GetAccountId(), "account id")
		if err != nil {
			return err
		}
		ban, found, err := ChannelBanOf(b, channel, account)
		if err != nil || !found || !ban.OverAt(nowMS) {
			return orInvalid(err, "the account has no ban from the channel that is over")
		}
		if err := b.removeChannelBan(channel, account); err != nil {
			return err
		}
	}
	return nil
}

// removeChannelBan removes a ban from a channel; none changes nothing.
func (b *Batch) removeChannelBan(channel, account ID) error {
	ban, found, err := ChannelBanOf(b, channel, account)
	if err != nil || !found {
		return err
	}
	if ban.UntilMS != 0 {
		if err := b.remove(channelBanEndKey(b.scratch(), ban.UntilMS, channel, account)); err != nil {
			return err
		}
	}
	return b.remove(channelBanKey(b.scratch(), channel, account))
}

// removeChannelBans forgets the bans from a channel that is gone.
func (b *Batch) removeChannelBans(channel ID) error {
	bans, err := ChannelBans(b, channel, ID{}, int(^uint(0)>>1))
	if err != nil {
		return err
	}
	for i := range bans {
		if err := b.removeChannelBan(channel, bans[i].Account); err != nil {
			return err
		}
	}
	return nil
}

// ChannelBanOf finds the ban of an account from a channel, also one that is over.
func ChannelBanOf(r Reader, channel, account ID) (Ban, bool, error) {
	ban, found, err := readRow(r, "channel bans", channelBanKey(r.scratch(), channel, account), decodeBan)
	ban.Account = account
	return ban, found, err
}

// ChannelBans lists up to limit bans from a channel, of accounts with an id above
// after.
func ChannelBans(r Reader, channel, after ID, limit int) (bans []Ban, err error) {
	start := append(channelBanKey(nil, channel, after), 0) // the first key beyond after's
	if after == (ID{}) {
		start = keyOfID(nil, prefixChannelBan, channel)
	}
	err = scanRows(r, start, keyRangeEnd(keyOfID(nil, prefixChannelBan, channel)), func(key, value []byte) (bool, error) {
		if len(bans) >= limit {
			return false, nil
		}
		in := rowReader{rest: value}
		ban := decodeBan(&in)
		ban.Account = ID(key[1+len(channel):])
		bans = append(bans, ban)
		return true, in.end("channel bans")
	})
	return bans, err
}

// ChannelBansOver lists up to limit bans from channels that are over at nowMS, as
// channel and account.
func ChannelBansOver(r Reader, nowMS uint64, limit int) (over [][2]ID, err error) {
	err = scanRows(r, keyOf(nil, prefixChannelBanEnd), keyOfU64(nil, prefixChannelBanEnd, nowMS+1), func(key, _ []byte) (bool, error) {
		over = append(over, [2]ID{ID(key[1+8:]), ID(key[1+8+16:])})
		return len(over) < limit, nil
	})
	return over, err
}
