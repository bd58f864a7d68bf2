package kt

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestTilePaths(t *testing.T) {
	for path, want := range map[string]TilePath{
		"tile/0/000":                                 {HashTile, 0, 0, 256},
		"tile/3/x001/x234/067":                       {HashTile, 3, 1234067, 256},
		"tile/3/x001/x234/067.p/1":                   {HashTile, 3, 1234067, 1},
		"tile/7/999.p/255":                           {HashTile, 7, 999, 255},
		"tile/entries/x001/000":                      {EntryBundle, 0, 1000, 256},
		"tile/entries/012.p/80":                      {EntryBundle, 0, 12, 80},
		"kt/delta/000.p/2":                           {DeltaBundle, 0, 0, 2},
		"kt/delta/x018/x446/x744/x073/x709/x551/615": {DeltaBundle, 0, 1<<64 - 1, 256},
	} {
		got, err := ParseTilePath(path)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", path, got, err, want)
		}
		if want.String() != path {
			t.Errorf("%+v is spelled %s, want %s", want, want, path)
		}
	}
	for _, path := range []string{
		"", "tile", "tile/", "tile/0", "tile/0/", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/x000/000", "tile/00/000", "tile/8/000", "tile/-1/000",
		"tile/0/001/000", "tile/0/x001", "tile/0/x001/00", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/", "tile/0/000.p/1.p/1",
		"tile/0/000/", "/tile/0/000", "tile/0/+00", "tile/entries/x1/000", "kt/delta/", "kt/delta/x018/x446/x744/x073/x709/x551/616",
		"tile/0/000.p/+1", "tile/entries", "kt/000", "tile/0//000", "tile/0/x000x/001",
	} {
		if p, err := ParseTilePath(path); err == nil {
			t.Errorf("%q was taken for %+v", path, p)
		}
	}
}

func TestTilesOfASize(t *testing.T) {
	names := func(paths []TilePath) string {
		var all []string
		for _, p := range paths {
			all = append(all, p.String())
		}
		return strings.Join(all, " ")
	}
	for _, c := range []struct {
		level      int
		from, size uint64
		want       string
	}{
		{0, 0, 0, ""},
		{0, 0, 1, "tile/0/000.p/1"},
		{0, 0, 256, "tile/0/000"},
		{0, 0, 600, "tile/0/000 tile/0/001 tile/0/002.p/88"},
		{0, 255, 600, "tile/0/000 tile/0/001 tile/0/002.p/88"},
		{0, 256, 600, "tile/0/001 tile/0/002.p/88"},
		{0, 600, 600, "tile/0/002.p/88"},
		{1, 0, 600, "tile/1/000.p/2"},
		{1, 0, 255, ""},
		{2, 0, 70000, "tile/2/000.p/1"},
	} {
		if got := names(slices.Collect(Tiles(HashTile, c.level, c.from, c.size))); got != c.want {
			t.Errorf("level %d, from %d to %d: %s, want %s", c.level, c.from, c.size, got, c.want)
		}
	}
}

// TestTilesOfHugeLogs: a size may be a stranger's word. Nothing is made in advance.
func TestTilesOfHugeLogs(t *testing.T) {
	for _, size := range []uint64{1 << 62, math.MaxInt64, math.MaxUint64} {
		n := uint64(0)
		for p := range Tiles(EntryBundle, 0, 0, size) {
			if p.N != n || p.Width != TileWidth {
				t.Fatalf("tile %d of %d leaves: %v", n, size, p)
			}
			if n++; n == 3 {
				break
			}
		}
		var last TilePath
		for p := range Tiles(EntryBundle, 0, size, size) {
			last = p
		}
		if width := int(size % TileWidth); width != last.Width || width > 0 && last.N != size/TileWidth {
			t.Errorf("last tile of %d leaves: %v", size, last)
		}
	}
}

func TestMaxSize(t *testing.T) {
	for path, want := range map[string]int{
		"tile/0/000": 256 * 32, "tile/3/000.p/7": 7 * 32, "tile/entries/x001/000": 256 * (2 + MaxLeafSize), "kt/delta/000": 64 << 20,
	} {
		p, err := ParseTilePath(path)
		if err != nil || p.MaxSize() != want {
			t.Errorf("%s: %d bytes, want %d (%v)", path, p.MaxSize(), want, err)
		}
	}
}
