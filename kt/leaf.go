package kt

import (
	"crypto/sha256"
	"errors"
	"fmt"
)

// Class is the first byte of a leaf: it says what the rest is. The numbers are
// part of the format and never change.
type Class uint8

const (
	// ClassOpaque is an event about which only its commitment is public.
	ClassOpaque Class = 0
	// ClassKT is one version of one key: label and commitment.
	ClassKT Class = 1
	// ClassHead sums up the key map and all earlier heads; wholly public.
	ClassHead Class = 2
	// ClassConfig says who the log is and with which keys; wholly public.
	ClassConfig Class = 3
)

// String names the class as docs/formats/leaves.md does.
func (c Class) String() string {
	switch c {
	case ClassOpaque:
		return "OPAQUE"
	case ClassKT:
		return "KT"
	case ClassHead:
		return "HEAD"
	case ClassConfig:
		return "CONFIG"
	}
	return fmt.Sprintf("Class(%d)", uint8(c))
}

// Sizes of leaves in bytes. A CONFIG leaf has no fixed size; MaxLeafSize bounds
// all classes.
const (
	OpaqueLeafSize = 1 + 32
	KTLeafSize     = 1 + 32 + 32
	HeadLeafSize   = 1 + 5*8 + 2*32
	MaxLeafSize    = 1 + maxConfigSize
)

// Hash is a SHA-256 value: a commitment, a leaf hash or the root of a tree.
type Hash [sha256.Size]byte

// ErrLeaf is in the chain of every error about the bytes of a leaf.
var ErrLeaf = errors.New("malformed leaf")

// Leaf is a parsed leaf. Which fields are set follows from Class: Commitment for
// OPAQUE, Label and Commitment for KT, Head for HEAD, Config for CONFIG.
type Leaf struct {
	Class      Class
	Label      Label
	Commitment Hash
	Head       Head
	Config     Config
}

// LeafHash is the hash under which a leaf enters the Merkle tree:
// SHA-256(0x00 ‖ leaf), RFC 6962 section 2.1.
func LeafHash(leaf []byte) Hash {
	// One buffer and one call: the streaming interface costs an allocation.
	var buf [1 + HeadLeafSize]byte
	return sha256.Sum256(append(buf[:1], leaf...))
}

// AppendOpaqueLeaf appends the leaf of an event that is not about keys.
func AppendOpaqueLeaf(dst []byte, c Hash) []byte {
	return append(append(dst, byte(ClassOpaque)), c[:]...)
}

// AppendKTLeaf appends the leaf of one version of one key.
func AppendKTLeaf(dst []byte, l Label, c Hash) []byte {
	dst = append(append(dst, byte(ClassKT)), l[:]...)
	return append(dst, c[:]...)
}

// AppendHeadLeaf appends the leaf of a head. It encodes any value; only a head
// that passes Head.Validate is parsed again.
func AppendHeadLeaf(dst []byte, h Head) []byte {
	return appendHead(append(dst, byte(ClassHead)), h)
}

// AppendConfigLeaf appends the leaf of a configuration. It panics if c does not
// pass Config.Validate: NewConfig gives one that does.
func AppendConfigLeaf(dst []byte, c Config) []byte {
	return AppendConfig(append(dst, byte(ClassConfig)), c)
}

// ParseLeaf reads a leaf. It accepts exactly the bytes that the Append functions
// make of valid values, so appending the result again gives the same bytes. The
// result shares no memory with leaf. Errors wrap ErrLeaf.
func ParseLeaf(leaf []byte) (Leaf, error) {
	if len(leaf) == 0 {
		return Leaf{}, fmt.Errorf("%w: empty", ErrLeaf)
	}
	l := Leaf{Class: Class(leaf[0])}
	body := leaf[1:]
	switch l.Class {
	case ClassOpaque:
		if len(leaf) != OpaqueLeafSize {
			return Leaf{}, sizeError(l.Class, len(leaf), OpaqueLeafSize)
		}
		l.Commitment = Hash(body)
	case ClassKT:
		if len(leaf) != KTLeafSize {
			return Leaf{}, sizeError(l.Class, len(leaf), KTLeafSize)
		}
		l.Label, l.Commitment = Label(body[:32]), Hash(body[32:])
	case ClassHead:
		if len(leaf) != HeadLeafSize {
			return Leaf{}, sizeError(l.Class, len(leaf), HeadLeafSize)
		}
		l.Head = parseHead(body)
		if err := l.Head.Validate(); err != nil {
			return Leaf{}, err
		}
	case ClassConfig:
		c, err := ParseConfig(body)
		if err != nil {
			return Leaf{}, err
		}
		l.Config = c
	default:
		return Leaf{}, fmt.Errorf("%w: unknown class 0x%02x", ErrLeaf, leaf[0])
	}
	return l, nil
}

func sizeError(c Class, got, want int) error {
	return fmt.Errorf("%w: %v leaf of %d bytes, want %d", ErrLeaf, c, got, want)
}
