package sim

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// controlVariable names the control that is switched on in a process that lives
// through a world.
const controlVariable = "QPC_CONTROL"

// controlWorlds is within how many worlds a control must be caught.
const controlWorlds = 100

// sabotageSource is what each sabotaged package gets beside its own files.
const sabotageSource = `package %s

import (
	"os"
	"time"
)

var sabotage = os.Getenv(%q)

func wallClock() time.Time { return time.Now() }
`

// Negative controls: each promise that is taken out of server, client or disk is
// missed, by the check that is there for it, within 100 worlds. Nothing of this
// is in the source of the server: this test builds the worlds anew with some
// lines put into it. The same build with no control switched on keeps all
// promises.
//
// With QPC_WORLD=n it lives through that world alone and shows what is wrong.
func TestControls(t *testing.T) {
	if raceDetector() {
		return // the sabotaged build has none: it is lived in the other scales
	}
	binary := buildSabotaged(t)
	t.Run("none", func(t *testing.T) {
		inParallel(4, func(seed uint64) bool {
			if _, out, err := live(binary, seed); err != nil {
				t.Errorf("world %d with no control: %v\n%s", seed, err, out)
			}
			return true
		})
	})
	for i := range controls {
		c := &controls[i]
		scale, named := os.Getenv("QPC_TEST_SCALE"), os.Getenv(worldVariable) != ""
		if c.nightly && scale != "nightly" && scale != "release" && !named {
			continue
		}
		t.Run(c.name, func(t *testing.T) { c.mustBeCaught(t, binary) })
	}
}

// The table in the documentation has a row for each control, and no other.
func TestControlsAreInTheDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "### Negative controls\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(section, -1) {
		rows[row[1]] = true
	}
	for _, c := range controls {
		if !rows[c.name] {
			t.Errorf("docs/reliability.md has no row for %s", c.name)
		}
		delete(rows, c.name)
	}
	for name := range rows {
		t.Errorf("docs/reliability.md has a row for %s, which is no control", name)
	}
}

func (c *control) mustBeCaught(t *testing.T, binary string) {
	if text := os.Getenv(worldVariable); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		_, out, err := live(binary, seed, controlVariable+"="+c.name)
		t.Logf("world %d with %s: %v\n%s", seed, c.name, err, out)
		return
	}
	count := os.Getenv("QPC_TEST_SCALE") == "nightly" // how many of all worlds notice
	var mu sync.Mutex
	caught, first, how, lived := 0, uint64(0), "", 0
	others := map[string]int{}
	inParallel(controlWorlds, func(seed uint64) bool {
		_, out, err := live(binary, seed, controlVariable+"="+c.name)
		mu.Lock()
		defer mu.Unlock()
		lived++
		if err != nil {
			wrong := violation(out, seed)
			if line := c.caught.FindString(wrong); line == "" {
				others[firstLine(wrong, out)]++
			} else if caught++; caught == 1 || seed < first {
				first, how = seed, line
			}
		}
		return caught == 0 || count
	})
	if caught == 0 {
		t.Fatalf("not caught in %d worlds; other ends: %v", lived, others)
	}
	t.Logf("caught in world %d (%d of %d lived): %s; other ends: %v\nreplay: %s=%d go test -count=1 -v -run '^TestControls$/^%s$' ./rpc/sim",
		first, caught, lived, how, others, worldVariable, first, c.name)
}

// violation is what a world said was wrong with it, without its plan and log;
// empty when it ended in another way.
func violation(out string, seed uint64) string {
	_, wrong, found := strings.Cut(out, fmt.Sprintf("world %d: ", seed))
	if !found {
		return ""
	}
	wrong, _, _ = strings.Cut(wrong, "\nplan: ")
	return wrong
}

var numbers = regexp.MustCompile(`[0-9]+`)

func firstLine(texts ...string) string {
	for _, text := range texts {
		if line, _, _ := strings.Cut(text, "\n"); line != "" {
			return numbers.ReplaceAllString(line, "N")
		}
	}
	return "no output"
}

// buildSabotaged builds this test with all sabotages in it, none switched on.
func buildSabotaged(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	replace := func(name, content string) {
		copied := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		overlay.Replace[filepath.Join(root, filepath.FromSlash(name))] = copied
		if err := os.WriteFile(copied, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range sabotaged(t, root) {
		replace(name, content)
		folder := path.Dir(name)
		replace(folder+"/sabotage.go", fmt.Sprintf(sabotageSource, path.Base(folder), controlVariable))
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, text, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "sabotaged.test")
	command := exec.Command("go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", list, "-o", binary, ".")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("the sabotaged server can't be built: %v\n%s", err, out)
	}
	return binary
}

// sabotaged is the text of each file that a control changes, by its name.
func sabotaged(t *testing.T, root string) map[string]string {
	original, changed := map[string]string{}, map[string]string{}
	for _, c := range controls {
		if c.file == "" {
			continue
		}
		if changed[c.file] == "" {
			source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(c.file)))
			if err != nil {
				t.Fatal(err)
			}
			original[c.file], changed[c.file] = string(source), string(source)
		}
		if n := strings.Count(original[c.file], c.seam); n != 1 {
			t.Fatalf("%s: the line %q is in %s %d times: the control must follow the source", c.name, c.seam, c.file, n)
		}
		insert := fmt.Sprintf("if sabotage == %q {\n%s}\n", c.name, c.sabotage)
		changed[c.file] = strings.Replace(changed[c.file], c.seam, insert+c.seam, 1)
	}
	return changed
}
