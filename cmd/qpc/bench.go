package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/bench"
	"quicprochat/rpc/client"
	"quicprochat/rpc/pake"
)

type benchCommand struct {
	Echo      benchEchoCommand      `cmd:"" help:"Drive a bare QUIC echo server, which is the ceiling."`
	Enqueue   benchEnqueueCommand   `cmd:"" help:"Drive Enqueue at --server, and count what was stored."`
	Fetch     benchFetchCommand     `cmd:"" help:"Drain full queues at --server, against bare answers of the same size."`
	Login     benchLoginCommand     `cmd:"" help:"Log in at --server, against the CPU of the OPAQUE library alone."`
	Relogin   benchReloginCommand   `cmd:"" help:"As login, each time over a new connection."`
	Proof     benchProofCommand     `cmd:"" help:"Look people up with proofs at --server, against bare answers of the same size."`
	Idle      benchIdleCommand      `cmd:"" help:"Weigh idle connections at --server, against a bare QUIC server."`
	ServeEcho benchServeEchoCommand `cmd:"" hidden:"" help:"Run the echo server and print where it listens."`
}

// loadFlags are shared by the loads.
type loadFlags struct {
	Connections int           `default:"16" help:"QUIC connections."`
	Inflight    int           `default:"256" help:"Calls under way at once, over all connections."`
	Payload     int           `default:"1024" help:"Message length in bytes."`
	Duration    time.Duration `default:"10s" help:"How long calls are started."`
}

// load checks the flags.
func (f loadFlags) load() (bench.Load, error) {
	switch {
	case f.Connections < 1 || f.Connections > 1000:
		return bench.Load{}, usageError("--connections %d: use 1 to 1000", f.Connections)
	case f.Inflight < f.Connections || f.Inflight > 65536:
		return bench.Load{}, usageError("--inflight %d: use at least one per connection (%d), at most 65536", f.Inflight, f.Connections)
	case f.Payload < 16 || f.Payload > 1<<20:
		return bench.Load{}, usageError("--payload %d: use 16 to %d bytes", f.Payload, 1<<20)
	case f.Duration < 100*time.Millisecond || f.Duration > time.Hour:
		return bench.Load{}, usageError("--duration %s: use 100ms to 1h", f.Duration)
	}
	return bench.Load{Connections: f.Connections, InFlight: f.Inflight, Payload: f.Payload, Duration: f.Duration}, nil
}

type benchEchoCommand struct{ loadFlags }

func (benchEchoCommand) Help() string {
	return "Starts an echo server in a second process (same frames, same stream per call, no store) on loopback and drives it through the SDK. It needs no other server."
}

func (cmd benchEchoCommand) Run(ctx context.Context, a *app) error {
	load, err := cmd.load()
	if err != nil {
		return err
	}
	target, stop, err := openEcho(ctx, load.Connections, echoAnswer{})
	if err != nil {
		return err
	}
	defer stop()
	return a.printReport(bench.Echo(ctx, load, target))
}

type benchEnqueueCommand struct {
	loadFlags
	Baseline bool `help:"Interleave with the echo server and print the ratio."`
	Online   bool `help:"Keep the recipients connected, so that each message is pushed as well."`
}

func (benchEnqueueCommand) Help() string {
	return `Registers a sender and a recipient per connection, drives Enqueue in a closed loop, and reads the queues afterwards: fewer messages stored than acknowledged is exit status 1. The recipients are offline meanwhile; --online has each message pushed to one as well.

Rate limits and quotas would measure themselves. Start the server for it with:
  quicprochat-server --listen 127.0.0.1:5001 --data-dir DIR --limits off`
}

func (cmd benchEnqueueCommand) Run(ctx context.Context, a *app) error {
	load, err := cmd.load()
	if err != nil {
		return err
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	cfg.KSF = pake.InsecureKSF() // the passwords protect nothing
	server, err := bench.OpenServer(ctx, cfg, load.Connections, cmd.Online, func(ready int) {
		a.progress("%d of %d connections ready", ready, load.Connections)
	})
	if err != nil {
		return limitsHint(err)
	}
	defer server.Close()
	var echo *bench.Target
	if cmd.Baseline {
		target, stop, err := openEcho(ctx, load.Connections, echoAnswer{})
		if err != nil {
			return err
		}
		defer stop()
		echo = target
	}
	report, err := bench.Enqueue(ctx, load, server, echo, func(step string) { a.progress("%s", step) })
	if err != nil {
		return limitsHint(err)
	}
	a.progress("")
	if err := a.printReport(report); err != nil {
		return err
	}
	return judge(report)
}

// judge turns a bad outcome into exit status 1.
func judge(report *bench.Report) error {
	switch {
	case report.Lost():
		return &exitError{1, fmt.Errorf("%d messages were acknowledged, only %d are stored", report.Acknowledged, report.Stored)}
	case report.Failed > 0:
		return &exitError{1, fmt.Errorf("%d calls failed, the first with: %w", report.Failed, limitsHint(report.Cause))}
	case report.Acknowledged == 0:
		return &exitError{1, errors.New("no call was answered")}
	}
	return nil
}

// limitsHint adds what to do when the server limited the load.
func limitsHint(err error) error {
	var refused *client.StatusError
	if errors.As(err, &refused) && refused.Status == pb.Status_RateLimited {
		return fmt.Errorf("%w\nThe server's limits are on, so this would measure the limits: start it on a loopback address with --limits off", err)
	}
	return err
}

// progress shows on a terminal what is under way; programs that read JSON get
// none of it.
func (a *app) progress(format string, args ...any) {
	file, isFile := a.stderr.(*os.File)
	if a.JSON || !isFile || !isTerminal(file) {
		return
	}
	fmt.Fprintf(file, "\r\x1b[K"+format, args...)
}

// measurement is what every bench ends with.
type measurement interface{ Print(io.Writer) error }

func (a *app) printReport(report measurement) error {
	if a.JSON {
		return json.NewEncoder(a.stdout).Encode(report)
	}
	return report.Print(a.stdout)
}
