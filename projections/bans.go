package projections

import (
	"encoding/binary"

	pb "quicprochat/proto/qpcv1"
)

// Ban says that an account is shut out of the server.
type Ban struct {
	Account ID
	SinceMS uint64
	// UntilMS is when it ends, Unix milliseconds; 0 = when it is lifted.
	UntilMS uint64
	Reason  string
	// By is who decided it; ByAccount only for one in a session.
	By        pb.Actor_Way
	ByAccount ID
}

// OverAt tells whether the ban's time is over. It is found until an event ends it.
func (b Ban) OverAt(nowMS uint64) bool { return b.UntilMS != 0 && nowMS >= b.UntilMS }

// Actor is who decided the ban.
func (b Ban) Actor() *pb.Actor { return actorOf(b.By, b.ByAccount) }

func actorOf(way pb.Actor_Way, account ID) *pb.Actor {
	actor := &pb.Actor{Way: way}
	if way == pb.Actor_SESSION {
		actor.AccountId = account[:]
	}
	return actor
}

// maxBanReason is the longest reason of a ban in bytes.
const maxBanReason = 1 << 10

// applyUserBanned bans an account, or gives its ban another end and reason. All its
// sessions end with it.
func applyUserBanned(b *Batch, ev *pb.UserBanned, nowMS uint64) error {
	ban := Ban{SinceMS: nowMS, UntilMS: ev.GetUntilMs(), Reason: ev.GetReason(), By: ev.GetActor().GetWay()}
	var err error
	if ban.Account, err = fieldID(ev.GetAccountId(), "account id"); err != nil {
		return err
	}
	if ban.UntilMS != 0 && (ban.UntilMS <= nowMS || ban.UntilMS > maxTimeMS) || len(ban.Reason) > maxBanReason {
		return invalid("a ban until %d with a reason of %d bytes", ban.UntilMS, len(ban.Reason))
	}
	if _, found, err := b.get(keyOfID(b.scratch(), prefixAccount, ban.Account)); err != nil || !found {
		return orInvalid(err, "the account does not exist")
	}
	if err := checkActor(b, ev.GetActor()); err != nil {
		return err
	}
	copy(ban.ByAccount[:], ev.GetActor().GetAccountId())
	if err := b.removeBan(ban.Account); err != nil {
		return err
	}
	tokens, err := sessionTokens(b, ban.Account)
	if err != nil {
		return err
	}
	for _, token := range tokens {
		if err := b.endSession(token); err != nil {
			return err
		}
	}
	return b.putBan(&ban)
}

func applyUserUnbanned(b *Batch, ev *pb.UserUnbanned) error {
	account, err := fieldID(ev.GetAccountId(), "account id")
	if err != nil {
		return err
	}
	if _, found, err := BanOf(b, account); err != nil || !found {
		return orInvalid(err, "the account is not banned")
	}
	if err := checkActor(b, ev.GetActor()); err != nil {
		return err
	}
	return b.removeBan(account)
}

func applyBansExpired(b *Batch, ev *pb.BansExpired, nowMS uint64) error {
	for _, id := range ev.GetAccountIds() {
		account, err := fieldID(id, "account id")
		if err != nil {
			return err
		}
		ban, found, err := BanOf(b, account)
		if err != nil || !found || !ban.OverAt(nowMS) {
			return orInvalid(err, "the account has no ban that is over")
		}
		if err := b.removeBan(account); err != nil {
			return err
		}
	}
	return nil
}

func (b *Batch) putBan(ban *Ban) error {
	row := binary.BigEndian.AppendUint64(b.row[:0], ban.SinceMS)
	row = binary.BigEndian.AppendUint64(row, ban.UntilMS)
	row = append(append(row, byte(ban.By)), ban.ByAccount[:]...)
	b.row = appendBytes(row, ban.Reason)
	if err := b.put(keyOfID(b.scratch(), prefixBan, ban.Account), b.row); err != nil || ban.UntilMS == 0 {
		return err
	}
	return b.put(banEndKey(b.scratch(), ban.UntilMS, ban.Account), nil)
}

// removeBan removes a ban; none changes nothing.
func (b *Batch) removeBan(account ID) error {
	ban, found, err := BanOf(b, account)
	if err != nil || !found {
		return err
	}
	if ban.UntilMS != 0 {
		if err := b.remove(banEndKey(b.scratch(), ban.UntilMS, account)); err != nil {
			return err
		}
	}
	return b.remove(keyOfID(b.scratch(), prefixBan, account))
}

// BanOf finds the ban of an account, also one that is over (OverAt).
func BanOf(r Reader, account ID) (Ban, bool, error) {
	ban, found, err := readRow(r, "bans", keyOfID(r.scratch(), prefixBan, account), decodeBan)
	ban.Account = account
	return ban, found, err
}

func decodeBan(in *rowReader) Ban {
	return Ban{
		SinceMS: in.u64(), UntilMS: in.u64(), By: pb.Actor_Way(in.u8()), ByAccount: in.id(), Reason: string(in.bytes()),
	}
}

// BannedAt tells whether an account is shut out at nowMS.
func BannedAt(r Reader, account ID, nowMS uint64) (bool, error) {
	value, found, err := r.get(keyOfID(r.scratch(), prefixBan, account))
	if err != nil || !found {
		return false, err
	}
	in := rowReader{rest: value}
	ban := decodeBan(&in)
	return !ban.OverAt(nowMS), r.fault(in.end("bans"))
}

// Bans lists up to limit bans of accounts with an id above after, in the order of
// ids, which means nothing.
func Bans(r Reader, after ID, limit int) (bans []Ban, err error) {
	start := append(keyOfID(nil, prefixBan, after), 0) // the first key beyond after's
	if after == (ID{}) {
		start = keyOf(nil, prefixBan)
	}
	err = scanRows(r, start, keyRangeEnd(keyOf(nil, prefixBan)), func(key, value []byte) (bool, error) {
		if len(bans) >= limit {
			return false, nil
		}
		in := rowReader{rest: value}
		ban := decodeBan(&in)
		ban.Account = ID(key[1:])
		bans = append(bans, ban)
		return true, in.end("bans")
	})
	return bans, err
}

// BansOver lists up to limit accounts whose ban is over at nowMS.
func BansOver(r Reader, nowMS uint64, limit int) (accounts []ID, err error) {
	err = scanRows(r, keyOf(nil, prefixBanEnd), keyOfU64(nil, prefixBanEnd, nowMS+1), func(key, _ []byte) (bool, error) {
		accounts = append(accounts, ID(key[1+8:]))
		return len(accounts) < limit, nil
	})
	return accounts, err
}
