// Package quicprochat_test holds the rules of the house that can be checked by
// reading the source: who may import whom and why, where time and randomness
// may enter, where storage keys are named, how long a file may be, and that the
// documentation speaks of what exists.
package quicprochat_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
)

const module = "quicprochat"

// room is one row of the layer table: the packages of one folder, what they may
// import of this module, and why the border stands where it does.
type room struct {
	name string
	// mayImport names packages of this module; a trailing "/..." takes all below.
	mayImport []string
	reason    string
}

// rooms is the table. Whatever a named package may import, its importer may too.
var rooms = []room{
	{"proto", nil, "the schema depends on nothing"},
	{"proto/qpcv1", nil, "the schema depends on nothing"},
	{"kt/statement", []string{"proto/qpcv1"}, "statements are public formats: no storage, no server"},
	{"kt", []string{"kt/statement"}, "verification must be usable without the server"},
	{"rpc", []string{"proto/qpcv1"}, "the wire knows frames and the method table, not what methods do"},
	{"rpc/pake", []string{"proto/qpcv1"}, "both ends share the OPAQUE profile"},
	{"log", []string{"kt"}, "the log knows bytes and hashes, not meaning"},
	{"log/blobs", []string{"kt"}, "blob files know bytes and hashes, not meaning"},
	{"projections", []string{"kt"}, "Apply knows meaning, not sync; the log is not its business"},
	{"commands/keypackage", nil, "a pure reader"},
	{"commands/datadir", []string{"log", "projections", "rpc/pake"}, "it opens what the engine runs on"},
	{"commands", []string{"log", "projections", "commands/keypackage"}, "deciding knows neither QUIC nor the data directory"},
	{"rpc/client", []string{"rpc", "rpc/pake", "kt"}, "an SDK links no storage"},
	{"rpc/client/seal", []string{"rpc/client"}, "an SDK links no storage"},
	{"rpc/auth", []string{"commands", "commands/datadir", "rpc/client"}, "ceremonies decide through commands"},
	{"rpc/push", []string{"commands", "rpc/client"}, "hints about what commands published"},
	{"rpc/admin", []string{"commands", "rpc/client"}, "administrators decide through commands"},
	{"rpc/transparency", []string{"commands", "kt"}, "it shows to strangers what commands published"},
	{"rpc/server", []string{"rpc", "commands", "commands/datadir", "rpc/auth", "rpc/push", "rpc/admin", "rpc/transparency"}, "the only room that serves QUIC"},
	{"rpc/echo", []string{"rpc/client"}, "the ceiling has no store"},
	{"rpc/bench", []string{"rpc/client", "rpc/echo"}, "the load driver has no store"},
	{"cmd/quicprochat-server", []string{"rpc/server", "rpc/auth", "rpc/push", "rpc/admin", "rpc/transparency", "rpc/client", "rpc/client/seal", "commands", "commands/datadir"}, "the daemon owns configuration"},
	{"cmd/qpc-audit", []string{"kt", "rpc/client"}, "an auditor shares no code with what it audits but the public formats"},
	{"cmd/qpc", []string{"rpc/client", "rpc/client/seal", "rpc/bench"}, "the client links no storage"},
}

// banned lists modules that must not be linked into a package, however deep.
var banned = []struct{ room, module, reason string }{
	{"kt", "github.com/cockroachdb/pebble", "proofs are checked without a store"},
	{"kt/statement", "github.com/cockroachdb/pebble", "statements are checked without a store"},
	{"rpc", "github.com/cockroachdb/pebble", "the wire has no store"},
	{"rpc/client", "github.com/cockroachdb/pebble", "the SDK has no store"},
	{"rpc/client/seal", "github.com/cockroachdb/pebble", "the SDK has no store"},
	{"rpc/echo", "github.com/cockroachdb/pebble", "the ceiling has no store"},
	{"rpc/bench", "github.com/cockroachdb/pebble", "the load driver has no store"},
	{"cmd/qpc", "github.com/cockroachdb/pebble", "the client has no store"},
	{"cmd/qpc-audit", "github.com/cockroachdb/pebble", "the auditor has no store"},
	{"kt", "github.com/quic-go/quic-go", "only rpc knows QUIC"},
	{"log", "github.com/quic-go/quic-go", "only rpc knows QUIC"},
	{"projections", "github.com/quic-go/quic-go", "only rpc knows QUIC"},
	{"commands", "github.com/quic-go/quic-go", "only rpc knows QUIC"},
	{"commands/datadir", "github.com/quic-go/quic-go", "only rpc knows QUIC"},
}

type listedPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// listPackages asks the go command for every package of the module.
func listPackages(t *testing.T) map[string]listedPackage {
	t.Helper()
	command := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := map[string]listedPackage{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listedPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		packages[strings.TrimPrefix(p.ImportPath, module+"/")] = p
	}
	if len(packages) < 5 {
		t.Fatalf("go list found only %d packages", len(packages))
	}
	return packages
}

// allowed returns everything a room may import, following the table downwards.
func allowed(name string, seen map[string]bool) map[string]bool {
	i := slices.IndexFunc(rooms, func(r room) bool { return r.name == name })
	if i < 0 {
		return seen
	}
	for _, next := range rooms[i].mayImport {
		if !seen[next] {
			seen[next] = true
			allowed(next, seen)
		}
	}
	return seen
}

// testSupport is imported by tests only; it may use everything.
var testSupport = []string{"rpc/sim"}

func TestImportsPointDown(t *testing.T) {
	packages := listPackages(t)
	for name, p := range packages {
		if name == module || slices.Contains(testSupport, name) {
			continue
		}
		i := slices.IndexFunc(rooms, func(r room) bool { return r.name == name })
		if i < 0 {
			t.Errorf("%s is not in the layer table: give it a row with a reason", name)
			continue
		}
		may := allowed(name, map[string]bool{})
		for _, imported := range p.Imports {
			inner, ours := strings.CutPrefix(imported, module+"/")
			if ours && !may[inner] {
				t.Errorf("%s imports %s: not allowed, because %s", name, inner, rooms[i].reason)
			}
		}
	}
	for _, ban := range banned {
		p, there := packages[ban.room]
		if !there {
			t.Errorf("the ban on %s names %s, which does not exist", ban.module, ban.room)
			continue
		}
		for _, dependency := range p.Deps {
			if dependency == ban.module || strings.HasPrefix(dependency, ban.module+"/") {
				t.Errorf("%s links %s: banned, because %s", ban.room, dependency, ban.reason)
				break
			}
		}
	}
}

// testOnly are modules that no program may link, however deep: only tests use
// them.
var testOnly = map[string]string{
	"github.com/thomas-vilte/mls-go":    "the server never takes part in a group; MLS clients are what it is tested with",
	"github.com/anishathalye/porcupine": "it judges histories of tests",
	"pgregory.net/rapid":                "it draws the cases of tests",
	"go.uber.org/goleak":                "it watches tests",
	"github.com/google/go-cmp":          "it compares values in tests",
}

func TestProgramsLinkNoTestModules(t *testing.T) {
	programs := 0
	for name, p := range listPackages(t) {
		if !strings.HasPrefix(name, "cmd/") {
			continue
		}
		programs++
		for _, dependency := range p.Deps {
			for banned, reason := range testOnly {
				if dependency == banned || strings.HasPrefix(dependency, banned+"/") {
					t.Errorf("%s links %s: banned, because %s", name, dependency, reason)
				}
			}
		}
	}
	if programs < 3 {
		t.Fatalf("only %d programs were checked", programs)
	}
}

// sourceFiles lists the module's Go files outside of tests and generated code.
func sourceFiles(t *testing.T, tests bool) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "testdata" || entry.Name() == "bin") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, ".pb.go") {
			return nil
		}
		if tests || !strings.HasSuffix(name, "_test.go") {
			files = append(files, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(files)
	return files
}

// longestFile is the most lines a file may have. It only ever goes down.
const longestFile = 600

func TestFilesAreShort(t *testing.T) {
	for _, name := range sourceFiles(t, true) {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(content), "\n"); lines > longestFile {
			t.Errorf("%s has %d lines, more than %d: one subject a file", name, lines, longestFile)
		}
	}
}

func TestTopLevel(t *testing.T) {
	want := []string{
		".ci", ".gitignore", "Containerfile", "LICENSE", "Makefile", "README.md", "SECURITY.md",
		"cmd", "commands", "docs", "go.mod", "go.sum", "house_docs_test.go", "house_readme_test.go", "house_source_test.go", "house_test.go",
		"kt", "log", "projections", "proto", "rpc", "tools.mod", "tools.sum",
	}
	out, err := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	found := map[string]bool{}
	for name := range strings.Lines(string(out)) {
		top, _, _ := strings.Cut(path.Clean(strings.TrimSpace(name)), "/")
		found[top] = true
	}
	for name := range found {
		if !slices.Contains(want, name) {
			t.Errorf("%s stands at the top level: everything has a room below %v", name, want)
		}
	}
	for _, name := range want {
		if !found[name] {
			t.Errorf("%s is missing at the top level", name)
		}
	}
}
