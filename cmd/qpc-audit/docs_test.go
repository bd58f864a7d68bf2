package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestAuditingPage: the table of exit statuses is what the code says, and every
// command has its place.
func TestAuditingPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/auditing.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range exitMeaning {
		if row := fmt.Sprintf("| %d | %s |\n", e.code, e.meaning); !strings.Contains(string(page), row) {
			t.Errorf("docs/auditing.md lacks the row %s", row)
		}
	}
	for _, command := range []string{"check", "verify", "follow", "monitor", "mirror", "witness"} {
		if !strings.Contains(string(page), "qpc-audit "+command) {
			t.Errorf("docs/auditing.md does not show %s", command)
		}
	}
}
