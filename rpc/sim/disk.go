package sim

import (
	"math/rand/v2"
	"path"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// Disk is a simulated disk: file system in memory, of which what was not synced
// may be lost. Syncs take time. One Disk serves one life of a server; Crash gives
// the file system that the next life finds.
type Disk struct {
	// Lies, when set, is asked before each sync: true means that it reports
	// success and does nothing, as a disk with a volatile cache does.
	Lies func(name string) bool
	// Fail, when set, is asked before each operation that changes something,
	// numbered from 1: an error is what the operation returns in place of being
	// done.
	Fail func(n int, op errorfs.Op) error
	// Anchored, when set, is told of each size of the log that the head anchor
	// proves durably from now on.
	Anchored func(size uint64)

	fs  *vfs.MemFS
	top vfs.FS

	awake    chan struct{} // closed while syncs take no time
	syncTime time.Duration
	slowed   time.Time // since when syncs take time
	hung     time.Time // syncs of the log's write-ahead file take until then

	mu    sync.Mutex
	rng   *rand.Rand
	ops   int
	watch func(n int, op errorfs.Op)
	files map[string]*content
	moved map[string]bool // folders that were renamed
}

// content is what is known of a file's bytes, whatever its name becomes.
type content struct{ unsynced bool }

// NewDisk makes a disk over what an earlier life left; nil is an empty one.
func NewDisk(fs *vfs.MemFS, rng *rand.Rand) *Disk {
	if fs == nil {
		fs = vfs.NewCrashableMem()
	}
	d := &Disk{fs: fs, rng: rng, files: map[string]*content{}, moved: map[string]bool{}, awake: make(chan struct{})}
	close(d.awake)
	d.top = errorfs.Wrap(&slowFS{FS: fs, disk: d}, errorfs.InjectorFunc(d.operate))
	return d
}

// FS is what the server is given.
func (d *Disk) FS() vfs.FS { return d.top }

// SetWatch has f told of each operation that changes something, before it is
// done. It may be called while the disk is in use.
func (d *Disk) SetWatch(f func(n int, op errorfs.Op)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watch = f
}

// Ops is how many changing operations were asked for.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// operate sees every operation first.
func (d *Disk) operate(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	d.mu.Lock()
	d.ops++
	n, watch := d.ops, d.watch
	d.mu.Unlock()
	if watch != nil {
		watch(n, op)
	}
	if d.Fail != nil {
		return d.Fail(n, op)
	}
	return nil
}

// Slow makes syncs take up to bound, until Quick. It must not be used while a
// store is opened or closed: those sync under a mutex, and a goroutine that waits
// for a mutex stops a bubble's clock.
func (d *Disk) Slow(bound time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if bound > 0 {
		d.awake, d.syncTime, d.slowed = make(chan struct{}), bound, time.Now()
	}
}

// Quick lets syncs take no time from now on, those under way included.
func (d *Disk) Quick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.syncTime > 0 {
		d.syncTime = 0
		close(d.awake)
	}
}

// spin is the time that a sync of a file takes.
func (d *Disk) spin(name string) {
	ext := path.Ext(name)
	if ext != ".log" && ext != ".sst" && path.Base(name) != "anchor" {
		return
	}
	d.mu.Lock()
	awake, took := d.awake, time.Duration(0)
	if d.syncTime > 0 {
		took = time.Duration(d.rng.Int64N(int64(d.syncTime)))
		if d.rng.IntN(50) == 0 { // a hiccup, as disks have them
			took = 10 * d.syncTime
		}
		if isWAL(name) {
			took = min(max(took, time.Until(d.hung)), d.beforeCompaction())
		}
	}
	d.mu.Unlock()
	if took > 0 && !(isWAL(name) && changesFiles()) {
		select {
		case <-awake:
		case <-time.After(took):
		}
	}
}

// compactionCheck is how often the engine looks whether the log is to be compacted.
const compactionCheck = time.Minute

// beforeCompaction is how long a sync of the log may take: none is under way when the
// engine may begin to compact. Pebble changes write-ahead files then, and waits under
// its commit lock until the sync has ended (see changesFiles).
func (d *Disk) beforeCompaction() time.Duration {
	since := time.Since(d.slowed) % compactionCheck
	if since == 0 && !d.slowed.IsZero() && time.Since(d.slowed) > 0 {
		return 0
	}
	return compactionCheck - since - time.Millisecond
}

// changesFiles tells that Pebble syncs a write-ahead file to go on with the next
// one. It holds its commit lock then, and virtual time stands still while anybody
// waits for a lock: such a sync takes no time.
func changesFiles() bool {
	callers := make([]uintptr, 32)
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers)])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, ".rotateWAL") {
			return true
		}
		if !more {
			return false
		}
	}
}

// Hang makes syncs of the log's write-ahead file that begin from now on wait
// until a time, while other files are synced as ever: a disk may take its queue
// in any order. It counts on a disk that is slow.
func (d *Disk) Hang(until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if until.After(d.hung) {
		d.hung = until
	}
}

// isWAL tells whether a path is a write-ahead file of the log.
func isWAL(name string) bool { return path.Ext(name) == ".log" && within(name, "log") }

// within tells whether a path lies in a folder of the data directory, or is a
// file of it.
func within(name, part string) bool {
	return strings.HasPrefix(name, DataDir+"/"+part+"/") || name == DataDir+"/"+part
}

// Durable is the file system with exactly what was synced.
func (d *Disk) Durable() *vfs.MemFS { return d.fs.CrashClone(vfs.CrashCloneCfg{}) }

// Crash is the file system after the end of this life. percent is how likely
// each block and name that was not synced survived: 100 is the end of the process
// alone, anything below a power cut. The same rng gives the same result.
func (d *Disk) Crash(percent int, rng *rand.Rand) (*vfs.MemFS, error) {
	if percent == 100 {
		return d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}), nil
	}
	durable := d.Durable()
	if percent == 0 {
		return durable, nil
	}
	// CrashClone draws in the order of a Go map, which no seed repeats; so what
	// survives is put together here, in the order of names.
	all := d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
	d.mu.Lock()
	defer d.mu.Unlock()
	m := &merger{to: durable, from: all, percent: percent, rng: rng, files: d.files, moved: d.moved}
	if err := m.folder("/"); err != nil {
		return nil, err
	}
	return durable.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}), nil
}
