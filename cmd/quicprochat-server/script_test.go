package main

import (
	"context"
	"encoding/hex"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
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
	command.Env = []string{"PATH=" + ts.Getenv("PATH"), "TMPDIR=" + ts.Getenv("TMPDIR"), "QPC_MIN_FREE=0"}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
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
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
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
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p, err := newPerson(ctx, args[0], runningChild(ts).address, ts.MkAbs(args[1]))
	ts.Check(err)
	ts.Check(p.register(ctx))
	p.client.Close()
}

// cmdReset is the script command "reset NAME DIR FILE": a user registers anew with
// the token in a file. Negated, the server must refuse the token.
func cmdReset(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: [!] reset NAME DIR FILE")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p, err := newPerson(ctx, args[0], runningChild(ts).address, ts.MkAbs(args[1]))
	ts.Check(err)
	defer p.client.Close()
	token, err := hex.DecodeString(strings.TrimSpace(ts.ReadFile(args[2])))
	ts.Check(err)
	made, err := p.client.Register(ctx, client.RegisterParams{
		Username: p.name, Password: p.password, IdentityKey: p.identity, DeviceKey: p.device, ResetToken: token,
	})
	if neg {
		if client.ReasonOf(err) != pb.Reason_RESET_TOKEN_INVALID {
			ts.Fatalf("a reset with a token that is not good: %v", err)
		}
		return
	}
	ts.Check(err)
	if !made.Proved {
		ts.Fatalf("the reset was not proved")
	}
	ts.Check(p.logIn(ctx))
}
