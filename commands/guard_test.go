package commands

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/kt"
)

func mustGuard(t *testing.T, fs vfs.FS) *guard {
	t.Helper()
	g, err := openGuard(fs, "")
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGuardRemembersTheNewest(t *testing.T) {
	fs := vfs.NewMem()
	g := mustGuard(t, fs)
	if g.newest != (guarded{}) {
		t.Errorf("a new guard names %+v", g.newest)
	}
	at := guarded{generation: 1}
	for size := range uint64(5) {
		at.size, at.root = size+1, kt.Hash{byte(size), 7}
		if err := errors.Join(g.write(at), g.write(at), g.close()); err != nil {
			t.Fatal(err)
		}
		if g = mustGuard(t, fs); g.newest != at {
			t.Errorf("reopened: %+v, want %+v", g.newest, at)
		}
	}
	for name, wrong := range map[string]guarded{
		"smaller":           {1, 4, at.root},
		"another root":      {1, 5, kt.Hash{9}},
		"generation before": {0, 9, at.root},
	} {
		if err := g.write(wrong); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	next := guarded{2, 3, kt.Hash{3}} // a smaller log, gone on with after a loss
	if err := errors.Join(g.write(next), g.close()); err != nil {
		t.Fatal(err)
	}
	if g = mustGuard(t, fs); g.newest != next {
		t.Errorf("the next generation: %+v", g.newest)
	}
	if err := g.close(); err != nil {
		t.Fatal(err)
	}
}

// A torn write of one slot leaves the other; damage of both is refused.
func TestGuardSurvivesATornSlot(t *testing.T) {
	for name, c := range map[string]struct {
		writes, spoiled int // slots, of the number of writes
		want            uint64
		damaged         bool
	}{
		"first write torn":  {1, 1, 0, false},
		"second write torn": {2, 1, 1, false},
		"third write torn":  {3, 1, 2, false},
		"both spoiled":      {3, 2, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			g := mustGuard(t, fs)
			for size := range uint64(c.writes) {
				if err := g.write(guarded{1, size + 1, kt.Hash{1}}); err != nil {
					t.Fatal(err)
				}
			}
			slot := 1 - g.next // written last
			for range c.spoiled {
				if _, err := g.file.WriteAt([]byte{0xff}, slot*guardStride+20); err != nil {
					t.Fatal(err)
				}
				slot = 1 - slot
			}
			if err := g.close(); err != nil {
				t.Fatal(err)
			}
			g, err := openGuard(fs, "")
			if c.damaged {
				if !errors.Is(err, errGuard) {
					t.Errorf("opened with %v", err)
				}
				return
			}
			if err != nil || g.newest.size != c.want {
				t.Fatalf("%+v, %v; want size %d", g.newest, err, c.want)
			}
			if err := errors.Join(g.write(guarded{1, 9, kt.Hash{2}}), g.close()); err != nil {
				t.Fatal(err)
			}
			if g = mustGuard(t, fs); g.newest.size != 9 {
				t.Errorf("after the next write: %+v", g.newest)
			}
			if err := g.close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
