package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// RotKind is what happened to the bytes of a file.
type RotKind string

// Kinds of damage that a disk does to what it stores.
const (
	RotFlip  RotKind = "flip"  // bit At%8 of byte At/8 is another
	RotCut   RotKind = "cut"   // the file ends at byte At
	RotZeros RotKind = "zeros" // from byte At on the file is zeros
	RotBlock RotKind = "block" // the block that begins at byte At is zeros
)

// Rot is damage to one file of a data directory.
type Rot struct {
	Disk string // the one of a scripted run that is damaged, see rotDisks
	File string // below the data directory
	Kind RotKind
	At   int
}

func (r Rot) String() string { return fmt.Sprintf("%s:%s:%s:%d", r.Disk, r.File, r.Kind, r.At) }

// ParseRot reads what String writes.
func ParseRot(text string) (r Rot, err error) {
	parts := strings.Split(text, ":")
	if len(parts) != 4 {
		return r, fmt.Errorf("%q is not DISK:FILE:KIND:AT", text)
	}
	r = Rot{Disk: parts[0], File: parts[1], Kind: RotKind(parts[2])}
	if _, err := fmt.Sscanf(parts[3], "%d", &r.At); err != nil {
		return r, fmt.Errorf("%q is no rot: %w", text, err)
	}
	return r, nil
}

// apply damages the file. A file that would be as it was is an error: such a run
// proves nothing.
func (r Rot) apply(fs *vfs.MemFS) error {
	name := path.Join(DataDir, r.File)
	good, err := readAll(fs, name)
	if err != nil {
		return err
	}
	bad := slices.Clone(good)
	switch at := r.At; {
	case r.Kind == RotFlip && at/8 < len(good):
		bad[at/8] ^= 1 << (at % 8)
	case r.Kind == RotCut && at < len(good):
		bad = bad[:at]
	case r.Kind == RotZeros && at < len(good):
		clear(bad[at:])
	case r.Kind == RotBlock && at < len(good):
		clear(bad[at:min(at+blockSize, len(bad))])
	}
	if slices.Equal(bad, good) {
		return fmt.Errorf("%v changes nothing: the file has %d bytes", r, len(good))
	}
	return writeAll(fs, name, bad)
}

// class is the kind of file that rot is in, by which runs are counted.
func (r Rot) class() string { return rotClass(r.File) }

func rotClass(file string) string {
	dir, name := path.Split(file)
	dir, _, _ = strings.Cut(dir, "/")
	switch ext := path.Ext(name); {
	case dir == "", dir == "secrets":
		return file
	case dir == "snapshots":
		return dir
	case ext == ".log" || ext == ".sst":
		return dir + "/*" + ext
	}
	name, _, _ = strings.Cut(name, "-")
	return dir + "/" + name
}

// rotFiles lists the files of a data directory that hold anything, in order.
func rotFiles(fs *vfs.MemFS) (files []string, err error) {
	var walk func(string) error
	walk = func(dir string) error {
		names, err := fs.List(path.Join(DataDir, dir))
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, name := range names {
			info, err := fs.Stat(path.Join(DataDir, dir, name))
			switch {
			case err != nil:
				return err
			case info.IsDir():
				err = walk(path.Join(dir, name))
			case info.Size() > 0:
				files = append(files, path.Join(dir, name))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return files, walk("")
}

// RotSample says how much of the damage that can be done is done.
type RotSample struct {
	Seed uint64
	// Flips and Cuts are how many are drawn for each file: at most one flip in
	// every byte, and a cut at each.
	Flips, Cuts int
}

// draw lists damage to a file.
func (s RotSample) draw(disk, file string, content []byte) (rots []Rot) {
	rng := rand.New(rand.NewPCG(s.Seed, uint64(len(content))))
	add := func(kind RotKind, at int) { rots = append(rots, Rot{disk, file, kind, at}) }
	for _, at := range positions(rng, s.Flips, len(content)) {
		add(RotFlip, 8*at+rng.IntN(8))
	}
	// Behind the last byte that is not zero there is nothing to lose.
	end := len(strings.TrimRight(string(content), "\x00"))
	for _, at := range positions(rng, s.Cuts, end) {
		add(RotCut, at)
		add(RotZeros, at)
	}
	blocks := (end + blockSize - 1) / blockSize
	for _, n := range positions(rng, s.Cuts, blocks) {
		at := n * blockSize
		if slices.ContainsFunc(content[at:min(at+blockSize, end)], func(b byte) bool { return b != 0 }) {
			add(RotBlock, at)
		}
	}
	return rots
}

// positions draws up to n of the numbers below end, one from each of n equal
// parts.
func positions(rng *rand.Rand, n, end int) (at []int) {
	n = min(n, end)
	for i := range n {
		from, to := i*end/n, (i+1)*end/n
		at = append(at, from+rng.IntN(to-from))
	}
	return at
}

// rotDisks are the disks that the scripted run leaves: of a server that was
// stopped, of one whose process ended in the midst, and of one that was stopped
// and whose views are gone, so that its start needs a snapshot.
var rotDisks = []string{"stopped", "killed", "viewless"}

// Rots lists the damage of a sample, of all disks and files.
func (r *RotRun) Rots(s RotSample) (rots []Rot, err error) {
	for _, disk := range rotDisks {
		fs := r.disks[disk]
		files, err := rotFiles(fs)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if disk == "viewless" && !strings.HasPrefix(file, "snapshots/") {
				continue
			}
			content, err := readAll(fs, path.Join(DataDir, file))
			if err != nil {
				return nil, err
			}
			rots = append(rots, s.draw(disk, file, content)...)
		}
	}
	if len(rots) == 0 {
		return nil, errors.New("there is nothing to damage")
	}
	return rots, nil
}
