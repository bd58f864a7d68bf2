package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write the files that tests compare with")

// TestMain lets scripts call this test binary as quicprochat-server.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"quicprochat-server": main})
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
