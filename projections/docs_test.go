package projections

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentedKeyspace: docs/formats/views.md has a row for each prefix of
// keyspace.go and for nothing else.
func TestDocumentedKeyspace(t *testing.T) {
	page, err := os.ReadFile("../docs/formats/views.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, match := range regexp.MustCompile("(?m)^\\| [^|]+ \\| `([0-9a-f]{2})`").FindAllStringSubmatch(string(page), -1) {
		if documented[match[1]] {
			t.Errorf("prefix %s is documented twice", match[1])
		}
		documented[match[1]] = true
	}
	file, err := parser.ParseFile(token.NewFileSet(), "keyspace.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]string{}
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "prefix") {
			return true
		}
		value := strings.TrimPrefix(spec.Values[0].(*ast.BasicLit).Value, "0x")
		if other := used[value]; other != "" {
			t.Errorf("%s and %s are both %s", spec.Names[0].Name, other, value)
		}
		used[value] = spec.Names[0].Name
		return true
	})
	for value, name := range used {
		if !documented[value] {
			t.Errorf("%s (%s) is not documented", name, value)
		}
		delete(documented, value)
	}
	if len(documented) != 0 || len(used) < 20 {
		t.Errorf("documented but unused: %v; %d prefixes", documented, len(used))
	}
	if want := fmt.Sprintf("format %d.", viewsFormat); !strings.Contains(string(page), want) {
		t.Errorf("the page does not say %q", want)
	}
}
