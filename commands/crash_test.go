package commands

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/projections"
	pb "quicprochat/proto/qpcv1"
)

var (
	crashSeed = flag.Uint64("commands.crashseed", 0, "replay one seed of TestCrashAtAnyStage")
	crashRuns = flag.Int("commands.crashruns", 60, "how many crashes TestCrashAtAnyStage tries")
)

// stageFS calls back before and after each sync and each write of the files
// under the data directory: the moments between which a crash differs.
type stageFS struct {
	vfs.FS
	at func(stage string)
	// lies names the kinds of files whose sync is only claimed once lying is set.
	lies  string
	lying atomic.Bool
}

func (s *stageFS) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	kind := "other"
	switch {
	case isWAL(name):
		kind = "log"
	case isAnchor(name):
		kind = "anchor"
	case isViews(name):
		kind = "views"
	}
	return &stageFile{f, s, kind}, nil
}

func (s *stageFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, c)
	return s.wrap(name, f, err)
}

func (s *stageFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.ReuseForWrite(old, name, c)
	return s.wrap(name, f, err)
}

func (s *stageFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.FS.OpenReadWrite(name, c, o...)
	return s.wrap(name, f, err)
}

type stageFile struct {
	vfs.File
	fs   *stageFS
	kind string
}

func (f *stageFile) around(op string, do func() error) error {
	f.fs.at("before " + op + " of " + f.kind)
	err := do()
	f.fs.at("after " + op + " of " + f.kind)
	return err
}

func (f *stageFile) sync(do func() error) error {
	if f.fs.lying.Load() && strings.Contains(f.fs.lies, f.kind) {
		do = func() error { return nil }
	}
	return f.around("sync", do)
}

func (f *stageFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *stageFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *stageFile) Write(p []byte) (n int, err error) {
	err = f.around("write", func() error { n, err = f.File.Write(p); return err })
	return n, err
}

func (f *stageFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.around("write", func() error { n, err = f.File.WriteAt(p, off); return err })
	return n, err
}

// crashed is what was true for clients just before a crash, and the disk after.
type crashed struct {
	stage     string
	acked     []string
	published uint64
	disk      *vfs.MemFS
	problems  []string // found after the restart
}

func (c *crashed) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// A power cut at any moment loses nothing that was acknowledged or shown, and
// what comes back has each message once, in order, and builds the same views.
func TestCrashAtAnyStage(t *testing.T) {
	stages, runs := make(map[string]int), *crashRuns
	if os.Getenv("QPC_TEST_SCALE") == "race" {
		runs /= 10
	}
	for run := range runs {
		seed := *crashSeed
		if seed == 0 {
			seed = uint64(run) + 1
		}
		c := crashOnce(t, seed, "")
		stages[c.stage]++
		if len(c.problems) > 0 {
			t.Fatalf("replay with -commands.crashseed=%d; %s:\n%s", seed, c.stage, strings.Join(c.problems, "\n"))
		}
		if *crashSeed != 0 {
			break
		}
	}
	t.Logf("crashed at %v", stages)
	if len(stages) < 4 && *crashSeed == 0 && runs >= 60 {
		t.Errorf("only the stages %v were tried", stages)
	}
}

// A disk that claims its syncs must be found out, or the test above proves
// nothing: by the head anchor when only the log's syncs are claimed, by lost
// messages when the anchor's are too.
func TestCrashTestFindsLyingDisks(t *testing.T) {
	for lies, want := range map[string]string{"log": "its head anchor proves", "log anchor": "acknowledged message"} {
		found := ""
		for seed := uint64(1); seed <= 200 && !strings.Contains(found, want); seed++ {
			found = strings.Join(crashOnce(t, seed, lies).problems, "\n")
		}
		if !strings.Contains(found, want) {
			t.Errorf("claimed syncs of %s were never found out as %q", lies, want)
		}
	}
}

