// Package auth runs the ceremonies of registration, password change and login
// (methods 100 to 103) on the server's side: OPAQUE (RFC 9807) in the profile
// of package pake. It prepares what is expensive and pure, and decides through
// commands.Engine.
//
//	100  draw a credential id, evaluate the OPRF,
//	     seal {name, credential id, expiry} ───────▶ challenge
//	101  open the challenge, check upload, statements, keys
//	     ── commands.RegisterAccount / ChangePassword
//	102  select the name's record or the fake one, KE2
//	     remember the attempt ─────────────────────▶ login_id
//	103  take the attempt (once, same connection, 60 s), KE3, qpc-login-v1
//	     ── commands.StartSession
//
// # What a stranger may not learn
//
// Whether a name is registered: 100 and 102 answer for free and taken, known
// and unknown names alike, with the same work. 102 always decodes the record of
// the name and the stored fake one and then selects; an unknown name has the
// fake record and a credential identifier made of the name by HMAC, so that
// asking again shows the same. All failures of 103 are one refusal.
//
// A password by asking 100: each call has a credential identifier of its own,
// so its OPRF output has nothing to do with the stored record's.
//
// # State
//
// Challenges carry their own state, sealed. Login attempts are kept in a bounded
// table in memory: they die with the process, and clients start over. Keys
// derive from the OPAQUE seed, so answers look alike before and after a restart.
//
// OPAQUE costs 0.1 to 0.4 ms of CPU per call, so it runs behind a semaphore of
// its own that serves address prefixes in turn: a flood of logins takes its
// share of the cores and its sender's place in the queue, not everybody's.
package auth
