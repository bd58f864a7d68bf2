package rpc

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	pb "quicprochat/proto/qpcv1"
)

var update = flag.Bool("update", false, "rewrite docs/methods.md from the method table")

const methodsPage = "../docs/methods.md"

// rpcComment finds the comment of an RPC in the schema; generated code does not
// carry comments.
var rpcComment = regexp.MustCompile(`(?m)((?:^[ \t]*//.*\n)+)[ \t]*rpc (\w+)\(`)

// summaries are the comments of all RPCs, each in one line.
func summaries(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../proto/qpc/v1/*.proto")
	if err != nil || len(files) == 0 {
		t.Fatalf("schema: %v, %v", files, err)
	}
	found := make(map[string]string)
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range rpcComment.FindAllStringSubmatch(string(source), -1) {
			var words []string
			for line := range strings.Lines(match[1]) {
				words = append(words, strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "//"))...)
			}
			found[match[2]] = strings.Join(words, " ")
		}
	}
	return found
}

// methodsDoc is the whole page.
func methodsDoc(t *testing.T) string {
	t.Helper()
	summary := summaries(t)
	var b strings.Builder
	b.WriteString(`# Methods

Written from the method table in the schema (` + "`proto/qpc/v1/*.proto`" + `, option ` + "`rule`" + `) by
` + "`go test ./rpc -run TestMethodsPage -update`" + `; don't edit. What each call means in detail: [protocol.md](protocol.md).
Frames: [formats/wire.md](formats/wire.md).

- **auth**: who may call. NONE: anybody, the request has no ` + "`session_token`" + `. OPTIONAL: a token changes the meaning. ENROLL: any
  session. SESSION: a session of a device. FRESH: of a device that logged in less than 5 minutes ago. MODERATOR, ADMIN:
  by role. PEER: another server. LOCAL: whoever may open the admin socket.
- **rate**: the token bucket that the call is charged to; none on the admin socket.
- **retry**: how a call whose answer was lost may be repeated. NONE: a read, at will. REQUEST_ID: with the same
  ` + "`request_id`" + ` (UUIDv7 with the server's time, ± 24 h) and the same content, performed once. AFTER_SEQ: with the same
  ` + "`after_seq`" + `. CONTENT: the same content again is Ok. ONE_SHOT: not at all, start over.
- **limit**: longest request body in bytes.
- **writes**: the call may append events to the log. **waits**: it may take longer than the deadline of 10 s.
`)
	service := ""
	for _, m := range append(slices.Clone(Methods()), LocalMethods()...) {
		if m.Service != service {
			service = m.Service
			fmt.Fprintf(&b, "\n## %s\n\n", service)
			if m.IsLocal() {
				b.WriteString("Not on QUIC: these are served on the admin socket of the server's machine alone\n([operations.md](operations.md#administrators)).\n\n")
			}
			b.WriteString("| id | method | auth | rate | retry | limit | writes | waits | summary |\n")
			b.WriteString("|---|---|---|---|---|---|---|---|---|\n")
		}
		if summary[m.Name] == "" {
			t.Errorf("%s has no comment in the schema", m)
		}
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s | %s | %d | %s | %s | %s |\n", m.ID, m.Name, m.Rule.Auth, rateName(m), m.Rule.Retry,
			m.MaxRequest, yes(m.Rule.Mutates), yes(m.Rule.Waits), strings.ReplaceAll(summary[m.Name], "|", `\|`))
	}
	b.WriteString("\n## Statuses\n\n| status | name |\n|---|---|\n")
	for s := pb.Status(0); s < 256; s++ {
		if KnownStatus(s) {
			fmt.Fprintf(&b, "| %d | `%s` |\n", s, StatusName(s))
		}
	}
	return b.String()
}

func rateName(m *Method) string {
	if m.IsLocal() {
		return ""
	}
	return m.Rule.Rate.String()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func TestMethodsPage(t *testing.T) {
	want := methodsDoc(t)
	if *update {
		if err := os.WriteFile(methodsPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(methodsPage)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/methods.md is not what the method table says: run go test ./rpc -run TestMethodsPage -update")
	}
}

// The example bytes of docs/formats/wire.md are those of this package.
func TestWirePage(t *testing.T) {
	page, err := os.ReadFile("../docs/formats/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	body := []byte{0x0a, 0x05, 'a', 'l', 'i', 'c', 'e'}
	for _, example := range [][]byte{
		AppendRequest(nil, 802, 1, nil),
		AppendResponse(nil, pb.Status_NotFound, 7, []byte{0x08, byte(pb.Reason_NO_DEVICE)}),
		AppendPush(nil, uint16(pb.PushType_NEW_MESSAGE), []byte{0x08, 0x05}),
		AppendRequest(nil, 999, 7, body),
	} {
		text := fmt.Sprintf("% x", example)
		if !strings.Contains(string(page), text) {
			t.Errorf("docs/formats/wire.md does not show %q", text)
		}
	}
}
