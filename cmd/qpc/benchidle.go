package main

import (
	"context"
	"time"

	"quicprochat/rpc/bench"
)

type benchIdleCommand struct {
	Connections int           `default:"1000" help:"Idle connections that are weighed."`
	Settle      time.Duration `default:"5s" help:"Pause before each reading of the memory."`
	ServerPID   int           `name:"server-pid" required:"" placeholder:"PID" help:"Process id of the server on this machine (Linux)."`
}

func (benchIdleCommand) Help() string {
	return `Opens connections to an echo server in a second process and then to --server, lets each be answered once, waits, and compares what both processes hold in memory per connection.

What a garbage collector has not collected yet counts, too. Give both processes the same rare or eager collector; qpc hands its own GOGC on to the echo server:
  GOGC=25 quicprochat-server --listen 127.0.0.1:5001 --data-dir DIR --limits off
  GOGC=25 qpc bench idle --server-pid PID`
}

func (cmd benchIdleCommand) Run(ctx context.Context, a *app) error {
	switch {
	case cmd.Connections < 10 || cmd.Connections > 20_000:
		return usageError("--connections %d: use 10 to 20000", cmd.Connections)
	case cmd.Settle < 0 || cmd.Settle > time.Hour:
		return usageError("--settle %s: use 0s to 1h", cmd.Settle)
	case cmd.ServerPID < 1:
		return usageError("--server-pid %d is no process id", cmd.ServerPID)
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	echo, err := startEcho(ctx, echoAnswer{Page: 1, Payload: 16})
	if err != nil {
		return err
	}
	defer echo.stop()
	report, err := bench.Idle(ctx, cmd.Connections, cmd.Settle,
		bench.Idler{Config: cfg, PID: cmd.ServerPID},
		bench.Idler{Config: echo.config, PID: echo.pid, Echo: true},
		func(step string) { a.progress("%s", step) })
	if err != nil {
		return limitsHint(err)
	}
	a.progress("")
	return a.printReport(report)
}
