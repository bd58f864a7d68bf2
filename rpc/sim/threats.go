package sim

import (
	"fmt"
	"slices"
	"strings"
)

// Threats are what a server may do, in the order and the words of the table of
// docs/transparency.md: the tests of lying servers are told by them.
const (
	Hides     = "hides a newer key or a revocation"
	Adds      = "adds a key for somebody"
	Removes   = "shows a key to one victim, then removes it"
	Shadows   = "logs a shadow HEAD for one victim and hides it from deltas"
	Erases    = "calls the newest version erased, or shows a second label space"
	Forks     = "shows two histories"
	RollsBack = "rolls back, or restores an old backup"
	Backdates = "back-dates"
	Alters    = "loses or alters an old event"
)

// Threats lists them all.
func Threats() []string {
	return []string{Hides, Adds, Removes, Shadows, Erases, Forks, RollsBack, Backdates, Alters}
}

// Told is a lie that a test tells, and what finds it: the step of the evidence, or
// in words what the honest side says instead.
type Told struct{ Threat, Test, Found string }

func (t Told) String() string { return fmt.Sprintf("| %s | `%s` | %s |", t.Threat, t.Test, t.Found) }

// CheckThreats compares the rows of docs/transparency.md whose tests are functions
// named in want with want, and sees that each threat has a row.
func CheckThreats(document string, want []Told) error {
	mine := map[string]bool{}
	for _, t := range want {
		function, _, _ := strings.Cut(t.Test, "/")
		mine[function] = true
	}
	missing := Threats()
	var rows []string
	for line := range strings.Lines(document) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) != 3 || !strings.HasPrefix(cells[1], "`Test") {
			continue
		}
		missing = slices.DeleteFunc(missing, func(threat string) bool { return cells[0] == "| "+threat })
		if function, _, _ := strings.Cut(strings.Trim(cells[1], "`"), "/"); mine[function] {
			rows = append(rows, strings.TrimSpace(line))
		}
	}
	var lines []string
	for _, t := range want {
		lines = append(lines, t.String())
	}
	slices.Sort(rows)
	sorted := slices.Sorted(slices.Values(lines))
	switch {
	case !slices.Equal(rows, sorted):
		return fmt.Errorf("docs/transparency.md should have these rows and no others of these tests:\n%s", strings.Join(lines, "\n"))
	case len(missing) > 0:
		return fmt.Errorf("docs/transparency.md has no test of a server that %s", strings.Join(missing, ", or "))
	}
	return nil
}
