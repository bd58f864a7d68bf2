package kt

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
)

// Head is the content of a HEAD leaf: it writes the state of the key map, and of
// all heads before, into the log itself. A checkpoint of format 1 is signed only
// at a size whose last leaf is a head; a log of format 0 holds none.
type Head struct {
	// Epoch is the number of heads before this one.
	Epoch uint64
	// TimeMS is when it was made, Unix milliseconds.
	TimeMS uint64
	// PrevHead is the log index of the head before; 0 in the first.
	PrevHead uint64
	// Config is the log index of the newest CONFIG leaf.
	Config uint64
	// KTCount is the number of KT leaves before this head.
	KTCount uint64
	// MapRoot is the root of the prefix map over (label, commitment); zero while
	// KTCount is 0.
	MapRoot Hash
	// HeadsRoot is the RFC 6962 root over all earlier HEAD leaves; in the first
	// head the root of the empty tree, SHA-256 of nothing.
	HeadsRoot Hash
}

// EmptyHeadsRoot is the root of the tree without leaves (RFC 6962 section 2.1),
// which the first head carries.
var EmptyHeadsRoot = Hash(sha256.Sum256(nil))

// Validate checks what can be said about a head without its log. It does not
// check that the roots are right: only a replay can. Errors wrap ErrLeaf.
func (h Head) Validate() error {
	switch {
	case h.TimeMS == 0 || h.TimeMS > math.MaxInt64:
		return fmt.Errorf("%w: HEAD time %d", ErrLeaf, h.TimeMS)
	case h.Epoch == 0 && (h.PrevHead != 0 || h.HeadsRoot != EmptyHeadsRoot):
		return fmt.Errorf("%w: first HEAD refers to an earlier one", ErrLeaf)
	// Leaf 0 is a CONFIG, so the e-th head has at least index e.
	case h.Epoch > 0 && h.PrevHead < h.Epoch:
		return fmt.Errorf("%w: HEAD of epoch %d after one at index %d", ErrLeaf, h.Epoch, h.PrevHead)
	case h.Epoch > 0 && h.HeadsRoot == EmptyHeadsRoot:
		return fmt.Errorf("%w: HEAD of epoch %d with the root of no heads", ErrLeaf, h.Epoch)
	case h.Epoch > 0 && h.Config == h.PrevHead:
		return fmt.Errorf("%w: HEAD names index %d as HEAD and as CONFIG", ErrLeaf, h.Config)
	case (h.KTCount == 0) != (h.MapRoot == Hash{}):
		return fmt.Errorf("%w: HEAD with %d KT leaves and a map root that contradicts it", ErrLeaf, h.KTCount)
	}
	return nil
}

func appendHead(dst []byte, h Head) []byte {
	for _, v := range [...]uint64{h.Epoch, h.TimeMS, h.PrevHead, h.Config, h.KTCount} {
		dst = binary.BigEndian.AppendUint64(dst, v)
	}
	dst = append(dst, h.MapRoot[:]...)
	return append(dst, h.HeadsRoot[:]...)
}

// parseHead reads what appendHead wrote; b has HeadLeafSize-1 bytes.
func parseHead(b []byte) Head {
	u := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return Head{
		Epoch: u(0), TimeMS: u(1), PrevHead: u(2), Config: u(3), KTCount: u(4),
		MapRoot: Hash(b[40:72]), HeadsRoot: Hash(b[72:104]),
	}
}
