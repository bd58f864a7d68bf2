// Package client is the Go SDK of quicprochat: typed calls over one QUIC
// connection that heals itself, OPAQUE registration and login, and pushes.
//
//	caller ──Call──► rule of the method ──► stamp request_id, add token
//	                                          │
//	          ┌───────────── back-off ◄───────┤ transport error, Unavailable,
//	          ▼                               │ and the rule allows a repeat
//	       connection ──stream per call──► server
//	          │
//	          └──unidirectional streams──► Subscribe
//
// What may be repeated stands in the schema: reads always; a call with a
// request_id under the same id and bytes, so that the server performs it once; a
// call with after_seq; a call whose content makes it idempotent; a one-shot call
// never. When a call that may have had an effect can't be brought to an answer,
// the error is ErrOutcomeUnknown and carries the request_id with which the
// caller can repeat it later.
//
// A request_id is a UUIDv7 with the server's time, which the client learns from
// every reply that tells it: a wrong clock on this machine does no harm.
//
// A Client owns its socket, its connection and two kinds of goroutines (one
// reader of pushes per connection, one dial at a time); Close ends them all. It
// is safe for concurrent use. The session token belongs to the Client, not to
// the connection: after a reconnect the same session goes on.
package client
