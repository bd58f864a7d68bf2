package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// served is the key under which a script has its running server.
type served struct{}

type running struct{ child *child }

// cmdServe is the script command "serve FLAGS…": it starts the program in the
// background, waits until it serves and sets $ADDRESS.
func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("serve can't be negated: use exec")
	}
	program, err := exec.LookPath(filepath.Join(filepath.SplitList(ts.Getenv("PATH"))[0], "quicprochat-server"))
	ts.Check(err)
	command := exec.Command(program, args...)
	command.Dir = ts.MkAbs(".")
	command.Env = []string{"PATH=" + ts.Getenv("PATH"), "TMPDIR=" + ts.Getenv("TMPDIR")}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := startChild(ctx, command)
	ts.Check(err)
	ts.Defer(func() { c.kill() })
	ts.Setenv("ADDRESS", c.address)
	ts.Value(served{}).(*running).child = c
}

// cmdStop is the script command "stopserver": SIGTERM to the server that serve
// started, which must end cleanly.
func cmdStop(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: stopserver")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := runningChild(ts)
	ts.Check(c.stop(ctx))
	ts.Logf("server log: %s", c.log)
}

func runningChild(ts *testscript.TestScript) *child {
	c := ts.Value(served{}).(*running).child
	if c == nil {
		ts.Fatalf("no server was started with serve")
	}
	return c
}

// cmdRegister is the script command "register NAME DIR": a user registers at the
// server that serve started on data directory DIR.
func cmdRegister(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: register NAME DIR")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	p, err := newPerson(ctx, args[0], runningChild(ts).address, ts.MkAbs(args[1]))
	ts.Check(err)
	ts.Check(p.register(ctx))
	p.client.Close()
}
