package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

const configurationPage = "../../docs/configuration.md"

// Markers around what the tests of this file write.
const (
	tableBegin = "<!-- written by go test ./cmd/quicprochat-server -update: begin %s -->\n"
	tableEnd   = "<!-- end %s -->\n"
)

func model(t *testing.T) *kong.Application {
	t.Helper()
	parser, err := newParser(new(grammar), kong.Writers(io.Discard, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	return parser.Model
}

// flagTable is the table of one command's flags.
func flagTable(node *kong.Node) string {
	var b strings.Builder
	b.WriteString("| Flag | Variable | Default | Meaning |\n|---|---|---|---|\n")
	for _, flag := range node.Flags {
		if flag.Name == "help" {
			continue
		}
		variable, fallback := "–", "–"
		if v := flag.Tag.Get("var"); v != "" {
			variable = "`" + v + "`"
		}
		switch d := flagDefault(flag); {
		case flag.IsBool():
			fallback = "off"
		case strings.Contains(d, " ") || d == "off":
			fallback = d
		case d != "":
			fallback = "`" + d + "`"
		}
		name := strings.ReplaceAll(flagName(flag), "|", "\\|")
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, variable, fallback, strings.ReplaceAll(flag.Help, "|", "\\|"))
	}
	return b.String()
}

func exitTable() string {
	var b strings.Builder
	b.WriteString("| Code | Meaning |\n|---|---|\n")
	for _, e := range exitMeaning {
		fmt.Fprintf(&b, "| %s | %s |\n", e.code, e.meaning)
	}
	return b.String()
}

// TestDocTables holds docs/configuration.md against the flags, and writes it
// with -update.
func TestDocTables(t *testing.T) {
	page, err := os.ReadFile(configurationPage)
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]string{"exit codes": exitTable()}
	for _, command := range model(t).Leaves(false) {
		tables[commandName(command)] = flagTable(command)
	}
	text := string(page)
	for name, table := range tables {
		begin, end := fmt.Sprintf(tableBegin, name), fmt.Sprintf(tableEnd, name)
		before, rest, opened := strings.Cut(text, begin)
		old, after, closed := strings.Cut(rest, end)
		if !opened || !closed {
			t.Errorf("%s has no place for the table of %s", configurationPage, name)
			continue
		}
		if old != table && !*update {
			t.Errorf("%s: the table of %s is not what the code says: run go test ./cmd/quicprochat-server -update", configurationPage, name)
		}
		text = before + begin + table + end + after
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(configurationPage, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHelpFits: every line of every help text is readable in a terminal, and
// every flag is in it.
func TestHelpFits(t *testing.T) {
	for _, args := range [][]string{
		{"--help"}, {"init", "--help"}, {"demo", "--help"}, {"admin", "--help"},
		{"admin", "grant", "--help"}, {"admin", "revoke", "--help"}, {"admin", "list", "--help"},
		{"admin", "reset", "--help"}, {"admin", "revoke-key", "--help"}, {"admin", "new-generation", "--help"},
		{"admin", "ban", "--help"}, {"admin", "unban", "--help"}, {"admin", "bans", "--help"},
		{"admin", "reports", "--help"}, {"admin", "resolve", "--help"},
	} {
		code, stdout, stderr := call(t, nil, args...)
		if code != 0 || stderr != "" {
			t.Fatalf("%v: code %d, standard error %q", args, code, stderr)
		}
		for line := range strings.Lines(stdout) {
			if n := len([]rune(line)); n > 101 {
				t.Errorf("%v: a line of %d characters: %s", args, n, line)
			}
		}
	}
	_, top, _ := call(t, nil, "--help")
	for _, flag := range model(t).Children[0].Flags {
		if flag.Name != "help" && !strings.Contains(top, "--"+flag.Name) {
			t.Errorf("--help does not tell about --%s", flag.Name)
		}
		if flag.Name != "help" && len(flag.Help) < 20 {
			t.Errorf("--%s has no help worth reading", flag.Name)
		}
	}
}
