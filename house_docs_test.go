package quicprochat_test

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"quicprochat/rpc"
)

// markdownLink finds [text](target) outside of code blocks.
var markdownLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func markdownFiles(t *testing.T) []string {
	t.Helper()
	files := []string{"README.md", "SECURITY.md"}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) < 8 {
		t.Fatalf("only %d pages found: %v", len(files), files)
	}
	return files
}

func TestLinksInDocsAreAlive(t *testing.T) {
	links := 0
	for _, page := range markdownFiles(t) {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		code := false
		for line := range strings.Lines(string(content)) {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				code = !code
			}
			if code {
				continue
			}
			for _, match := range markdownLink.FindAllStringSubmatch(line, -1) {
				target, anchor, _ := strings.Cut(match[1], "#")
				if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
					continue
				}
				links++
				checkLink(t, page, target, anchor)
			}
		}
	}
	if links < 10 {
		t.Errorf("only %d links were found in the documentation", links)
	}
}

func checkLink(t *testing.T, page, target, anchor string) {
	t.Helper()
	file := page
	if target != "" {
		file = path.Join(path.Dir(page), target)
	}
	content, err := os.ReadFile(file)
	if info, statErr := os.Stat(file); statErr == nil && info.IsDir() {
		return
	}
	if err != nil {
		t.Errorf("%s links to %s, which does not exist", page, target)
		return
	}
	if anchor != "" && !strings.Contains(anchorsOf(string(content)), "\n"+anchor+"\n") {
		t.Errorf("%s links to #%s, which %s does not have", page, anchor, file)
	}
}

// anchorsOf lists a page's heading anchors, one a line, as code hosts make them.
func anchorsOf(content string) string {
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	anchors := "\n"
	for line := range strings.Lines(content) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		heading := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		anchors += strings.ReplaceAll(drop.ReplaceAllString(heading, ""), " ", "-") + "\n"
	}
	return anchors
}

// TestEveryMethodHasItsPapers: a method without a scenario or without a row in
// the documentation is not finished.
func TestEveryMethodHasItsPapers(t *testing.T) {
	table, err := os.ReadFile("docs/methods.md")
	if err != nil {
		t.Fatal(err)
	}
	meaning, err := os.ReadFile("docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	scenarios := readAll(t, "commands/testdata/*.txt") + readAll(t, "rpc/server/testdata/*.txt")
	methods := rpc.Methods()
	if len(methods) < 15 {
		t.Fatalf("the method table has only %d rows", len(methods))
	}
	for _, method := range methods {
		if !strings.Contains(string(table), "| "+strconv.Itoa(int(method.ID))+" |") {
			t.Errorf("docs/methods.md has no row for %d %s", method.ID, method.Name)
		}
		if !strings.Contains(string(meaning), method.Name) {
			t.Errorf("docs/protocol.md does not tell what %s means", method.Name)
		}
		if !strings.Contains(scenarios, method.Name) {
			t.Errorf("no scenario file calls %s", method.Name)
		}
	}
}

func readAll(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(content)
	}
	return all.String()
}
