// Package projections folds the events of the log into the views: everything
// the server knows. It knows what events mean; it never syncs anything, reads
// no clock and draws no random number: state and event in, state out.
//
//	log entry ──▶ Apply ──▶ Batch ──Commit──▶ Views ──Snapshot──▶ readers
//	              (one arm per event type,     │
//	               one file per view)          ├─ Flush ──▶ <dir>/views/*.sst
//	                                           └─ WriteSnapshot ──▶ <dir>/snapshots/<size>
//
// The views are a cache of the log. They lie in a Pebble store of their own
// without a write-ahead log; the cursor, the number of events folded in, stands
// in every batch, so after a crash the store is some earlier state and the
// caller applies the log's tail from Cursor on. Whatever is wrong with the
// store (missing, damaged, ahead of the log) is a *RebuildError, and
// DropAndRecreate is the remedy: the newest good snapshot, or nothing, and the
// log from there on.
//
// Two rules make that safe. A file of the store is made durable only when the
// log is durable up to all that the file may hold (syncfs.go), so the views are
// never ahead of the log. And Apply is strict and deterministic: an event
// whose subject is missing, whose index is not the cursor or whose type is
// unknown stops with the index, and the same events give the same keys and
// values, hence the same Digest.
//
// A Batch belongs to one goroutine, the writer; it sees its own writes and keeps
// decoded-size hot rows in memory (pointcache.go). A Snapshot is frozen and read
// by any number of goroutines. The read functions take either as a Reader. All
// key prefixes stand in keyspace.go; rows and the snapshot file are specified in
// docs/formats/views.md.
package projections
