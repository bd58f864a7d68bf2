// Package log is the append-only log of events: the truth from which everything else is folded. It knows bytes and
// hashes, not meaning.
//
// Every record is one leaf of one RFC 6962 Merkle tree. A record has three parts with three life times: the leaf is
// kept for ever; the body (opening and event bytes) until it is erased; payloads, which belong to no record, until they
// are released. Erasing changes no leaf, tile, root or proof.
//
// # Files
//
//	<dir>/FORMAT   text; version of the data directory and store id; written last at creation
//	<dir>/anchor   head anchor: what must not be lost (see below)
//	<dir>/log/     a Pebble store, opened at storeFormat
//
// # Keys of the store (integers big-endian)
//
//	's' first[8]            → segment: the records of one committed group
//	'p' owner[16] id[16]    → payload, as given
//	't' level[1] number[8]  → full hash tile, 256 × 32 bytes          (C2SP tlog-tiles)
//	'b' number[8]           → full entry bundle, 256 × (u16 ‖ leaf)   (C2SP tlog-tiles)
//
// A segment is one value, so that a group costs one key however many records it has:
//
//	┌─────────┬──────────┬────────┬─────┬──────────┬─────────────┬──────────┬────────┐
//	│ version │ first u64│ record │  …  │ record   │ end u32 × n │ n u32    │ CRC u32│
//	└─────────┴──────────┴────────┴─────┴──────────┴─────────────┴──────────┴────────┘
//	                     ╰─ record: flags u8 ‖ u16 len(leaf) ‖ leaf ‖ [ opening[16] ‖ event ]
//
// end is the offset behind each record, counted from the start of the value; the CRC is CRC-32C over all bytes before
// it. Flag 1 says that the body was erased: opening and event are then absent. Segments follow each other without gap:
// the key of the next is first + n.
//
// Only a group's segment and its payload operations are in its synced batch. Tiles and bundles derive from the
// segments: they are written without sync, by a goroutine of their own, once they are full, and completed when the log
// is opened. One batch holds all tiles that one full bundle completes, so tiles of level 0 without a gap imply all
// others. The compact range and the newest partial tiles are in memory only.
//
// # Head anchor
//
// A store alone cannot know that its newest, acknowledged part is missing: a torn or rotten tail of a write-ahead log
// looks like a clean end. The anchor lies outside the store and says how far it must reach. It has two slots, 4096
// bytes apart so that no torn write reaches both, written in turn and synced:
//
//	offset 0, 4096:  magic[16] ‖ store id[16] ‖ size u64 ‖ root[32] ‖ SHA-256 of the 72 bytes before [32]
//
// The newest valid slot counts. A log that is shorter, has another root at that size, or has no valid slot is not
// opened; nothing is repaired by dropping. A longer log is normal: groups become durable before they are anchored.
//
// # Who owns what
//
// One writer makes and commits groups (Group). One acknowledger waits for them in order (Pending.Wait) and writes the
// anchor (WriteAnchor). Everything else reads, concurrently. The tile goroutine owns the keys 't' and 'b'. A write of
// unknown outcome fails the log for good (Err, Failed): from then on nothing reaches the disk any more.
//
// The store's format is set explicitly, and a new store is created, closed and opened again before its first record:
// the write-ahead log that Pebble starts while it creates a store has an old format in which flipped bits pass for a
// clean end.
package log
