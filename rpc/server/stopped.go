package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/admin"
)

// Stopped is the data directory of a server that is not running, opened for an
// administrator: log and engine work, nothing listens.
type Stopped struct {
	node Node
	// Admin is what the admin socket of the running server offers.
	Admin *admin.Service
}

// OpenStopped opens a data directory that exists. Of c it uses FS, Dir,
// AcceptTime and Logger. While it is open, no server starts on the directory,
// and while one runs, the error wraps datadir.ErrLocked. An error is one sentence
// that names cause and remedy.
func OpenStopped(ctx context.Context, c Config) (_ *Stopped, err error) {
	var undo closers
	defer func() {
		if err != nil {
			undo.close()
		}
	}()
	if c.Dir == "" {
		return nil, fmt.Errorf("no data directory given: set --data-dir")
	}
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.NoCreate = true
	s := &Stopped{node: Node{config: c}}
	if _, err := s.node.openStores(ctx, &undo); err != nil {
		return nil, err
	}
	if err := s.node.startEngine(ctx, &undo); err != nil {
		return nil, err
	}
	s.Admin, err = s.node.adminService(pb.Actor_DIRECTORY)
	return s, err
}

// BeginGeneration goes on after the end of the log was lost
// (commands.Engine.BeginGeneration), and writes the verifier key anew.
func (s *Stopped) BeginGeneration(ctx context.Context) (commands.Generation, error) {
	g, err := s.node.engine.BeginGeneration(ctx)
	if err != nil {
		return g, err
	}
	config, err := s.node.engine.Config()
	if err != nil {
		return g, err
	}
	return g, s.node.dir.Follow(config)
}

// VerifierKeyFile is the path of the log's verifier key.
func (s *Stopped) VerifierKeyFile() string { return s.node.dir.VerifierKeyFile() }

// Close ends the engine and closes every store: what was done is durable.
func (s *Stopped) Close() error {
	return errors.Join(s.node.engine.Stop(context.Background()), s.node.log.Close(), s.node.dir.Close())
}
