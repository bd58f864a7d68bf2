package commands_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata/*.txt")

// A scenario file is a conversation with the engine. Blocks are separated by
// empty lines; lines that begin with # are prose. A block is a list of steps, a
// line of four dashes, and what the steps answer:
//
//	alice Enqueue recipient_key=bob payload="hello" id=r1
//	----
//	Ok message_id=m1 server_time_ms=+0s
//	  MessageEnqueued message_id=m1 … receipt=r1
//
// The first word is a session (nobody: none; forger: an unknown token; socket: the admin socket) and the
// second a method of the table, or the step is one of those in verbs. Keys are
// named by whose they are (bob, bob/1 his first device), ids by the order in
// which they appear, times by their distance from the start. Indented lines
// belong to the request above. Below the answer stand the events that the step
// put into the log: a refusal has none.
type block struct {
	prose, steps, want []string
}

func parseScenario(text string) []block {
	var blocks []block
	for _, chunk := range strings.Split(strings.TrimSpace(text), "\n\n") {
		var b block
		into := &b.steps
		for _, line := range strings.Split(chunk, "\n") {
			switch {
			case line == "----":
				into = &b.want
			case into == &b.steps && strings.HasPrefix(line, "#"):
				b.prose = append(b.prose, line)
			case strings.TrimSpace(line) != "":
				*into = append(*into, line)
			}
		}
		blocks = append(blocks, b)
	}
	return blocks
}

func formatScenario(blocks []block) []byte {
	var out bytes.Buffer
	for i, b := range blocks {
		if i > 0 {
			out.WriteByte('\n')
		}
		lines := append(append([]string{}, b.prose...), b.steps...)
		if len(b.steps) > 0 {
			lines = append(append(lines, "----"), b.want...)
		}
		for _, line := range lines {
			fmt.Fprintln(&out, line)
		}
	}
	return out.Bytes()
}

// run executes the steps of a block; indented lines go to the step above.
func (b *block) run(w *world) []string {
	var got []string
	for i := 0; i < len(b.steps); {
		end := i + 1
		for end < len(b.steps) && strings.HasPrefix(b.steps[end], " ") {
			end++
		}
		got = append(got, w.step(b.steps[i], b.steps[i+1:end])...)
		i = end
	}
	return got
}

// bubble runs a test with virtual time. What a bubble leaves in a sync.Pool of
// the process must not be met by anybody outside of it: two collections empty
// every pool.
func bubble(t *testing.T, test func(t *testing.T)) {
	defer func() {
		runtime.GC()
		runtime.GC()
	}()
	synctest.Test(t, test)
}

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenario files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			blocks := parseScenario(string(text))
			cryptotest.SetGlobalRandom(t, 1)
			bubble(t, func(t *testing.T) {
				w := newWorld(t, true)
				for i := range blocks {
					got := blocks[i].run(w)
					if *update {
						blocks[i].want = got
					} else if diff := cmp.Diff(blocks[i].want, got); diff != "" {
						t.Errorf("%s: %q (-file +engine):\n%s", file, blocks[i].steps, diff)
					}
				}
				w.rebuild()
			})
			if !*update {
				return
			}
			if err := os.WriteFile(file, formatScenario(blocks), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestScenarioFormat holds the runner to its own format: writing what was read
// changes nothing, and neither prose nor indentation is lost.
func TestScenarioFormat(t *testing.T) {
	const text = "# Prose\n# and more\n\nalice Batch\n  items a=1\nqueue bob\n----\nOk\n  Event\n\nqueue carol\n----\n"
	blocks := parseScenario(text)
	if got := string(formatScenario(blocks)); got != text {
		t.Errorf("read and written again:\n%s", cmp.Diff(text, got))
	}
	if len(blocks) != 3 || len(blocks[1].steps) != 3 || len(blocks[1].want) != 2 || len(blocks[2].want) != 0 {
		t.Errorf("parsed as %+v", blocks)
	}
}
