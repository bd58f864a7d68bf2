package commands

import (
	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

// FreshMS is how long after a login a session counts as fresh, in milliseconds
// (protocol.md, "FRESH").
const FreshMS = 5 * 60 * 1000

// SessionIdleMS is how long a session lives without use, in milliseconds. Use
// is noted once per UTC day.
const SessionIdleMS = 30 * dayMS

// SessionLifetimeMS is how long a session lives at most, in milliseconds.
const SessionLifetimeMS = 180 * dayMS

const dayMS = 24 * 3600 * 1000

// Caller is who a command or query acts for, as the session says. The zero
// Caller is nobody: a public call.
type Caller struct {
	Session   projections.Hash // SHA-256 of the token
	Account   projections.ID
	DeviceKey projections.Key // zero for scope enroll
	Scope     pb.SessionScope
	LoginMS   uint64 // when the session began, Unix milliseconds
	lastDay   uint32 // UTC day of the last noted use
}

// Known reports whether there is a session at all.
func (c *Caller) Known() bool { return c.Scope != pb.SessionScope_SESSION_SCOPE_UNSPECIFIED }

// IsDevice reports whether the session is one of a device.
func (c *Caller) IsDevice() bool { return c.Scope == pb.SessionScope_DEVICE }

// RequireFresh refuses with Forbidden REAUTH unless the login lies less than
// FreshMS before now. Authorize applies it to level FRESH; methods of level
// OPTIONAL whose session form must be fresh call it themselves.
func (c *Caller) RequireFresh(now uint64) error {
	if now >= c.LoginMS+FreshMS {
		return Refuse(pb.Status_Forbidden, pb.Reason_REAUTH, "log in again: this needs a login less than 5 minutes old")
	}
	return nil
}

// Authorize finds the session of a token hash (zero = none) and checks it
// against the level of a method's rule at time now (Unix milliseconds). Roles are
// those of the account in r, so one that was taken away is gone for everything
// that stands behind it in the log. The guard calls it on the published view as
// an early refusal, the writer on Tx, where it is law: nobody acts after a ban that
// stands before them in the log. The level LOCAL has no
// sessions: who may open the admin socket may all of it. Refusals: Unauthorized TOKEN_MISSING or TOKEN_INVALID,
// Forbidden SCOPE, REAUTH, ROLE or BANNED.
func Authorize(r projections.Reader, token [32]byte, level pb.Auth_Level, now uint64) (Caller, error) {
	if level == pb.Auth_NONE || level == pb.Auth_LOCAL {
		return Caller{}, nil
	}
	if token == ([32]byte{}) {
		if level == pb.Auth_OPTIONAL {
			return Caller{}, nil
		}
		return Caller{}, errTokenMissing
	}
	s, found, err := projections.SessionByToken(r, token)
	if err != nil {
		return Caller{}, err
	}
	if !found || s.ExpiredAt(now, SessionIdleMS) {
		return Caller{}, errTokenInvalid
	}
	c := Caller{Session: s.TokenHash, Account: s.AccountID, DeviceKey: s.DeviceKey,
		Scope: s.Scope, LoginMS: s.LoginMS, lastDay: s.LastDay}
	if err := c.allow(r, level, now); err != nil {
		return Caller{}, err
	}
	return c, refuseBanned(r, c.Account, now)
}

// allow checks a live session against a level.
func (c *Caller) allow(r projections.Reader, level pb.Auth_Level, now uint64) error {
	if c.IsDevice() {
		active, err := projections.DeviceActive(r, c.DeviceKey)
		if err != nil {
			return err
		}
		if !active { // a session ends with its device
			return errTokenInvalid
		}
	}
	switch level {
	case pb.Auth_OPTIONAL, pb.Auth_ENROLL:
		return nil
	case pb.Auth_SESSION, pb.Auth_FRESH:
		if !c.IsDevice() {
			return errScope
		}
		if level == pb.Auth_FRESH {
			return c.RequireFresh(now)
		}
		return nil
	case pb.Auth_MODERATOR:
		return c.requireRole(r, pb.Role_MODERATOR)
	case pb.Auth_ADMIN:
		return c.requireRole(r, pb.Role_ADMIN)
	default: // peers have no sessions
		return errRole
	}
}

// requireRole refuses all but sessions of a device whose account has at least
// that role.
func (c *Caller) requireRole(r projections.Reader, least pb.Role) error {
	if !c.IsDevice() {
		return errScope
	}
	role, err := projections.RoleOf(r, c.Account)
	if err != nil {
		return err
	}
	if role < least {
		return errRole
	}
	return nil
}

// refuseBanned refuses whoever is shut out.
func refuseBanned(r projections.Reader, account projections.ID, now uint64) error {
	banned, err := projections.BannedAt(r, account, now)
	if err == nil && banned {
		err = errBanned
	}
	return err
}

var (
	errBanned       = Refuse(pb.Status_Forbidden, pb.Reason_BANNED, "this account is banned from this server")
	errTokenMissing = Refuse(pb.Status_Unauthorized, pb.Reason_TOKEN_MISSING, "log in first: the request carries no session token")
	errTokenInvalid = Refuse(pb.Status_Unauthorized, pb.Reason_TOKEN_INVALID, "log in again: the session token is unknown or expired")
	errScope        = Refuse(pb.Status_Forbidden, pb.Reason_SCOPE, "this session may only link or recover a device")
	errRole         = Refuse(pb.Status_Forbidden, pb.Reason_ROLE, "the account's role does not allow this")
)
