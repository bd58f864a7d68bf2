package main

import (
	"context"
	"errors"
	"fmt"

	"quicprochat/commands/datadir"
	"quicprochat/rpc/server"
)

// run begins a new generation of the log on the directory of the stopped server.
func (c *newGenerationCommand) run(ctx context.Context, p *process) error {
	if !c.AcceptLoss {
		return &coded{exitUsage, errors.New("this gives up whatever was signed after the log in this directory ends: put the newest copy back if there is one, or say --accept-loss; admin new-generation --help tells what follows")}
	}
	stopped, err := server.OpenStopped(ctx, server.Config{Dir: c.DataDir, AcceptTime: c.AcceptTime, Logger: p.logger})
	if errors.Is(err, datadir.ErrLocked) {
		return &coded{exitBusy, fmt.Errorf("a process uses data directory %s: stop the server first (%w)", c.DataDir, err)}
	}
	if err != nil {
		return startError(err)
	}
	g, err := stopped.BeginGeneration(ctx)
	if err := errors.Join(adminError(err), startError(stopped.Close())); err != nil {
		return err
	}
	lost := "what came after the end of this directory's log is given up"
	if g.Lost > 0 {
		lost = fmt.Sprintf("a signed checkpoint of %d records is given up", g.Lost)
	}
	_, err = fmt.Fprintf(p.stdout, `The log of %s goes on as %s; %s.
All sessions have ended. Start the server. Auditors and witnesses need %s;
people agree with: qpc verify --accept-generation N NAME
`, g.Before, g.Origin, lost, stopped.VerifierKeyFile())
	return err
}
