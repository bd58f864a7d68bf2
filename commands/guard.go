package commands

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/kt"
)

// guardFile remembers, outside the log, what was signed last: a server that was
// put back to an older state must not sign a second history. It is no part of a
// backup. Two slots are written in turn and synced, so that a torn write leaves
// the other one:
//
//	offset 0, 4096:  magic[16] ‖ generation u32 ‖ size u64 ‖ root[32] ‖ SHA-256 of the 60 bytes before
//
// The slot of the largest generation, then size, counts.
const guardFile = "guard"

const (
	guardMagic  = "qpc-guard-v1\x00\x00\x00\x00"
	guardStride = 4096
	guardBody   = len(guardMagic) + 4 + 8 + 32
	guardSlot   = guardBody + sha256.Size
)

// guarded is a signed tree of one generation of the log (kt.Origin).
type guarded struct {
	generation uint32
	size       uint64
	root       kt.Hash
}

func (g guarded) below(o guarded) bool {
	return g.generation < o.generation || (g.generation == o.generation && g.size < o.size)
}

// guard is the open guard file. Only the signer uses it.
type guard struct {
	file   vfs.File
	newest guarded // zero: nothing was signed yet
	next   int64   // slot to write
}

// errGuard is in the chain of errors about a guard file that can't be trusted.
var errGuard = errors.New("the signing guard is damaged")

// openGuard opens or makes the guard file. A new one is durable on return.
func openGuard(fs vfs.FS, dir string) (*guard, error) {
	path := fs.PathJoin(dir, guardFile)
	if _, err := fs.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := createGuard(fs, dir, path); err != nil {
			return nil, fmt.Errorf("create the signing guard: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("look for the signing guard: %w", err)
	}
	file, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("open the signing guard: %w", err)
	}
	g := &guard{file: file}
	if err := g.load(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return g, nil
}

func createGuard(fs vfs.FS, dir, path string) error {
	file, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err := file.Write(make([]byte, 2*guardStride)); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	folder, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// load finds the newest slot. A slot of zeros was never written; one that is
// neither that nor valid was torn, and the other one counts.
func (g *guard) load() error {
	valid, torn := 0, 0
	for i := range int64(2) {
		var slot [guardSlot]byte
		if _, err := g.file.ReadAt(slot[:], i*guardStride); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the signing guard: %w", err)
		}
		if slot == ([guardSlot]byte{}) {
			continue
		}
		at, ok := parseGuard(slot[:])
		if !ok {
			torn++
			continue
		}
		if valid++; valid == 1 || g.newest.below(at) {
			g.newest, g.next = at, 1-i
		}
	}
	if valid == 0 && torn > 0 {
		// The first write of all was torn, and nothing was signed by it: with one
		// slot never written that is certain.
		if torn == 1 {
			return nil
		}
		return fmt.Errorf("%w: no slot is whole", errGuard)
	}
	return nil
}

func parseGuard(slot []byte) (at guarded, ok bool) {
	sum := sha256.Sum256(slot[:guardBody])
	if !bytes.Equal(sum[:], slot[guardBody:]) || string(slot[:len(guardMagic)]) != guardMagic {
		return at, false
	}
	b := slot[len(guardMagic):guardBody]
	return guarded{binary.BigEndian.Uint32(b), binary.BigEndian.Uint64(b[4:]), kt.Hash(b[12:])}, true
}

// write makes durable that at is about to be signed. It refuses what was not
// signed after the newest.
func (g *guard) write(at guarded) error {
	if at == g.newest {
		return nil
	}
	if !g.newest.below(at) {
		return fmt.Errorf("size %d of generation %d was signed, %d of %d is not after it",
			g.newest.size, g.newest.generation, at.size, at.generation)
	}
	slot := append(make([]byte, 0, guardSlot), guardMagic...)
	slot = binary.BigEndian.AppendUint32(slot, at.generation)
	slot = binary.BigEndian.AppendUint64(slot, at.size)
	slot = append(slot, at.root[:]...)
	sum := sha256.Sum256(slot)
	if _, err := g.file.WriteAt(append(slot, sum[:]...), g.next*guardStride); err != nil {
		return fmt.Errorf("write the signing guard: %w", err)
	}
	// The file never changes its length, so its data is all there is to sync.
	if err := g.file.SyncData(); err != nil {
		return fmt.Errorf("sync the signing guard: %w", err)
	}
	g.newest, g.next = at, 1-g.next
	return nil
}

func (g *guard) close() error { return g.file.Close() }
