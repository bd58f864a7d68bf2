package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

// rotVariable names the damage for the process that suffers it: one Rot, or a
// rotShard in JSON.
const rotVariable = "QPC_ROT"

// rotShard is a part of a sample: every Of-th damage, beginning with the
// Number-th, the first Skip of them left out.
type rotShard struct {
	Sample           RotSample
	Number, Of, Skip int
}

// rotLine is what the process says of each damage, before and after.
type rotLine struct {
	Rot    Rot
	Result *RotResult `json:",omitempty"`
	Wrong  string     `json:",omitempty"`
}

func say(line rotLine) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Printf("rot %s\n", text)
}

// TestRot damages one file in the way that QPC_ROT names and starts a server on
// it, in this process: it is what the printed command of a failure runs.
func TestRot(t *testing.T) {
	text := os.Getenv(rotVariable)
	child := text != ""
	if !child {
		text = "stopped:anchor:flip:0"
	}
	cryptotest.SetGlobalRandom(t, 1)
	synctest.Test(t, func(t *testing.T) {
		run, err := NewRotRun(1)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(text, "{") {
			sufferShard(t, run, text)
		} else {
			rot, err := ParseRot(text)
			if err != nil {
				t.Fatal(err)
			}
			result, err := run.Suffer(rot, true)
			if err != nil {
				t.Fatal(err)
			}
			say(rotLine{Rot: rot, Result: &result})
		}
		fmt.Println("rot done")
		// Pebble leaves goroutines behind where its files can't be read, and a
		// bubble waits for all of them.
		if child {
			os.Exit(0)
		}
	})
}

func sufferShard(t *testing.T, run *RotRun, text string) {
	var shard rotShard
	if err := json.Unmarshal([]byte(text), &shard); err != nil {
		t.Fatal(err)
	}
	rots, err := run.Rots(shard.Sample)
	if err != nil {
		t.Fatal(err)
	}
	for i := shard.Number + shard.Skip*shard.Of; i < len(rots); i += shard.Of {
		rot := rots[i]
		say(rotLine{Rot: rot})
		// Who talks to whom takes time, and is of interest where names, keys and
		// passwords are damaged.
		small := !strings.Contains(rot.class(), "/") || strings.HasPrefix(rot.File, "secrets/")
		result, err := run.Suffer(rot, small || i/shard.Of%8 == 0)
		line := rotLine{Rot: rot, Result: &result}
		if err != nil {
			line.Wrong = err.Error()
		}
		say(line)
	}
}

// rotReport is what all damage led to.
type rotReport struct {
	mu       sync.Mutex
	outcomes map[string]map[string]int // by class, by outcome
	anchored map[string]int            // by class: refused by what the head anchor says
	said     map[string]int            // kinds of sentences, by class
	wrong    []string
}

func (r *rotReport) add(line rotLine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	class := line.Rot.class()
	if line.Wrong != "" {
		r.wrong = append(r.wrong, fmt.Sprintf("%s\nreplay: QPC_ROT=%v GOMAXPROCS=1 go test -count=1 -v -run '^TestRot$' ./rpc/sim -args -test.paniconexit0=false", line.Wrong, line.Rot))
		return
	}
	if r.outcomes[class] == nil {
		r.outcomes[class] = map[string]int{}
	}
	r.outcomes[class][line.Result.Outcome]++
	if strings.Contains(line.Result.Said, "head anchor proves") {
		r.anchored[class]++
	}
	if line.Result.Said != "" {
		r.said[class+": "+figures.ReplaceAllString(line.Result.Said, "N")]++
	}
}

// figures are what differs in sentences of one kind.
var figures = regexp.MustCompile(`\b[0-9a-f]*[0-9][0-9a-f]*\b`)

func (r *rotReport) enough() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.wrong) >= 5
}

