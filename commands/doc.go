// Package commands decides: it turns requests into events, one at a time, and
// answers only what is durable.
//
// # The engine
//
// All mutations of the server pass one goroutine, the writer. It takes what is
// waiting, decides each command against everything decided before it, and
// closes the group when nothing more waits (natural batching: there is no
// timer). A group is one log batch, one fsync, one views batch:
//
//	Do ──▶ queue ──▶ writer ──▶ syncer ──▶ anchorer ──▶ replies, hooks, View
//	                 │ decide    │ log       │ head anchor: one synced slot
//	                 │ log batch │ SyncWait  │ for all groups synced meanwhile
//	                 │ views     │           │
//	                 ▼           ▼           ▼
//	               decided  ≥  synced  ≥  anchored  ≥  published
//
// Two groups are in flight at once: the writer goes on deciding while
// the disk works on the groups before. The log batch is committed and handed
// on before the views batch is applied, because applying may wait for a flush
// of the views, and that flush waits until the log is synced.
//
// Nothing above published is ever revealed: queries read the snapshot of the
// newest published group, and every reply, refusals and receipt replays
// included, is released with its group, for it may tell of events of the same
// group. A group without events has no batch and is released when the group
// before it is.
//
// # Deciding
//
// A decide function is pure over (Tx, request): the view with all earlier
// commands applied, the caller, the time and randomness come from Tx, and what
// was decided leaves through Emit. It either refuses and has emitted nothing,
// or emits events and returns the response. The writer checks the session
// again before each decide, so nobody acts after the end of their session that
// stands before them in the log.
//
// # Failure
//
// A commit of unknown outcome is fatal, as are a panic in a decide function
// and an error after Emit: the writer stops, every waiting and later command
// gets Unavailable STORAGE, Failed is closed, the process is expected to exit.
// It is never retried in place: after a failed fsync the lost event stays
// readable, and only a restart from the log tells what is true.
//
// # Who owns what
//
// The writer owns the log group, the views batch and the decision time; syncer
// and anchorer (the acker) own the marks and the published View; the views
// store belongs to the Engine, which opens, rebuilds and closes it; the log
// belongs to whoever opened it. Decide functions, one file per method family,
// own no state at all.
package commands
