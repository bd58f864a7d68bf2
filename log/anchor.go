package log

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/kt"
)

// AnchorFile is the name of the head anchor in a data directory.
const AnchorFile = "anchor"

const (
	anchorMagic  = "qpc-anchor-v1\x00\x00\x00"
	anchorSlots  = 2
	anchorStride = 4096 // bytes between slots: no torn sector or page write reaches both
	anchorBody   = len(anchorMagic) + 16 + 8 + 32
	anchorSlot   = anchorBody + sha256.Size
)

// head is a size of the log and its root.
type head struct {
	size uint64
	root kt.Hash
}

// anchor is the open head anchor. It has its own lock: the acknowledger writes it while the writer commits.
type anchor struct {
	mu     sync.Mutex
	file   vfs.File
	store  [16]byte
	newest head
	next   int // slot to write next: never the one that holds newest
}

// createAnchor writes a new anchor with both slots valid and makes file and name durable.
func createAnchor(fs vfs.FS, dir string, store [16]byte, h head) error {
	data := make([]byte, anchorSlots*anchorStride)
	for i := range anchorSlots {
		copy(data[i*anchorStride:], encodeSlot(store, h))
	}
	if err := writeFileSynced(fs, fs.PathJoin(dir, AnchorFile), data); err != nil {
		return err
	}
	return syncDir(fs, dir)
}

// openAnchor finds the newest valid slot. Every other outcome is an *AnchorError of kind ErrNoAnchor.
func openAnchor(fs vfs.FS, dir string, store [16]byte) (*anchor, error) {
	path := fs.PathJoin(dir, AnchorFile)
	if there, err := exists(fs, path); err != nil {
		return nil, err
	} else if !there { // opening would create it
		return nil, &AnchorError{Kind: ErrNoAnchor, Detail: "the file is missing"}
	}
	file, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("open the head anchor: %w", err)
	}
	a := &anchor{file: file, store: store}
	if err := a.load(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return a, nil
}

func (a *anchor) load() error {
	var causes [anchorSlots]error
	valid := -1
	for i := range anchorSlots {
		var slot [anchorSlot]byte
		if _, err := a.file.ReadAt(slot[:], int64(i)*anchorStride); err != nil && err != io.EOF {
			return fmt.Errorf("read the head anchor: %w", err)
		}
		h, err := decodeSlot(slot[:], a.store)
		causes[i] = err
		switch {
		case err != nil:
		case valid >= 0 && h.size == a.newest.size && h.root != a.newest.root:
			return &AnchorError{Kind: ErrNoAnchor, Detail: fmt.Sprintf("its slots name two roots for size %d", h.size)}
		case valid < 0 || h.size > a.newest.size:
			valid, a.newest = i, h
		}
	}
	if valid < 0 {
		return &AnchorError{Kind: ErrNoAnchor, Detail: fmt.Sprintf("slot 0: %v; slot 1: %v", causes[0], causes[1])}
	}
	a.next = 1 - valid
	return nil
}

// write puts h into the older slot and syncs it. It reports whether anything had to be written.
func (a *anchor) write(h head) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case h == a.newest:
		return false, nil
	case h.size <= a.newest.size:
		return false, fmt.Errorf("anchor size %d with root %x contradicts or lies below the anchored size %d", h.size, h.root, a.newest.size)
	}
	if _, err := a.file.WriteAt(encodeSlot(a.store, h), int64(a.next)*anchorStride); err != nil {
		return true, fmt.Errorf("write the head anchor: %w", err)
	}
	// The file never changes its length, so its data is all there is to sync.
	if err := a.file.SyncData(); err != nil {
		return true, fmt.Errorf("sync the head anchor: %w", err)
	}
	a.newest, a.next = h, 1-a.next
	return true, nil
}

func (a *anchor) head() head {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.newest
}

func encodeSlot(store [16]byte, h head) []byte {
	b := make([]byte, 0, anchorSlot)
	b = append(b, anchorMagic...)
	b = append(b, store[:]...)
	b = binary.BigEndian.AppendUint64(b, h.size)
	b = append(b, h.root[:]...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func decodeSlot(b []byte, store [16]byte) (head, error) {
	var h head
	if sum := sha256.Sum256(b[:anchorBody]); !bytes.Equal(sum[:], b[anchorBody:]) {
		return h, errors.New("checksum is wrong")
	}
	if string(b[:len(anchorMagic)]) != anchorMagic {
		return h, errors.New("unknown version")
	}
	b = b[len(anchorMagic):]
	if !bytes.Equal(b[:16], store[:]) {
		return h, fmt.Errorf("belongs to store %x, and FORMAT names %x", b[:16], store)
	}
	h.size = binary.BigEndian.Uint64(b[16:])
	copy(h.root[:], b[24:])
	return h, nil
}
