// Package datadir opens, locks and creates a server's data directory. It owns
// the directory's layout, its secrets and the decision whether a directory is
// new; what is inside log/ and views/ belongs to the packages log and
// projections.
//
//	data/
//	  FORMAT                  format version and store id; written last
//	  LOCK                    held while a process uses the directory
//	  log/ anchor             the log (the truth) and its head anchor
//	  guard                   what was signed last (package commands)
//	  guard.evidence          a note of this log that the log lacks, if one was shown
//	  log.vkey                C2SP note verifier key of the log, one line
//	  secrets/                0700; one 0600 file per secret
//	    ca-key                ECDSA P-256 key of the server's own CA
//	    log-key               Ed25519 seed that signs the log
//	    vrf-seed              ECVRF seed of key transparency
//	    opaque-1              OPAQUE seed and key pair, key version 1
//	    opaque-fake-1         record that stands in for unknown names
//	  views/ snapshots/       what is folded out of the log
//	  ca-cert.der server-cert.der server-key.der
//	  .new/                   only while the directory is being created
//
// # Creation
//
// A directory is new exactly when it holds neither FORMAT nor log/; an
// operator's certificates may lie there already. Everything is made inside
// .new/, synced, then moved into place, FORMAT last:
//
//	.new/{secrets,log,anchor,log.vkey}  build, sync
//	.new/FORMAT                         marks .new/ as complete, sync
//	.new/* → data/*                     rename all but FORMAT, sync
//	.new/FORMAT → data/FORMAT           from here on the directory exists
//
// A start that finds .new/ without data/FORMAT goes on where a crash stopped
// the creation: an incomplete .new/ (no FORMAT in it) is thrown away and
// redone, a complete one is moved into place. Nothing outside .new/ is ever
// deleted, so no path through creation can lose a log or a secret.
//
// # Refusals
//
// Whatever does not fit stops the start with one sentence that names cause and
// remedy (Refused). Nothing is repaired by guessing: a missing secret is not
// replaced by a new one, because new secrets would lock every user out.
package datadir
