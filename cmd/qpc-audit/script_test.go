package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptLog is the log of one script.
type scriptLog struct{}

// TestScripts runs the binary as a person does: testdata/*.txtar.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Values[scriptLog{}] = newFakeLog(t)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": wantStatus,
			"log":    serveLog,
			"grow":   func(ts *testscript.TestScript, _ bool, _ []string) { logOf(ts).grow(17) },
			"fork":   forkLog,
			"verifyevidence": func(ts *testscript.TestScript, _ bool, args []string) {
				files, err := filepath.Glob(ts.MkAbs(args[0]) + "/evidence-*.json")
				ts.Check(err)
				wantStatus(ts, false, []string{"1", "qpc-audit", "verify", "--vkey", "log.vkey", files[0]})
			},
		},
	})
}

func logOf(ts *testscript.TestScript) *fakeLog { return ts.Value(scriptLog{}).(*fakeLog) }

// serveLog serves a log and writes its verifier key.
func serveLog(ts *testscript.TestScript, _ bool, _ []string) {
	l := logOf(ts)
	l.grow(51)
	served := httptest.NewServer(l)
	ts.Defer(served.Close)
	ts.Setenv("URL", served.URL)
	ts.Check(os.WriteFile(ts.MkAbs("log.vkey"), []byte(l.vkey()+"\n"), 0o600))
}

// forkLog makes the log show another history of the same length.
func forkLog(ts *testscript.TestScript, _ bool, _ []string) {
	l := logOf(ts)
	l.mu.Lock()
	size, root := uint64(len(l.leaves)), l.tree.Hash()
	root[0] ^= 1
	l.mu.Unlock()
	l.show(l.sign(fakeOrigin, size, [32]byte(root)))
}

// wantStatus runs a program that must end with the exit status given:
// status 64 qpc-audit --no-such-flag
func wantStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N program [args...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if want := args[0]; want != strconv.Itoa(got) {
		ts.Fatalf("exit status %d, want %s", got, want)
	}
}
