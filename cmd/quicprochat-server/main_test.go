package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the files that tests compare with")

// TestMain lets scripts call this test binary as quicprochat-server.
func TestMain(m *testing.M) {
	testscript.Main(tidyTests{m}, map[string]func(){"quicprochat-server": main})
}

// tidyTests runs the tests and leaves neither files nor goroutines.
type tidyTests struct{ *testing.M }

func (m tidyTests) Run() int {
	code := m.M.Run()
	if builtDir != "" {
		_ = os.RemoveAll(builtDir)
	}
	http.DefaultClient.CloseIdleConnections()
	err := goleak.Find(
		// Pebble keeps these for the life of the process.
		goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2/vfs.(*diskHealthCheckingFS).startTickerLocked.func1"),
	)
	if err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// TestScripts runs the conversations in testdata with the program.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Values[served{}] = new(running)
			e.Setenv("TMPDIR", filepath.Join(e.WorkDir, "tmp"))
			return os.Mkdir(filepath.Join(e.WorkDir, "tmp"), 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve":      cmdServe,
			"stopserver": cmdStop,
			"register":   cmdRegister,
			"reset":      cmdReset,
		},
		UpdateScripts: *update,
	})
}

// call runs the program in this process.
func call(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = Run(context.Background(), args, env, &out, &err)
	return code, out.String(), err.String()
}
