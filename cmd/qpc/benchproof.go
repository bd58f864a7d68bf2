package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"quicprochat/rpc/bench"
	"quicprochat/rpc/pake"
)

type benchProofCommand struct {
	Connections int           `default:"16" help:"QUIC connections."`
	People      int           `default:"256" help:"People who are looked up."`
	Inflight    int           `default:"256" help:"Calls under way at once, over all connections."`
	Duration    time.Duration `default:"10s" help:"How long calls are started, per measured server."`
}

func (benchProofCommand) Help() string {
	return `Registers people and looks them up (ResolveUser) with the proof that somebody gets who knows the log's newest note, in turn with an echo server in a second process that answers with the same bytes. Each person's proof is verified once before, and the server may keep it until the next checkpoint; the measured answers are decoded and not verified, which is the client's work.

Start the server with:
  quicprochat-server --listen 127.0.0.1:5001 --data-dir DIR --limits off`
}

func (cmd benchProofCommand) Run(ctx context.Context, a *app) error {
	load, err := loadFlags{Connections: cmd.Connections, Inflight: cmd.Inflight, Payload: 16, Duration: cmd.Duration}.load()
	if err != nil {
		return err
	}
	if cmd.People < 1 || cmd.People > 100_000 {
		return usageError("--people %d: use 1 to 100000", cmd.People)
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	cfg.KSF = pake.InsecureKSF() // the passwords protect nothing
	server, err := bench.OpenServer(ctx, cfg, load.Connections, false, func(ready int) {
		a.progress("%d of %d connections ready", ready, load.Connections)
	})
	if err != nil {
		return limitsHint(err)
	}
	defer server.Close()
	queries, err := bench.PrepareProofs(ctx, server, cmd.People, func(ready int) {
		a.progress("%d of %d people ready", ready, cmd.People)
	})
	if err != nil {
		return err
	}
	echo, stop, err := openEcho(ctx, load.Connections, echoAnswer{Body: hex.EncodeToString(queries.Answer)})
	if err != nil {
		return err
	}
	defer stop()
	report, err := bench.Proofs(ctx, load, queries, echo, func(step string) { a.progress("%s", step) })
	if err != nil {
		return err
	}
	a.progress("")
	if err := a.printReport(report); err != nil {
		return err
	}
	if report.Failed > 0 || report.ProofPerS == 0 {
		return &exitError{1, fmt.Errorf("%d calls failed: %w", report.Failed, limitsHint(report.Cause))}
	}
	return nil
}
