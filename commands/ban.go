package commands

import (
	"bytes"
	"math"
	"strings"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

const (
	// MaxBanReason is the longest reason of a ban or of its end, in bytes.
	MaxBanReason = 1 << 10
	// MaxBanEntries is the most bans in one answer, and what a max_entries of 0
	// stands for.
	MaxBanEntries = 256
)

// moderation is who acts: an account in a session, or whoever runs the machine.
type moderation struct {
	way pb.Actor_Way
}

// actor is the caller as it stands in events. Refusal: Forbidden ROLE.
func (m moderation) actor(tx *Tx) (*pb.Actor, pb.Role, error) {
	if m.way != pb.Actor_SESSION {
		return &pb.Actor{Way: m.way}, machineRole, nil
	}
	caller := tx.Caller()
	role, err := projections.RoleOf(tx.View(), caller.Account)
	if err != nil {
		return nil, 0, err
	}
	if role < pb.Role_MODERATOR {
		return nil, 0, errRole
	}
	return &pb.Actor{Way: pb.Actor_SESSION, AccountId: bytes.Clone(caller.Account[:])}, role, nil
}

// machineRole is above every role of an account: who runs the server may ban them
// all.
const machineRole = pb.Role_ADMIN + 1

// target finds the account that a moderator acts on, which must have a lower role.
// Refusals: NotFound NO_SUCH_USER; Forbidden ROLE.
func (m moderation) target(tx *Tx, username string) (projections.Account, *pb.Actor, error) {
	actor, role, err := m.actor(tx)
	if err != nil {
		return projections.Account{}, nil, err
	}
	account, found, err := projections.AccountByName(tx.View(), username)
	if err != nil {
		return account, nil, err
	}
	if !found {
		return account, nil, errNoSuchUser
	}
	theirs, err := projections.RoleOf(tx.View(), account.ID)
	if err != nil {
		return account, nil, err
	}
	if theirs >= role {
		return account, nil, Refuse(pb.Status_Forbidden, pb.Reason_ROLE, "%s has the same role or a higher one", username)
	}
	return account, actor, nil
}

// localName is the canonical form of a username of this server.
func localName(username string) (string, error) {
	if strings.Contains(username, "@") {
		return "", notSupported("users of other servers are")
	}
	return nameOf(username)
}

// serverScope holds a scope to what is offered.
func serverScope(scope pb.BanScope, channel []byte) error {
	switch {
	case scope == pb.BanScope_ONE_CHANNEL:
		return notSupported("bans from a channel are")
	case scope == pb.BanScope_BAN_SCOPE_UNSPECIFIED:
		return missing("scope")
	case scope != pb.BanScope_WHOLE_SERVER || len(channel) > 0:
		return invalid("scope %d with a channel_id of %d bytes", scope, len(channel))
	}
	return nil
}

// ban is a BanUser, whichever way it came.
type ban struct {
	moderation
	username, reason string
	untilMS          uint64
}

func newBan(way pb.Actor_Way, username, reason string, untilMS uint64) (*ban, error) {
	name, err := localName(username)
	if err != nil {
		return nil, err
	}
	if len(reason) > MaxBanReason {
		return nil, invalid("a reason of %d bytes, at most %d are allowed", len(reason), MaxBanReason)
	}
	if untilMS > maxBanEndMS {
		return nil, invalid("until_ms %d is too far away: use 0 for a ban without an end", untilMS)
	}
	return &ban{moderation{way}, name, reason, untilMS}, nil
}

// maxBanEndMS keeps the ends of bans within what the views hold, in Unix
// milliseconds: about the year 6000.
const maxBanEndMS = math.MaxUint32 * 60 * 1000 / 2

// decide bans. The same ban again changes nothing.
func (b *ban) decide(tx *Tx) error {
	if b.untilMS != 0 && b.untilMS <= tx.Now() {
		return invalid("until_ms lies in the past")
	}
	account, actor, err := b.target(tx, b.username)
	if err != nil {
		return err
	}
	standing, found, err := projections.BanOf(tx.View(), account.ID)
	if err != nil {
		return err
	}
	if found && !standing.OverAt(tx.Now()) && standing.UntilMS == b.untilMS && standing.Reason == b.reason {
		return nil
	}
	return tx.Emit(&pb.Event{Body: &pb.Event_UserBanned{UserBanned: &pb.UserBanned{
		AccountId: account.ID[:], UntilMs: b.untilMS, Reason: b.reason, Actor: actor,
	}}})
}

// NewBanUser makes the command of a BanUser: the account's sessions end, it can't
// log in, and nothing goes from it or to it until the ban ends. Not against an equal
// or higher role. Refusals: BadRequest MISSING_FIELD, INVALID_FIELD,
// USERNAME_INVALID, NOT_SUPPORTED; Forbidden ROLE; NotFound NO_SUCH_USER.
func NewBanUser(rule *pb.Rule, req *pb.BanUserRequest) (*Command, error) {
	if err := serverScope(req.GetScope(), req.GetChannelId()); err != nil {
		return nil, err
	}
	b, err := newBan(pb.Actor_SESSION, req.GetUsername(), req.GetReason(), req.GetUntilMs())
	if err != nil {
		return nil, err
	}
	return NewCommand(rule, req, func(tx *Tx) (*pb.BanUserResponse, error) {
		if err := b.decide(tx); err != nil {
			return nil, err
		}
		return &pb.BanUserResponse{ServerTimeMs: tx.Now()}, nil
	})
}

// NewBanAnyUser makes the command of a ban by whoever runs the server. Refusals:
// those of NewBanUser but ROLE.
func NewBanAnyUser(rule *pb.Rule, req *pb.BanAnyUserRequest, by pb.Actor_Way) (*Command, error) {
	b, err := newBan(by, req.GetUsername(), req.GetReason(), req.GetUntilMs())
	if err != nil {
		return nil, err
	}
	return NewCommand(rule, req, func(tx *Tx) (*pb.BanAnyUserResponse, error) {
		if err := b.decide(tx); err != nil {
			return nil, err
		}
		return &pb.BanAnyUserResponse{Username: b.username, ServerTimeMs: tx.Now()}, nil
	})
}

// lift is an UnbanUser, whichever way it came.
type lift struct {
	moderation
	username, reason string
}

func newLift(way pb.Actor_Way, username, reason string) (*lift, error) {
	name, err := localName(username)
	if err != nil {
		return nil, err
	}
	if len(reason) > MaxBanReason {
		return nil, invalid("a reason of %d bytes, at most %d are allowed", len(reason), MaxBanReason)
	}
	return &lift{moderation{way}, name, reason}, nil
}

// decide lifts a ban.
func (l *lift) decide(tx *Tx) error {
	account, actor, err := l.target(tx, l.username)
	if err != nil {
		return err
	}
	switch banned, err := projections.BannedAt(tx.View(), account.ID, tx.Now()); {
	case err != nil:
		return err
	case !banned: // one that is over is housekeeping's to end
		return Refuse(pb.Status_NotFound, pb.Reason_NOT_BANNED, "%s is not banned", l.username)
	}
	return tx.Emit(&pb.Event{Body: &pb.Event_UserUnbanned{UserUnbanned: &pb.UserUnbanned{
		AccountId: account.ID[:], Reason: l.reason, Actor: actor,
	}}})
}

// NewUnbanUser makes the command of an UnbanUser. Refusals: those of NewBanUser;
// NotFound NOT_BANNED.
func NewUnbanUser(rule *pb.Rule, req *pb.UnbanUserRequest) (*Command, error) {
	if err := serverScope(req.GetScope(), req.GetChannelId()); err != nil {
		return nil, err
	}
	l, err := newLift(pb.Actor_SESSION, req.GetUsername(), req.GetReason())
	if err != nil {
		return nil, err
	}
	return NewCommand(rule, req, func(tx *Tx) (*pb.UnbanUserResponse, error) {
		if err := l.decide(tx); err != nil {
			return nil, err
		}
		return &pb.UnbanUserResponse{ServerTimeMs: tx.Now()}, nil
	})
}

// NewUnbanAnyUser makes the command that lifts a ban, by whoever runs the server.
func NewUnbanAnyUser(rule *pb.Rule, req *pb.UnbanAnyUserRequest, by pb.Actor_Way) (*Command, error) {
	l, err := newLift(by, req.GetUsername(), req.GetReason())
	if err != nil {
		return nil, err
	}
	return NewCommand(rule, req, func(tx *Tx) (*pb.UnbanAnyUserResponse, error) {
		if err := l.decide(tx); err != nil {
			return nil, err
		}
		return &pb.UnbanAnyUserResponse{Username: l.username, ServerTimeMs: tx.Now()}, nil
	})
}

// expireBans ends bans whose time is over.
func expireBans(tx *Tx) (more bool, err error) {
	accounts, err := projections.BansOver(tx.View(), tx.Now(), expiryLimit)
	if err != nil || len(accounts) == 0 {
		return false, err
	}
	ended := new(pb.BansExpired)
	for i := range accounts {
		ended.AccountIds = append(ended.AccountIds, accounts[i][:])
	}
	return len(accounts) >= expiryLimit, tx.Emit(&pb.Event{Body: &pb.Event_BansExpired{BansExpired: ended}})
}

// ListBanned answers with who is banned, from the published view. Refusals:
// Forbidden ROLE; BadRequest MISSING_FIELD, INVALID_FIELD, NOT_SUPPORTED,
// TOO_MANY_ITEMS, USERNAME_INVALID.
func ListBanned(v *View, req *pb.ListBannedRequest) (*pb.ListBannedResponse, error) {
	if err := serverScope(req.GetScope(), req.GetChannelId()); err != nil {
		return nil, err
	}
	if err := v.Caller.requireRole(v.Reader, pb.Role_MODERATOR); err != nil {
		return nil, err
	}
	if req.GetUsername() != "" {
		return oneBan(v, req.GetUsername())
	}
	bans, next, err := listBans(v, req.GetAfter(), req.GetMaxEntries())
	return &pb.ListBannedResponse{Bans: bans, Next: next}, err
}

// ListAllBanned is ListBanned for whoever runs the server.
func ListAllBanned(v *View, req *pb.ListAllBannedRequest) (*pb.ListAllBannedResponse, error) {
	bans, next, err := listBans(v, req.GetAfter(), req.GetMaxEntries())
	return &pb.ListAllBannedResponse{Bans: bans, Next: next}, err
}

func oneBan(v *View, username string) (*pb.ListBannedResponse, error) {
	name, err := localName(username)
	if err != nil {
		return nil, err
	}
	resp := new(pb.ListBannedResponse)
	account, found, err := projections.AccountByName(v.Reader, name)
	if err != nil || !found {
		return resp, err
	}
	ban, found, err := projections.BanOf(v.Reader, account.ID)
	if err == nil && found && !ban.OverAt(v.Now) {
		resp.Bans = append(resp.Bans, banEntry(&ban, &account))
	}
	return resp, err
}

// listBans is a page of bans that are not over.
func listBans(v *View, rawAfter []byte, wish uint32) (entries []*pb.Ban, next []byte, err error) {
	limit, err := pageLimit("max_entries", wish, MaxBanEntries)
	if err != nil {
		return nil, nil, err
	}
	var after projections.ID
	if n := len(rawAfter); n != 0 && n != len(after) {
		return nil, nil, invalid("after has %d bytes, not %d", n, len(after))
	}
	copy(after[:], rawAfter)
	bans, err := projections.Bans(v.Reader, after, limit+1)
	if err != nil {
		return nil, nil, err
	}
	if len(bans) > limit {
		bans = bans[:limit]
		next = append(next, bans[limit-1].Account[:]...)
	}
	for i := range bans {
		if bans[i].OverAt(v.Now) {
			continue
		}
		account, _, err := projections.AccountByID(v.Reader, bans[i].Account)
		if err != nil {
			return nil, nil, err
		}
		entries = append(entries, banEntry(&bans[i], &account))
	}
	return entries, next, nil
}

// pageLimit is how many entries a page has: a wish of 0 stands for the most.
func pageLimit(field string, wish uint32, most int) (int, error) {
	switch {
	case wish == 0:
		return most, nil
	case uint64(wish) > uint64(most):
		return 0, tooMany(field, int(wish), most)
	}
	return int(wish), nil
}

func banEntry(ban *projections.Ban, account *projections.Account) *pb.Ban {
	return &pb.Ban{
		Username: account.Username, IdentityKey: account.IdentityKey[:], SinceMs: ban.SinceMS, UntilMs: ban.UntilMS,
		Reason: ban.Reason, Actor: ban.Actor(),
	}
}
