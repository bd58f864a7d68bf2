package quicprochat_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// clocksAllowed names the files of commands in which wall time or randomness
// enters the engine; everywhere else in commands and in all of projections and
// kt both are given.
var clocksAllowed = map[string]string{
	"commands/clock.go":        "the one place where the engine reads the wall clock",
	"commands/engine.go":       "timers of the run loop",
	"commands/writer.go":       "timers of the run loop",
	"commands/acker.go":        "timers of the run loop",
	"commands/catchup.go":      "progress lines while replaying",
	"commands/housekeeping.go": "the housekeeping timer",
	"commands/tx.go":           "the one place where randomness enters decide",
}

// impure are the names through which time or randomness enters.
var impure = map[string][]string{
	"time":         {"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"},
	"math/rand":    nil, // nil: every name
	"math/rand/v2": nil,
	"crypto/rand":  nil,
}

func TestTimeAndRandomnessEnterInOnePlace(t *testing.T) {
	checked := 0
	for _, name := range sourceFiles(t, false) {
		room := name[:strings.LastIndex("/"+name, "/")]
		if _, fine := clocksAllowed[name]; fine {
			continue
		}
		if room != "projections/" && room != "commands/" && room != "kt/" && room != "kt/statement/" {
			continue
		}
		checked++
		for _, use := range impureUses(t, name) {
			t.Errorf("%s uses %s: time, randomness and ids enter in the engine and stand in the event", name, use)
		}
	}
	if checked < 10 {
		t.Fatalf("only %d files were checked", checked)
	}
}

// impureUses lists selectors like time.Now in one file.
func impureUses(t *testing.T, name string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	local := map[string]string{}
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		if _, watched := impure[imported]; !watched {
			continue
		}
		short := strings.TrimSuffix(imported, "/v2")
		short = short[strings.LastIndex(short, "/")+1:]
		if spec.Name != nil {
			short = spec.Name.Name
		}
		local[short] = imported
	}
	var uses []string
	ast.Inspect(file, func(node ast.Node) bool {
		selector, ok := node.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		identifier, ok := selector.X.(*ast.Ident)
		if !ok {
			return true
		}
		imported, watched := local[identifier.Name]
		if !watched {
			return true
		}
		names := impure[imported]
		if names == nil || contains(names, selector.Sel.Name) {
			uses = append(uses, identifier.Name+"."+selector.Sel.Name)
		}
		return true
	})
	return uses
}

func contains(list []string, wanted string) bool {
	for _, one := range list {
		if one == wanted {
			return true
		}
	}
	return false
}

// TestStoreKeysAreNamedOnce: constants of the two Pebble keyspaces are called
// prefix…; they are declared in the two keyspace files and nowhere else.
func TestStoreKeysAreNamedOnce(t *testing.T) {
	declared := map[string]int{}
	for _, name := range sourceFiles(t, false) {
		if !strings.HasPrefix(name, "log/") && !strings.HasPrefix(name, "projections/") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range file.Decls {
			general, ok := declaration.(*ast.GenDecl)
			if !ok || (general.Tok != token.CONST && general.Tok != token.VAR) {
				continue
			}
			for _, spec := range general.Specs {
				for _, identifier := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(identifier.Name, "prefix") {
						declared[name]++
					}
				}
			}
		}
	}
	for name := range declared {
		if name != "log/keyspace.go" && name != "projections/keyspace.go" {
			t.Errorf("%s declares a key prefix: they stand in the keyspace files", name)
		}
	}
	for _, name := range []string{"log/keyspace.go", "projections/keyspace.go"} {
		if declared[name] == 0 {
			t.Errorf("%s declares no key prefix", name)
		}
	}
}

// mostFuzzTargets bounds what .ci/fuzz runs one after the other: related inputs
// share a target, which a selector byte tells apart.
const mostFuzzTargets = 12

func TestFuzzTargetsAreFew(t *testing.T) {
	var targets []string
	for _, name := range sourceFiles(t, true) {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			if strings.HasPrefix(line, "func Fuzz") {
				targets = append(targets, name+": "+strings.TrimSpace(line))
			}
		}
	}
	if len(targets) > mostFuzzTargets || len(targets) == 0 {
		t.Errorf("%d fuzz targets, more than %d: give one that exists another selector:\n%s", len(targets), mostFuzzTargets, strings.Join(targets, "\n"))
	}
}
