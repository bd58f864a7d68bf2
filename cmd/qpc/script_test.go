package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/admin"
	"quicprochat/rpc/echo"
	"quicprochat/rpc/pake"
	"quicprochat/rpc/server"
	"quicprochat/rpc/sim"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"qpc": func() {
		if os.Getenv(realStretching) == "" {
			stretching = pake.InsecureKSF()
		}
		main()
	}})
}

// realStretching has qpc stretch passwords as the profile says: a third of a second
// each time, several with the race detector. One script does.
const realStretching = "QPC_TEST_REAL_STRETCHING"

// TestScripts runs the binary as a person does: testdata/*.txtar. With the race
// detector, under which each of their hundreds of starts takes most of a second, three
// that do several things at once stand for all.
func TestScripts(t *testing.T) {
	dir, files := "testdata", []string(nil)
	if os.Getenv("QPC_TEST_SCALE") == "race" {
		dir, files = "", []string{"testdata/conversation.txtar", "testdata/devices.txtar", "testdata/follow.txtar"}
	}
	testscript.Run(t, testscript.Params{
		Dir: dir, Files: files,
		RequireExplicitExec: true,
		Setup:               setupScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"server":        startServer,
			"reset":         issueReset,
			"status":        wantStatus,
			"modes":         wantMode,
			"waitfor":       waitForContent,
			"keyof":         setDeviceKey,
			"keypackage":    makeKeyPackage,
			"stopserver":    stopServer,
			"newgeneration": beginGeneration,
			"moderator":     makeModerator,
		},
	})
}

// setupScript gives each script a home of its own and a certificate to pin that
// no server has.
func setupScript(env *testscript.Env) error {
	env.Values[booted{}] = new(script)
	env.Setenv("QPC_HOME", env.WorkDir+"/home")
	if strings.HasSuffix(env.WorkDir, "script-conversation") {
		env.Setenv(realStretching, "1")
	}
	certificate, err := echo.Certificate()
	if err != nil {
		return err
	}
	return os.WriteFile(env.WorkDir+"/some.der", certificate.Certificate[0], 0o600)
}

// startServer boots a server on loopback and points the script's environment at
// it: server [unlimited]
func startServer(ts *testscript.TestScript, _ bool, args []string) {
	limits := server.LimitsDefault
	if len(args) > 0 && args[0] == "unlimited" {
		limits = server.LimitsOff
	}
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	ts.Check(err)
	node, err := server.Boot(context.Background(), server.Config{
		Dir: ts.MkAbs("data"), PacketConn: socket, AdminSocket: ts.MkAbs("admin.sock"), Limits: limits, Version: "test",
	})
	ts.Check(err)
	ts.Value(booted{}).(*script).node = node
	ts.Defer(func() {
		if err := shutDown(node); err != nil {
			ts.Logf("shutdown: %v", err)
		}
	})
	ts.Setenv("QPC_SERVER", node.Addr().String())
	ts.Setenv("QPC_CA_CERT", node.CAFile())
	ts.Setenv("SERVER_PID", strconv.Itoa(os.Getpid()))
}

// booted is the key under which a script has its server.
type booted struct{}

type script struct{ node *server.Node }

func shutDown(node *server.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return node.Shutdown(ctx)
}

// stopServer stops the script's server: stopserver
func stopServer(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(shutDown(ts.Value(booted{}).(*script).node))
}

// beginGeneration declares the loss of the log's end on the stopped server's
// directory, as its administrator does: newgeneration
func beginGeneration(ts *testscript.TestScript, _ bool, _ []string) {
	stopped, err := server.OpenStopped(context.Background(), server.Config{Dir: ts.MkAbs("data")})
	ts.Check(err)
	_, err = stopped.BeginGeneration(context.Background())
	ts.Check(errors.Join(err, stopped.Close()))
}

// issueReset keeps the token of a reset in a file, as the server's administrator
// does: reset NAME FILE
func issueReset(ts *testscript.TestScript, _ bool, args []string) {
	resp := new(pb.ResetAccountResponse)
	ts.Check(admin.Call(context.Background(), ts.MkAbs("admin.sock"), &pb.ResetAccountRequest{Username: args[0]}, resp))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), fmt.Appendf(nil, "%x\n", resp.GetResetToken()), 0o600))
}

// makeModerator makes a user a moderator, as the server's administrator does:
// moderator NAME
func makeModerator(ts *testscript.TestScript, _ bool, args []string) {
	req := &pb.GrantRoleRequest{Username: args[0], Role: pb.Role_MODERATOR}
	ts.Check(admin.Call(context.Background(), ts.MkAbs("admin.sock"), req, new(pb.GrantRoleResponse)))
}

// wantStatus runs a program that must end with the exit status given:
// status 64 qpc --no-such-flag
func wantStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N program [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// wantMode checks the permission bits of a file: modes FILE OCTAL
func wantMode(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); (got == args[1]) == neg {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

// waitForContent waits until a file matches: waitfor FILE REGEXP
func waitForContent(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(args[1])
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	for {
		content, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && pattern.Match(content) {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("%s never matched %s; it holds %q", args[0], args[1], content)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// setDeviceKey puts the device key that 'qpc --json whoami' printed into a variable
// of the script: keyof FILE VARIABLE
func setDeviceKey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keyof file variable")
	}
	var who struct {
		DeviceKey string `json:"device_key"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &who))
	ts.Setenv(args[1], who.DeviceKey)
}

// makeKeyPackage does what an MLS program beside qpc does: it makes a KeyPackage
// of a home's device: keypackage HOME FILE NAME SUITE [last]
func makeKeyPackage(ts *testscript.TestScript, _ bool, args []string) {
	h, err := openHome(ts.MkAbs(args[0]))
	ts.Check(err)
	k, err := h.keys()
	ts.Check(err)
	suite, err := strconv.Atoi(args[3])
	ts.Check(err)
	device := k.device()
	p := sim.NewKeyPackage(device.Public().(ed25519.PublicKey), uint16(suite), args[2], time.Now())
	if len(args) > 4 {
		p.Extensions = append(p.Extensions, sim.LastResort)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), p.Sign(device), 0o600))
}
