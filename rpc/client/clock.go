package client

import (
	"crypto/rand"
	"encoding/binary"
	"sync/atomic"
	"time"
)

// clock follows the server's time. The zero value believes the local one.
type clock struct {
	offset atomic.Int64 // server − local, ms
}

// learn takes the server's time out of a reply to a call that was sent at start
// and answered now; the server read its clock somewhere between.
func (c *clock) learn(serverMS uint64, start, end time.Time) {
	if serverMS == 0 || serverMS > 1<<48 {
		return
	}
	middle := start.UnixMilli() + end.Sub(start).Milliseconds()/2
	c.offset.Store(int64(serverMS) - middle)
}

// now is the server's time in Unix milliseconds, as well as it is known.
func (c *clock) now() int64 { return time.Now().UnixMilli() + c.offset.Load() }

// requestIDSize is the size of a UUID in bytes.
const requestIDSize = 16

// newRequestID returns a UUIDv7 (RFC 9562 §5.7) with the server's time.
func (c *clock) newRequestID() (id [requestIDSize]byte) {
	rand.Read(id[6:]) // never fails (crypto/rand)
	ms := uint64(max(c.now(), 0))
	binary.BigEndian.PutUint32(id[0:], uint32(ms>>16))
	binary.BigEndian.PutUint16(id[4:], uint16(ms))
	id[6] = id[6]&0x0f | 0x70 // version 7
	id[8] = id[8]&0x3f | 0x80 // variant 10
	return id
}
