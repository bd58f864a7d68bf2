package kt

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// TileWidth is the number of hashes in a full tile, of entries in a full bundle
// and of epochs in a full delta (C2SP tlog-tiles).
const TileWidth = 256

// maxTileLevel is the highest level of a hash tile: 8 bits of the index each.
const maxTileLevel = 7

// TileKind says which resource of a log a TilePath names.
type TileKind uint8

const (
	// HashTile is a tile of the Merkle tree: tile/<L>/<N>.
	HashTile TileKind = iota
	// EntryBundle holds leaves: tile/entries/<N>.
	EntryBundle
	// DeltaBundle holds heads and the KT leaves between them: kt/delta/<N>.
	DeltaBundle
)

// TilePath names one static resource of a log, relative to the URL of the log:
//
//	tile/<L>/<N>[.p/<W>]   tile/entries/<N>[.p/<W>]   kt/delta/<N>[.p/<W>]
//
// The first two are those of C2SP tlog-tiles. N stands in groups of three digits,
// all but the last behind an x: 1234067 is x001/x234/067.
type TilePath struct {
	Kind TileKind
	// Level is that of a HashTile, 0 to 7; 0 for the others.
	Level int
	// N is the number of the resource, from 0 on.
	N uint64
	// Width is how many hashes, entries or epochs it holds, 1 to TileWidth; below
	// TileWidth it is a partial resource.
	Width int
}

// String is the path.
func (p TilePath) String() string {
	var b strings.Builder
	switch p.Kind {
	case HashTile:
		fmt.Fprintf(&b, "tile/%d/", p.Level)
	case EntryBundle:
		b.WriteString("tile/entries/")
	case DeltaBundle:
		b.WriteString("kt/delta/")
	}
	digits := strconv.FormatUint(p.N, 10)
	digits = strings.Repeat("0", (3-len(digits)%3)%3) + digits
	for ; len(digits) > 3; digits = digits[3:] {
		b.WriteString("x" + digits[:3] + "/")
	}
	b.WriteString(digits)
	if p.Width < TileWidth {
		fmt.Fprintf(&b, ".p/%d", p.Width)
	}
	return b.String()
}

// ParseTilePath reads a path. It accepts exactly what String makes: every
// resource has one name, or caches would keep it several times.
func ParseTilePath(path string) (TilePath, error) {
	p := TilePath{Width: TileWidth}
	number, partial, cut := strings.Cut(path, ".p/")
	if cut {
		width, err := strconv.ParseUint(partial, 10, 8)
		if err != nil || width == 0 {
			return TilePath{}, fmt.Errorf("path %q has no partial width of 1 to %d", path, TileWidth-1)
		}
		p.Width = int(width)
	}
	switch {
	case strings.HasPrefix(number, "tile/entries/"):
		p.Kind, number = EntryBundle, strings.TrimPrefix(number, "tile/entries/")
	case strings.HasPrefix(number, "kt/delta/"):
		p.Kind, number = DeltaBundle, strings.TrimPrefix(number, "kt/delta/")
	case strings.HasPrefix(number, "tile/"):
		level, rest, _ := strings.Cut(strings.TrimPrefix(number, "tile/"), "/")
		l, err := strconv.ParseUint(level, 10, 8)
		if err != nil || l > maxTileLevel {
			return TilePath{}, fmt.Errorf("path %q has no level of 0 to %d", path, maxTileLevel)
		}
		p.Level, number = int(l), rest
	default:
		return TilePath{}, fmt.Errorf("path %q names no tile, bundle or delta", path)
	}
	n, err := strconv.ParseUint(strings.NewReplacer("x", "", "/", "").Replace(number), 10, 64)
	p.N = n
	if err != nil || p.String() != path {
		return TilePath{}, fmt.Errorf("path %q does not spell a number as tile paths do", path)
	}
	return p, nil
}

// Tiles gives the resources of one kind and level that a log has at a size (for
// DeltaBundle: a number of epochs) and that are not whole at the smaller size
// from, lowest first. They are made one at a time: the size may be a stranger's
// word, and there may be 2^55 of them.
func Tiles(kind TileKind, level int, from, size uint64) iter.Seq[TilePath] {
	shift := uint(8 * level)
	count := size >> shift
	return func(yield func(TilePath) bool) {
		for n := (from >> shift) / TileWidth; n < count/TileWidth || n == count/TileWidth && count%TileWidth > 0; n++ {
			if !yield(TilePath{Kind: kind, Level: level, N: n, Width: int(min(count-n*TileWidth, TileWidth))}) {
				return
			}
		}
	}
}

// maxDelta bounds a delta in bytes: 256 epochs of some 3,000 key events each.
const maxDelta = 64 << 20

// MaxSize is how many bytes the resource has at most: who serves more lies, and
// need not be read to the end.
func (p TilePath) MaxSize() int {
	switch p.Kind {
	case HashTile:
		return p.Width * len(Hash{})
	case EntryBundle:
		return p.Width * (2 + MaxLeafSize)
	}
	return maxDelta
}
