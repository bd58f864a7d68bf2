package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

// worldVariable names the seed for the process that lives through one world.
const worldVariable = "QPC_WORLD"

// worlds is how many worlds a run has.
func worlds(t *testing.T) int {
	if text := os.Getenv("QPC_WORLDS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("QPC_WORLDS=%q is no number of worlds", text)
		}
		return n
	}
	switch os.Getenv("QPC_TEST_SCALE") {
	case "race":
		return 10
	case "nightly":
		return 20_000
	case "release":
		return 1_000_000
	}
	return 200
}

// TestOneWorld lives through the world that QPC_WORLD names, in this process. It
// is what the printed command of a failure runs; without a name, world 1.
func TestOneWorld(t *testing.T) {
	seed := uint64(1)
	if text := os.Getenv(worldVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	cryptotest.SetGlobalRandom(t, seed)
	synctest.Test(t, func(t *testing.T) {
		w := NewWorld(seed)
		if os.Getenv(controlVariable) == lyingSync {
			w.Prepare = func(_ int, d *Disk) {
				d.Lies = func(name string) bool { return strings.HasSuffix(name, ".log") && within(name, "log") }
			}
		}
		if err := w.Run(); err != nil {
			t.Fatal(err)
		}
		counts, err := json.Marshal(w.Counts())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("counts %s\n", counts)
	})
}

// live runs one world in a process of its own, where its seed alone decides as
// much as can be decided.
func live(binary string, seed uint64, extra ...string) (Counts, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run=^TestOneWorld$")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1", worldVariable+"="+strconv.FormatUint(seed, 10))
	cmd.Env = append(cmd.Env, extra...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := startSeeded(cmd, seed)
	if err == nil {
		err = cmd.Wait()
	}
	var c Counts
	for line := range strings.Lines(out.String()) {
		if text, ok := strings.CutPrefix(line, "counts "); ok && err == nil {
			err = json.Unmarshal([]byte(text), &c)
		}
	}
	return c, out.String(), err
}

// inParallel calls f for seeds from 1 on, one call per core at a time, until it
// returns false or n were done.
func inParallel(n int, f func(seed uint64) bool) {
	seeds := make(chan uint64)
	stop := make(chan struct{})
	var once sync.Once
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for seed := range seeds {
				if !f(seed) {
					once.Do(func() { close(stop) })
				}
			}
		})
	}
	defer workers.Wait()
	defer close(seeds)
	for seed := uint64(1); seed <= uint64(n); seed++ {
		select {
		case seeds <- seed:
		case <-stop:
			return
		}
	}
}

// Whole servers keep their promises whatever network, disk and time do.
func TestWorlds(t *testing.T) {
	n := worlds(t)
	var mu sync.Mutex
	var sum Counts
	lived, failed := 0, 0
	inParallel(n, func(seed uint64) bool {
		c, out, err := live(os.Args[0], seed)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failed++
			t.Errorf("world %d: %v\nreplay: QPC_WORLD=%d GOMAXPROCS=1 GODEBUG=asyncpreemptoff=1 go test -count=1 -run '^TestOneWorld$' ./rpc/sim\n%s", seed, err, seed, out)
			return failed < 5
		}
		lived++
		sum.add(c)
		return true
	})
	t.Logf("%d worlds (seeds 1 to %d): %+v", lived, n, sum)
	// Worlds in which nothing happens prove nothing.
	if lived >= 100 && (sum.Done < 20*lived || sum.Unknown < lived/4 || sum.Lives < lived/2 || sum.Lost == 0 || sum.KeyEnds < lived/20 || sum.Packages < lived/4 ||
		sum.Posts < 2*lived || sum.Commits < lived/3 || sum.Bans < lived/10 || sum.Reports < lived/4 || sum.Linked < lived/10 || sum.Heard == 0 ||
		sum.Replaced == 0 || sum.Repairs == 0 || sum.Noticed == 0) {
		t.Errorf("too little happened: %+v", sum)
	}
}

func (c *Counts) add(o Counts) {
	c.Sent += o.Sent
	c.Done += o.Done
	c.Unknown += o.Unknown
	c.Reads += o.Reads
	c.Seen += o.Seen
	c.Acks += o.Acks
	c.Lives += o.Lives
	c.Packets += o.Packets
	c.Lost += o.Lost
	c.KeyEnds += o.KeyEnds
	c.Packages += o.Packages
	c.Posts += o.Posts
	c.Commits += o.Commits
	c.Heard += o.Heard
	c.Bans += o.Bans
	c.Reports += o.Reports
	c.Linked += o.Linked
	c.Replaced += o.Replaced
	c.Repairs += o.Repairs
	c.Noticed += o.Noticed
}

// A crash keeps what was synced, at every chance of survival, and the same seed
// keeps the same.
func TestCrashKeepsWhatWasSynced(t *testing.T) {
	for _, percent := range []int{0, 10, 50, 90, 100} {
		var first []byte
		for range 2 {
			rng := rand.New(rand.NewPCG(uint64(percent), 9))
			d := NewDisk(nil, rng)
			fs := d.FS()
			f, err := fs.Create("/file", "")
			if err != nil {
				t.Fatal(err)
			}
			synced := bytes.Repeat([]byte{1}, 5*blockSize)
			f.Write(bytes.Clone(synced))
			f.Sync()
			root, err := fs.OpenDir("/")
			if err != nil {
				t.Fatal(err)
			}
			root.Sync()
			f.Write(bytes.Repeat([]byte{2}, 20*blockSize))
			after, err := d.Crash(percent, rng)
			if err != nil {
				t.Fatal(err)
			}
			got, err := readAll(after, "/file")
			if err != nil || !bytes.HasPrefix(got, synced) {
				t.Fatalf("%d %%: %d bytes, %v", percent, len(got), err)
			}
			if percent == 0 && len(got) != len(synced) || percent == 100 && len(got) != 25*blockSize {
				t.Errorf("%d %%: %d bytes survived", percent, len(got))
			}
			if first != nil && !bytes.Equal(first, got) {
				t.Errorf("%d %%: the same seed keeps something else", percent)
			}
			first = got
		}
	}
}
