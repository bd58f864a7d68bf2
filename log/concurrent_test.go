package log

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// One writer, one acknowledger, an eraser and readers work at the same time, as the engine and its handlers do.
// Whatever a reader asks for at a size that it was told of is consistent with that size's root.
func TestConcurrentUse(t *testing.T) {
	rng := seeded(t)
	fs := vfs.NewMem()
	createLog(t, fs)
	l := openLog(t, fs)
	groups := scaled(120, 2000)
	pending := make(chan *Pending, 3)
	var writers, readers sync.WaitGroup
	errs := make(chan error, 16)
	stop := make(chan struct{})
	fail := func(err error) {
		select {
		case errs <- err:
		default:
		}
	}
	writers.Go(func() {
		defer close(pending)
		for i := range groups {
			g := l.NewGroup()
			for range 1 + i%80 {
				g.Append(testRecord(g.Next()))
			}
			p, err := g.Commit()
			if err != nil {
				fail(err)
				return
			}
			pending <- p
		}
	})
	writers.Go(func() {
		for p := range pending {
			if err := p.Wait(); err != nil {
				fail(err)
			}
			if err := l.WriteAnchor(p.Size(), p.Root()); err != nil {
				fail(err)
			}
		}
	})
	for range 3 {
		seed := rng.Uint64()
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 0))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := readOnce(l, rng); err != nil {
					fail(err)
					return
				}
			}
		})
	}
	readers.Go(func() {
		for i := uint64(0); ; i += 7 {
			select {
			case <-stop:
				return
			default:
			}
			if i < l.Size() {
				if _, err := l.Erase(t.Context(), []uint64{i}); err != nil {
					fail(err)
					return
				}
			}
		}
	})
	writers.Wait()
	close(stop)
	readers.Wait()
	select {
	case err := <-errs:
		t.Error(err)
	default:
	}
	size, root := l.Size(), l.Root()
	mustClose(t, l)
	l = openLog(t, fs)
	defer mustClose(t, l)
	if l.Size() != size || l.Root() != root {
		t.Errorf("reopened %d %x, want %d %x", l.Size(), l.Root(), size, root)
	}
}

// readOnce checks a random record with its proof at a random size.
func readOnce(l *Log, rng *rand.Rand) error {
	n := 1 + rng.Uint64N(l.Size())
	index := rng.Uint64N(n)
	root, err := l.RootAt(n)
	if err != nil {
		return err
	}
	inc, err := l.InclusionProof(index, n)
	if err != nil {
		return err
	}
	leaf, err := l.LeafHash(index)
	if err != nil {
		return err
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, n, leaf[:], inc, root[:]); err != nil {
		return fmt.Errorf("record %d at size %d: %w", index, n, err)
	}
	r, err := l.Record(index)
	if err != nil {
		return err
	}
	if leafHash(index) != leaf || string(r.Leaf) != string(testRecord(index).Leaf) {
		return fmt.Errorf("record %d has another leaf", index)
	}
	bundle := index / tileWidth
	if _, err := l.EntryBundle(bundle, int(min(tileWidth, n-bundle*tileWidth))); err != nil {
		return err
	}
	if _, err := l.Tile(0, bundle, int(min(tileWidth, n-bundle*tileWidth))); err != nil {
		return err
	}
	if _, err := l.Record(n + 1<<40); !errors.Is(err, ErrOutOfRange) {
		return fmt.Errorf("record far beyond the end: %w", err)
	}
	return nil
}
