package log

import "encoding/binary"

// Key prefixes of the store. No other file names them.
const (
	prefixSegment = 's'
	prefixPayload = 'p'
	prefixTile    = 't'
	prefixBundle  = 'b'
)

const (
	segmentKeyLen = 1 + 8
	payloadKeyLen = 1 + 16 + 16
)

// keyRange is a half-open range of keys.
type keyRange struct{ lower, upper []byte }

func prefixRange(prefix byte) keyRange { return keyRange{[]byte{prefix}, []byte{prefix + 1}} }

func segmentRange() keyRange { return prefixRange(prefixSegment) }
func payloadRange() keyRange { return prefixRange(prefixPayload) }
func tileRange() keyRange    { return prefixRange(prefixTile) }
func bundleRange() keyRange  { return prefixRange(prefixBundle) }

// tileLevelRange holds the tiles of one level.
func tileLevelRange(level int) keyRange {
	return keyRange{[]byte{prefixTile, byte(level)}, []byte{prefixTile, byte(level) + 1}}
}

// ownerRange holds the payloads of one owner.
func ownerRange(owner [16]byte) keyRange {
	lower := append([]byte{prefixPayload}, owner[:]...)
	upper := append([]byte(nil), lower...)
	for i := len(upper) - 1; i >= 0; i-- {
		upper[i]++
		if upper[i] != 0 {
			break // the prefix byte never wraps, so this ends at the latest there
		}
	}
	return keyRange{lower, upper}
}

func appendSegmentKey(dst []byte, first uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, prefixSegment), first)
}

// segmentKeyFirst gives the index in a segment key, false when the key is none.
func segmentKeyFirst(key []byte) (uint64, bool) {
	if len(key) != segmentKeyLen || key[0] != prefixSegment {
		return 0, false
	}
	return binary.BigEndian.Uint64(key[1:]), true
}

func appendPayloadKey(dst []byte, k PayloadKey) []byte {
	dst = append(dst, prefixPayload)
	dst = append(dst, k.Owner[:]...)
	return append(dst, k.ID[:]...)
}

func appendTileKey(dst []byte, level int, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, prefixTile, byte(level)), n)
}

func tileKeyNumber(key []byte) (uint64, bool) {
	if len(key) != 10 || key[0] != prefixTile {
		return 0, false
	}
	return binary.BigEndian.Uint64(key[2:]), true
}

func appendBundleKey(dst []byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, prefixBundle), n)
}
