package main

import (
	"context"
	"fmt"
	"time"

	"quicprochat/rpc/bench"
)

type benchLoginCommand struct {
	Connections int           `default:"8" help:"Accounts that log in, each over a connection of its own."`
	Duration    time.Duration `default:"10s" help:"How long logins are started."`
	ServerPID   int           `name:"server-pid" placeholder:"PID" help:"Process id of the server on this machine, to count its CPU (Linux)."`
}

func (benchLoginCommand) Help() string {
	return `Registers accounts and has each log in again and again: two calls, one session event, one sync. The client's password stretching is made cheap, which the server never sees.

With --server-pid the server's CPU is counted per login and set against that of the OPAQUE library for its one expensive message (KE2), measured in turn in this process: the ratio is how much of a core's possible logins per second the server reaches.

Start the server with:
  quicprochat-server --listen 127.0.0.1:5001 --data-dir DIR --limits off`
}

func (cmd benchLoginCommand) Run(ctx context.Context, a *app) error { return cmd.run(ctx, a, false) }

type benchReloginCommand struct{ benchLoginCommand }

func (benchReloginCommand) Help() string {
	return `As bench login, but each login comes over a new connection, as when everybody returns after a restart: a handshake, two calls, one session event, one sync.`
}

func (cmd benchReloginCommand) Run(ctx context.Context, a *app) error { return cmd.run(ctx, a, true) }

func (cmd benchLoginCommand) run(ctx context.Context, a *app, reconnect bool) error {
	switch {
	case cmd.Connections < 1 || cmd.Connections > 1000:
		return usageError("--connections %d: use 1 to 1000", cmd.Connections)
	case cmd.Duration < 100*time.Millisecond || cmd.Duration > time.Hour:
		return usageError("--duration %s: use 100ms to 1h", cmd.Duration)
	case cmd.ServerPID < 0:
		return usageError("--server-pid %d is no process id", cmd.ServerPID)
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	people, err := bench.OpenPeople(ctx, cfg, cmd.Connections, func(ready int) {
		a.progress("%d of %d accounts ready", ready, cmd.Connections)
	})
	if err != nil {
		return limitsHint(err)
	}
	defer people.Close()
	people.Reconnect = reconnect
	report, err := bench.Login(ctx, cmd.Duration, people, cmd.ServerPID, func(step string) { a.progress("%s", step) })
	if err != nil {
		return err
	}
	a.progress("")
	if err := a.printReport(report); err != nil {
		return err
	}
	if report.Failed > 0 || report.Logins == 0 {
		return &exitError{1, fmt.Errorf("%d logins failed: %w", report.Failed, limitsHint(report.Cause))}
	}
	return nil
}
