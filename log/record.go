package log

import "quicprochat/kt"

// Record is one event as the log keeps it.
type Record struct {
	Leaf    []byte     // leaf of the Merkle tree, 1 to 65,535 bytes; kept for ever
	Opening kt.Opening // opening of the leaf's commitment; zero when Erased
	Event   []byte     // event bytes exactly as committed to; nil when Erased
	Erased  bool       // body (opening and event) was erased
}

// PayloadKey names a payload: the owner whose payloads lie together, and an id unique under that owner.
type PayloadKey struct {
	Owner, ID [16]byte
}
