package projections

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// digester hashes rows in key order:
// SHA-256 over (u32 len(key) ‖ key ‖ u32 len(value) ‖ value) of every row.
type digester struct {
	hash hash.Hash
	rows uint64
}

func newDigester() *digester { return &digester{hash: sha256.New()} }

func (d *digester) add(key, value []byte) {
	var size [4]byte
	for _, field := range [...][]byte{key, value} {
		binary.BigEndian.PutUint32(size[:], uint32(len(field)))
		d.hash.Write(size[:])
		d.hash.Write(field)
	}
	d.rows++
}

func (d *digester) sum() (sum Hash) {
	d.hash.Sum(sum[:0])
	return sum
}

// Digest is a hash over all rows in key order, the cursor included: views that
// were folded from the same events have the same digest, however they came to
// be (live, rebuilt, from a snapshot). It reads everything.
func Digest(r Reader) (Hash, error) {
	d := newDigester()
	err := scanRows(r, nil, nil, func(key, value []byte) (bool, error) {
		d.add(key, value)
		return true, nil
	})
	return d.sum(), err
}
