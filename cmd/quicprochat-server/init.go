package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/commands/datadir"
	"quicprochat/kt"
)

// run creates the data directory. One that is there already is checked and left
// as it is, so that init may stand before each start in a service unit.
func (c *initCommand) run(ctx context.Context, p *process) error {
	dir, err := datadir.Open(ctx, vfs.Default, c.DataDir, datadir.Options{ServerName: c.ServerName, Logger: p.logger})
	if err != nil {
		return startError(err)
	}
	config, err := checkLog(dir, p)
	if err := errors.Join(err, dir.Close()); err != nil {
		return startError(err)
	}
	name, _, err := kt.ParseOrigin(config.Origin)
	if err != nil {
		return startError(err)
	}
	text := fmt.Sprintf("data directory %s is there already, of server %s\n", c.DataDir, name)
	if dir.Created {
		text = fmt.Sprintf("created data directory %s\n", c.DataDir) + finalName(name)
	}
	_, err = fmt.Fprint(p.stdout, text)
	return err
}

// checkLog opens the log once: its first record holds the server's name.
func checkLog(dir *datadir.Dir, p *process) (kt.Config, error) {
	l, config, err := dir.OpenLog(p.logger)
	if err != nil {
		return kt.Config{}, err
	}
	return config, l.Close()
}
