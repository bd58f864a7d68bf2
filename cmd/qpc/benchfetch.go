package main

import (
	"context"
	"fmt"

	"quicprochat/rpc/bench"
	"quicprochat/rpc/pake"
)

type benchFetchCommand struct {
	Connections int `default:"16" help:"QUIC connections, each with a queue of its own."`
	Rounds      int `default:"5" help:"How often the queues are filled and drained."`
	Messages    int `default:"2000" help:"Messages per queue and round."`
	Page        int `default:"100" help:"Messages per call."`
	Payload     int `default:"1024" help:"Message length in bytes."`
}

func (benchFetchCommand) Help() string {
	return `Fills a queue per connection (not measured), then reads all of them at once to their end, page by page; each call confirms the page before, durably. In turn with it an echo server in a second process answers as many calls with as many bytes: the ratio is what is left of the transport's speed. A message that was queued and not read is exit status 1.

Start the server with:
  quicprochat-server --listen 127.0.0.1:5001 --data-dir DIR --limits off`
}

// drain checks the flags.
func (cmd benchFetchCommand) drain() (bench.Drain, error) {
	switch {
	case cmd.Connections < 1 || cmd.Connections > 1000:
		return bench.Drain{}, usageError("--connections %d: use 1 to 1000", cmd.Connections)
	case cmd.Rounds < 1 || cmd.Rounds > 1000:
		return bench.Drain{}, usageError("--rounds %d: use 1 to 1000", cmd.Rounds)
	case cmd.Messages < 1 || cmd.Messages > 100_000:
		return bench.Drain{}, usageError("--messages %d: use 1 to 100000", cmd.Messages)
	case cmd.Page < 1 || cmd.Page > 256:
		return bench.Drain{}, usageError("--page %d: use 1 to 256", cmd.Page)
	case cmd.Payload < 16 || cmd.Page*cmd.Payload > 1<<20:
		return bench.Drain{}, usageError("--payload %d: use 16 bytes or more, and at most 1 MiB in a page of %d", cmd.Payload, cmd.Page)
	}
	return bench.Drain{Connections: cmd.Connections, Rounds: cmd.Rounds, Messages: cmd.Messages, Page: cmd.Page, Payload: cmd.Payload}, nil
}

func (cmd benchFetchCommand) Run(ctx context.Context, a *app) error {
	drain, err := cmd.drain()
	if err != nil {
		return err
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	cfg.KSF = pake.InsecureKSF() // the passwords protect nothing
	server, err := bench.OpenServer(ctx, cfg, drain.Connections, true, func(ready int) {
		a.progress("%d of %d connections ready", ready, drain.Connections)
	})
	if err != nil {
		return limitsHint(err)
	}
	defer server.Close()
	echo, stop, err := openEcho(ctx, drain.Connections, echoAnswer{Page: drain.Page, Payload: drain.Payload})
	if err != nil {
		return err
	}
	defer stop()
	report, err := bench.Fetch(ctx, drain, server, echo, func(step string) { a.progress("%s", step) })
	if err != nil {
		return limitsHint(err)
	}
	a.progress("")
	if err := a.printReport(report); err != nil {
		return err
	}
	if report.Lost() {
		return &exitError{1, fmt.Errorf("%d messages were queued and %d were read", report.Queued, report.Fetched)}
	}
	return nil
}
