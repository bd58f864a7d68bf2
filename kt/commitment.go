package kt

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"sync"
)

// Opening is the random part of a commitment, 16 bytes from a cryptographic
// source, fresh for each event. It lives beside the event bytes; once it is
// erased, nobody can tell what the commitment was about.
type Opening [16]byte

// commitmentKey is the HMAC key: a public constant, which separates commitments
// from every other use of HMAC-SHA256.
const commitmentKey = "qpc-commitment-v1"

// committer is a keyed HMAC with its input buffers. Reset restores the state
// after the key block, so a pooled one saves two SHA-256 blocks and all
// allocations per commitment.
type committer struct {
	mac hash.Hash
	pre []byte
	sum []byte
}

var committers = sync.Pool{New: func() any {
	return &committer{mac: hmac.New(sha256.New, []byte(commitmentKey))}
}}

// Commit is the hiding, binding commitment to an event:
//
//	HMAC-SHA256(key "qpc-commitment-v1", opening[16] ‖ u16 len(ctx) ‖ ctx ‖ u32 len(body) ‖ body)
//
// For every class that has one, body is the event exactly as stored. ctx ties it
// to its leaf: OpaqueContext of the event's type for OPAQUE, VRFInput for KT. It
// panics if ctx exceeds 65,535 bytes or body 4 GiB.
func Commit(o Opening, ctx, body []byte) Hash {
	if len(ctx) > math.MaxUint16 || uint64(len(body)) > math.MaxUint32 {
		panic(fmt.Sprintf("kt: Commit: context of %d bytes, body of %d", len(ctx), len(body)))
	}
	c := committers.Get().(*committer)
	defer committers.Put(c)
	c.mac.Reset()
	c.pre = append(c.pre[:0], o[:]...)
	c.pre = binary.BigEndian.AppendUint16(c.pre, uint16(len(ctx)))
	c.pre = append(c.pre, ctx...)
	c.pre = binary.BigEndian.AppendUint32(c.pre, uint32(len(body)))
	c.mac.Write(c.pre)
	c.mac.Write(body)
	c.sum = c.mac.Sum(c.sum[:0])
	sum := Hash(c.sum)
	// The opening is the secret of the commitment: none stays in the pool.
	clear(c.pre)
	return sum
}

// OpaqueContext is the context of an OPAQUE leaf's commitment: the event's type
// number (the field number in qpc.v1.Event.body), big-endian.
func OpaqueContext(eventType uint16) [2]byte {
	return [2]byte{byte(eventType >> 8), byte(eventType)}
}
