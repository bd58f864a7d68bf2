package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

const (
	// faultVariable names the fault for the process that lives through it.
	faultVariable = "QPC_FAULT"
	// countVariable says how many faults a test draws, seedVariable from what.
	countVariable = "QPC_FAULTS"
	seedVariable  = "QPC_FAULTS_SEED"
)

// TestScript lives through the script with the fault that QPC_FAULT names, in
// this process: it is what the printed command of a failure runs. Without a name,
// nothing goes wrong.
func TestScript(t *testing.T) {
	f := Fault{Kind: NoFault}
	if text := os.Getenv(faultVariable); text != "" {
		var err error
		if f, err = ParseFault(text); err != nil {
			t.Fatal(err)
		}
	}
	cryptotest.SetGlobalRandom(t, 1)
	synctest.Test(t, func(t *testing.T) {
		result, err := RunScript(1, f)
		if err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(result)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("result %s\n", line)
		if f.Kind != NoFault {
			// Pebble leaves goroutines behind where its files can't be written,
			// and a bubble waits for all of them.
			os.Exit(0)
		}
	})
}

// runFault lives through a fault in a process of its own.
func runFault(f Fault) (r FaultResult, out []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestScript$", "-test.timeout=4m")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", faultVariable+"="+f.String())
	out, err = cmd.CombinedOutput()
	for line := range bytes.Lines(out) {
		if text, ok := bytes.CutPrefix(line, []byte("result ")); ok && err == nil {
			return r, out, json.Unmarshal(text, &r)
		}
	}
	if err == nil {
		err = errors.New("no result")
	}
	return r, out, err
}

// scriptOps is how many changing file operations the script does.
func scriptOps(t *testing.T) int {
	t.Helper()
	r, out, err := runFault(Fault{Kind: NoFault})
	if err != nil {
		t.Fatalf("the script on a good disk: %v\n%s", err, out)
	}
	if r.Ops < 300 || r.Counts.Done < 10 || r.Counts.Acks < 2 {
		t.Fatalf("the script does too little: %+v", r)
	}
	t.Logf("the script does %d changing file operations and gets %d messages acknowledged", r.Ops, r.Counts.Done)
	return r.Ops
}

// suffer lives through all faults, one per core at a time, and counts how they
// ended.
func suffer(t *testing.T, faults []Fault) map[string]int {
	t.Helper()
	var mu sync.Mutex
	outcomes, failed := map[string]int{}, 0
	jobs := make(chan Fault)
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for f := range jobs {
				r, out, err := runFault(f)
				mu.Lock()
				switch outcomes[r.Outcome]++; {
				case err != nil:
					failed++
					t.Errorf("%v: %v\nreplay: QPC_FAULT=%v GOMAXPROCS=1 go test -count=1 -run '^TestScript$' ./rpc/sim -args -test.paniconexit0=false\n%s", f, err, f, out)
				case r.Op == "":
					outcomes["not met"]++
				}
				mu.Unlock()
			}
		})
	}
	for _, f := range faults {
		mu.Lock()
		enough := failed >= 5
		mu.Unlock()
		if enough {
			break
		}
		jobs <- f
	}
	close(jobs)
	workers.Wait()
	return outcomes
}

// drawn is how many faults a test draws, and what from: a run says it, so that
// it can be repeated.
func drawn(t *testing.T, usual int) (n int, rng *rand.Rand) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	n = usual
	for variable, take := range map[string]func(uint64){
		countVariable: func(v uint64) { n = int(v) },
		seedVariable:  func(v uint64) { seed = v },
	} {
		text := os.Getenv(variable)
		if text == "" {
			continue
		}
		v, err := strconv.ParseUint(text, 10, 63)
		if err != nil || v == 0 {
			t.Fatalf("%s=%q is no number", variable, text)
		}
		take(v)
	}
	t.Logf("%s=%d %s=%d", countVariable, n, seedVariable, seed)
	return n, rand.New(rand.NewPCG(seed, 5))
}

// raceDetector tells that this run looks for races, and leaves out what has none
// that other tests don't have.
func raceDetector() bool { return os.Getenv("QPC_TEST_SCALE") == "race" }

// scale is a number that depends on how much time a run has.
func scale(race, usual, nightly, release int) int {
	switch os.Getenv("QPC_TEST_SCALE") {
	case "race":
		return race
	case "nightly":
		return nightly
	case "release":
		return release
	}
	return usual
}

// tally writes outcomes in order.
func tally(outcomes map[string]int) string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(outcomes)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %d", name, outcomes[name])
	}
	return b.String()
}

// Whichever file operation of a whole server fails, and however: what was
// acknowledged is there after the next start, what was refused is not, and a
// failed node acknowledges nothing more and ends within a second.
func TestEveryFileOperationFails(t *testing.T) {
	ops := scriptOps(t)
	n, rng := drawn(t, scale(2, 25, 200, ops))
	stride := max(1, ops/n)
	for _, kind := range []FaultKind{ErrorOnce, ErrorOn, NoSpace} {
		var faults []Fault
		for n := 1 + rng.IntN(stride); n <= ops; n += stride {
			faults = append(faults, Fault{kind, n, []int{100, 0, 50}[n%3]})
		}
		outcomes := suffer(t, faults)
		t.Logf("%s: %d faults: %s", kind, len(faults), tally(outcomes))
		if len(faults) >= 20 && (outcomes["failed"] == 0 || outcomes["refused to start"] == 0 || outcomes["not met"] > len(faults)/10) {
			t.Errorf("%s: too little happened: %v", kind, outcomes)
		}
	}
}

// The power goes at any file operation of a whole server, whatever share of
// what was not synced survives: nothing that was acknowledged is lost.
func TestPowerLossAtAnyOperation(t *testing.T) {
	ops := scriptOps(t)
	n, rng := drawn(t, scale(5, 40, 2000, 100_000))
	var faults []Fault
	for i := range n {
		faults = append(faults, Fault{PowerLoss, 1 + rng.IntN(ops), []int{0, 10, 50, 90, 100}[i%5]})
	}
	outcomes := suffer(t, faults)
	t.Logf("%d power losses: %s", len(faults), tally(outcomes))
	if outcomes["lost power"] < len(faults)*9/10 {
		t.Errorf("too little happened: %v", outcomes)
	}
}