// runShard has a process suffer a shard. A process that dies is one more damage
// that is answered wrongly; the next goes on behind it.
func (r *rotReport) runShard(shard rotShard) error {
	for !r.enough() {
		text, err := json.Marshal(shard)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestRot$", "-test.timeout=5m")
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1", rotVariable+"="+string(text))
		out, err := cmd.CombinedOutput()
		var last rotLine
		ended := false
		for line := range bytes.Lines(out) {
			text, ok := bytes.CutPrefix(line, []byte("rot "))
			if ended = ended || string(text) == "done\n"; !ok || ended {
				continue
			}
			last = rotLine{}
			if err := json.Unmarshal(text, &last); err != nil {
				return err
			}
			if last.Result != nil {
				shard.Skip++
				r.add(last)
			}
		}
		switch {
		case ended:
			return nil
		case last.Rot == Rot{}, last.Result != nil:
			return fmt.Errorf("no damage was done: %w\n%s", errors.Join(err, ctx.Err()), out)
		}
		shard.Skip++
		last.Wrong = fmt.Sprintf("%v: the process died: %v\n%s", last.Rot, err, out)
		r.add(last)
	}
	return nil
}

// Whatever bit, block or tail of whatever file rots on a whole server's disk: it
// does not start and says why, or it starts and all that anybody was told is
// there. Views and snapshots are built anew.
func TestRottenFiles(t *testing.T) {
	if raceDetector() {
		return // one damage is enough there, which TestRot does
	}
	flips, rng := drawn(t, scale(0, 3, 60, everyByte))
	sample := RotSample{Seed: rng.Uint64(), Flips: flips, Cuts: max(1, flips/4)}
	shards := max(runtime.NumCPU(), min(2000, flips/2))
	r := &rotReport{outcomes: map[string]map[string]int{}, anchored: map[string]int{}, said: map[string]int{}}
	numbers := make(chan int)
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for n := range numbers {
				if err := r.runShard(rotShard{Sample: sample, Number: n, Of: shards}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := range shards {
		numbers <- n
	}
	close(numbers)
	workers.Wait()
	for _, wrong := range r.wrong {
		t.Error(wrong)
	}
	r.judge(t)
}

// everyByte is more than any file has.
const everyByte = 1 << 30

// alwaysRefused are files of which every bit counts and nothing else has a copy.
var alwaysRefused = []string{
	"FORMAT", "ca-cert.der", "server-cert.der",
	"secrets/ca-key", "secrets/log-key", "secrets/opaque-1", "secrets/opaque-fake-1", "secrets/vrf-seed",
}

// neverRefused are classes of files that can be made from others, or be missed.
var neverRefused = []string{"guard", "log.vkey", "snapshots", "views/*.sst", "views/MANIFEST", "views/OPTIONS"}

// judge tells what happened, and whether it was what must happen.
func (r *rotReport) judge(t *testing.T) {
	for _, class := range slices.Sorted(maps.Keys(r.outcomes)) {
		t.Logf("%-22s %s", class, tally(r.outcomes[class]))
	}
	for _, said := range slices.Sorted(maps.Keys(r.said)) {
		line, _, _ := strings.Cut(said, "\n")
		t.Logf("%4d × %.250s", r.said[said], line)
	}
	for _, class := range alwaysRefused {
		if o := r.outcomes[class]; len(o) != 1 || o[rotRefused] == 0 {
			t.Errorf("%s: %v", class, o)
		}
	}
	for _, class := range neverRefused {
		if o := r.outcomes[class]; len(o) == 0 || o[rotRefused] > 0 || o[rotNoticed] > 0 {
			t.Errorf("%s: %v", class, o)
		}
	}
	// What Pebble takes for a clean end of the newest write-ahead file.
	if r.anchored["log/*.log"] == 0 {
		t.Error("the head anchor noticed nothing")
	}
	if o := r.outcomes["log/*.sst"]; o[rotRefused]+o[rotNoticed] == 0 {
		t.Errorf("damaged tables of the log: %v", o)
	}
}
