package bench

import (
	"encoding/binary"
	"math/rand/v2"
)

// payload is a buffer of random bytes, different for each call. Making them costs
// far less than a call: the buffer is drawn once, and each call gets a new
// 16-byte head, so that no two messages are alike.
type payload struct {
	bytes  []byte
	source *rand.PCG
}

func newPayload(size int) *payload {
	p := &payload{bytes: make([]byte, size), source: rand.NewPCG(rand.Uint64(), rand.Uint64())}
	for i := 0; i < size; i += 8 {
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], p.source.Uint64())
		copy(p.bytes[i:], word[:])
	}
	return p
}

func (p *payload) next() {
	var head [16]byte
	binary.LittleEndian.PutUint64(head[:8], p.source.Uint64())
	binary.LittleEndian.PutUint64(head[8:], p.source.Uint64())
	copy(p.bytes, head[:])
}
