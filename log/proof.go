package log

import "quicprochat/kt"

// LeafHash returns the RFC 6962 leaf hash of record i.
func (l *Log) LeafHash(i uint64) (kt.Hash, error) { panic("not yet") }

// RootAt returns the RFC 6962 root over the first size records.
func (l *Log) RootAt(size uint64) (kt.Hash, error) { panic("not yet") }

// InclusionProof returns the RFC 6962 audit path of record index in the tree of the given size.
func (l *Log) InclusionProof(index, size uint64) ([][]byte, error) { panic("not yet") }

// ConsistencyProof returns the RFC 6962 consistency proof between the trees of sizes m ≤ n.
func (l *Log) ConsistencyProof(m, n uint64) ([][]byte, error) { panic("not yet") }

// Tile returns the hash tile (level, n) with width hashes, 1 to 256, as C2SP tlog-tiles serves it.
func (l *Log) Tile(level int, n uint64, width int) ([]byte, error) { panic("not yet") }

// EntryBundle returns the entry bundle n with width entries, 1 to 256, as C2SP tlog-tiles serves it.
func (l *Log) EntryBundle(n uint64, width int) ([]byte, error) { panic("not yet") }
