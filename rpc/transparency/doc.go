// Package transparency shows the log to strangers: a read-only HTTP surface for
// auditors and mirrors (C2SP tlog-tiles), and the client that has witnesses
// cosign the log's checkpoints (C2SP tlog-witness).
//
//	auditor, mirror, cache                     witness
//	  │ GET checkpoint, tile/…, kt/delta/…       ▲ POST add-checkpoint
//	  ▼                                          │
//	Handler ── Source ── published notes ── Witnesses
//	              │
//	              └─ tiles and entry bundles of the log, never above the
//	                 newest published checkpoint
//
// What it serves is public by construction: leaves, hashes, heads and notes.
// Bodies and payloads are not reachable from here.
package transparency
