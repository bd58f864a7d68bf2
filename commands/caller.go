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
const SessionIdleMS = 30 * 24 * 3600 * 1000

// SessionLifetimeMS is how long a session lives at most, in milliseconds.
const SessionLifetimeMS = 180 * 24 * 3600 * 1000

// Caller is who a command or query acts for, as the session says. The zero
// Caller is nobody: a public call.
type Caller struct {
	Session   [32]byte // SHA-256 of the token
	Account   [16]byte
	DeviceKey [32]byte // zero for scope enroll
	Scope     pb.SessionScope
	LoginMS   uint64 // when the session began, Unix milliseconds
}

// Known reports whether there is a session at all.
func (c *Caller) Known() bool { return c.Scope != pb.SessionScope_SESSION_SCOPE_UNSPECIFIED }

// Authorize finds the session of a token hash (zero = none) and checks it
// against the level of a method's rule at time now (Unix milliseconds). The
// guard calls it on the published view as an early refusal, the writer on Tx,
// where it is law. Refusals: Unauthorized TOKEN_MISSING or TOKEN_INVALID,
// Forbidden SCOPE, REAUTH or ROLE.
func Authorize(r projections.Reader, token [32]byte, level pb.Auth_Level, now uint64) (Caller, error) {
	panic("not built")
}
