package commands_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// powerFS is a disk in memory that can lose power before any operation that
// changes something, and that can lie about its syncs. Losing power changes
// nothing for those who use it: what would have been left is kept aside.
type powerFS struct {
	vfs.FS
	mem   *vfs.MemFS
	lying atomic.Bool // from now on syncs are only claimed

	// around is called with what takes the copy of the disk at the moment of the
	// cut; nil: it is taken as it comes.
	around func(take func())

	mu   sync.Mutex
	cut  *powerCut
	left int        // operations until then
	kept *vfs.MemFS // what the cut left
}

// powerCut says at which write operation power fails and how much of what was not
// synced survives.
type powerCut struct {
	after   int
	percent int
	seed    uint64
}

func (c *powerCut) config() vfs.CrashCloneCfg {
	return vfs.CrashCloneCfg{UnsyncedDataPercent: c.percent, RNG: rand.New(rand.NewPCG(c.seed, 1))}
}

func newPowerFS(mem *vfs.MemFS) *powerFS {
	d := &powerFS{mem: mem}
	d.FS = errorfs.Wrap(&lyingFS{mem, &d.lying}, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			d.operate()
		}
		return nil
	}))
	return d
}

// arm has power fail later.
func (d *powerFS) arm(cut *powerCut) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut, d.left, d.kept = cut, cut.after, nil
}

func (d *powerFS) operate() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut == nil {
		return
	}
	if d.left--; d.left == 0 {
		take := func() { d.kept = d.mem.CrashClone(d.cut.config()) }
		if d.around != nil {
			d.around(take)
		} else {
			take()
		}
		d.cut = nil
	}
}

// after is what an armed cut left. When it did not come yet, it comes now.
func (d *powerFS) after(cut *powerCut) *vfs.MemFS {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.kept == nil {
		d.kept = d.mem.CrashClone(cut.config())
	}
	d.cut = nil
	return d.kept
}

// lyingFS only claims the syncs of files while lying is set.
type lyingFS struct {
	vfs.FS
	lying *atomic.Bool
}

func (l *lyingFS) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &lyingFile{f, l.lying}, nil
}

func (l *lyingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return l.wrap(l.FS.Create(name, c))
}

func (l *lyingFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return l.wrap(l.FS.ReuseForWrite(old, name, c))
}

func (l *lyingFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return l.wrap(l.FS.OpenReadWrite(name, c, o...))
}

type lyingFile struct {
	vfs.File
	lying *atomic.Bool
}

func (f *lyingFile) Sync() error {
	if f.lying.Load() {
		return nil
	}
	return f.File.Sync()
}

func (f *lyingFile) SyncData() error {
	if f.lying.Load() {
		return nil
	}
	return f.File.SyncData()
}

func (f *lyingFile) SyncTo(length int64) (bool, error) {
	if f.lying.Load() {
		return false, nil
	}
	return f.File.SyncTo(length)
}
