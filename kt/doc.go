// Package kt holds the public formats of quicprochat's log and what it takes to
// check them: leaf classes, hiding commitments, the labels of key transparency
// and the verifiable random function (VRF) that makes them, the map over labels,
// checkpoints and cosignatures, the verification of lookups, and the replay of
// whole logs. It has no storage, no clock and no randomness: everything is a
// function of its arguments, so the server, a client and an auditor run the same
// code.
//
// Every event of the server is one leaf of one RFC 6962 Merkle tree. A leaf is a
// class byte and what everybody may see; what only some may see stands behind a
// commitment:
//
//	OPAQUE  00 │ C[32]                                every event not about keys
//	KT      01 │ L[32] │ C[32]                        one version of one key
//	HEAD    02 │ epoch … kt_count │ map_root │ heads_root
//	CONFIG  03 │ body                                 index 0: who this log is
//
//	leaf ──SHA-256(00‖leaf)──▶ leaf hash ──▶ tree
//	 ├─ C = HMAC-SHA256("qpc-commitment-v1", opening ‖ ctx ‖ event bytes)
//	 └─ L = VRF(kind, id, version)[:32]
//
// Without the opening C says nothing about the event, so erasing opening and
// event bytes hides them for ever and changes no leaf, root or proof. Without
// the VRF key L says nothing about whose key it is, yet for each (kind, id,
// version) there is exactly one L and its owner can prove it.
//
// A HEAD writes the root of the map of all (L, C), and of all earlier heads, into
// the log; the log's key signs a checkpoint where the last leaf is one. Whoever
// asks gets a proof from that signature down to one value:
//
//	signed note ─▶ root ─▶ HEAD ─▶ map root ─▶ L ↦ C ─▶ opening, event ─▶ statement
//	     └─ witnesses        └─ heads root: every HEAD that was shown before
//
// A client checks it with a Verifier and keeps a State; an auditor makes all of it
// again with a Replayer, or with a KTReplayer from key events alone. What only a
// lying server shows is an *EvidenceError, which names the Step that failed.
//
// The exact bytes with test vectors are in docs/formats: leaves.md, checkpoints.md
// and proofs.md. The signed statements that clients make about their keys are in
// the package statement.
package kt