// crashOnce runs senders until a random moment, takes what the disk would hold
// after a power cut at that moment, and starts again from it.
func crashOnce(t *testing.T, seed uint64, lies string) *crashed {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	mem := vfs.NewCrashableMem()
	var mu sync.Mutex // guards what follows
	var acked []string
	var engine *Engine
	var c *crashed
	countdown := -1
	full := make(chan struct{})
	at := func(stage string) {
		mu.Lock()
		defer mu.Unlock()
		if countdown--; countdown != 0 {
			return
		}
		c = &crashed{stage: stage, acked: append([]string(nil), acked...), published: engine.current.Load().size}
		c.disk = mem.CrashClone(vfs.CrashCloneCfg{
			UnsyncedDataPercent: []int{0, 10, 50, 90, 100}[rng.IntN(5)], RNG: rng,
		})
		close(full)
	}
	disk := &stageFS{FS: mem, at: at, lies: lies}
	b := newBed(t, disk)
	alice, bob := b.register(1), b.register(2)
	mu.Lock()
	engine, countdown = b.engine, 1+rng.IntN(200)
	mu.Unlock()
	disk.lying.Store(true)

	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-full:
					return
				default:
				}
				payload := fmt.Sprintf("%d/%d", w, i)
				id, err := b.send(alice, bob, uint64(w<<32+i), payload)
				if err != nil {
					t.Errorf("seed %d: send: %v", seed, err)
					return
				}
				mu.Lock()
				acked = append(acked, string(id)+payload)
				mu.Unlock()
				if w == 0 && i%7 == 3 {
					b.engine.flushViews()
				}
				if w == 1 && i%20 == 19 {
					if _, err := b.do(bob.token, pb.Auth_SESSION, nothing); err != nil {
						t.Errorf("seed %d: %v", seed, err)
					}
				}
			}
		})
	}
	wg.Wait()
	b.close()
	mu.Lock()
	defer mu.Unlock()
	c.check(t, alice, bob)
	return c
}

// check starts from the disk after the crash.
func (c *crashed) check(t *testing.T, alice, bob persona) {
	t.Helper()
	b := &bed{t: t, fs: c.disk}
	if err := b.tryOpen(Options{}); err != nil {
		c.problem("start after the crash: %v", err)
		return
	}
	anchored, _ := b.log.Anchored()
	if b.log.Size() < c.published || anchored != b.log.Size() {
		c.problem("published %d, recovered %d, anchored %d", c.published, b.log.Size(), anchored)
	}
	recovered := make(map[string]bool)
	next := make([]int, 4)
	for i, item := range b.items(bob) {
		data, found, err := b.engine.Payload(bob.account, item.MessageID)
		if err != nil || !found {
			c.problem("payload of item %d: %v, %v", item.Seq, found, err)
		}
		if item.Seq != uint64(i)+1 {
			c.problem("item %d has position %d", i, item.Seq)
		}
		var w, n int
		if _, err := fmt.Sscanf(string(data), "%d/%d", &w, &n); err != nil || n != next[w] {
			c.problem("message %q comes after %d", data, next[w])
		}
		next[w]++
		recovered[string(item.MessageID[:])+string(data)] = true
	}
	for _, id := range c.acked {
		if !recovered[id] {
			c.problem("acknowledged message %s is lost", strings.ToValidUTF8(id[16:], ""))
		}
	}
	size, digest := b.log.Size(), b.digest()
	b.close()
	b.dropViews()
	b.open(Options{})
	if err := b.sameViews(size, digest); err != nil {
		c.problem("rebuilding the views: %v", err)
	}
	b.mustSend(alice, bob, 1<<50, "goes on")
	v, err := b.engine.View()
	if err != nil {
		t.Fatal(err)
	}
	if q, found, err := projections.Queue(v.Reader, bob.device); err != nil || !found || q.NextSeq != uint64(len(recovered))+2 {
		c.problem("queue %+v after %d messages, %v", q, len(recovered), err)
	}
	v.Release()
	b.close()
}
