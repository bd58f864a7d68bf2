package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/commands/datadir"
	"quicprochat/kt"
	"quicprochat/rpc/server"
)

// run creates the data directory, certificates included. One that is there
// already is checked and left as it is, so that init may stand before each start
// in a service unit.
func (c *initCommand) run(ctx context.Context, p *process) error {
	dir, err := datadir.Open(ctx, vfs.Default, c.DataDir, datadir.Options{ServerName: c.ServerName, Logger: p.logger})
	if err != nil {
		return startError(err)
	}
	name, caFile, err := complete(dir, p)
	if err := errors.Join(err, dir.Close()); err != nil {
		return startError(err)
	}
	text := fmt.Sprintf("data directory %s is there already, of server %s\n", c.DataDir, name)
	if dir.Created {
		text = fmt.Sprintf("created data directory %s\n", c.DataDir) + finalName(name)
	}
	_, err = fmt.Fprintf(p.stdout, "%sclients pin %s (qpc --ca-cert %s)\n", text, caFile, caFile)
	return err
}

// complete opens the log, whose first record holds the server's name, and makes
// the certificates for it.
func complete(dir *datadir.Dir, p *process) (name, caFile string, err error) {
	l, config, err := dir.OpenLog(p.logger)
	if err != nil {
		return "", "", err
	}
	if err := l.Close(); err != nil {
		return "", "", err
	}
	if name, _, err = kt.ParseOrigin(config.Origin); err != nil {
		return "", "", err
	}
	caFile, err = server.PrepareCertificates(dir, name, p.logger)
	return name, caFile, err
}
