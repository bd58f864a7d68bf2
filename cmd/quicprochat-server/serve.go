package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"quicprochat/commands/datadir"
	"quicprochat/rpc/admin"
	"quicprochat/rpc/server"
)

// node is what the daemon needs of a running server; tests stand in for it.
type node interface {
	Failed() <-chan struct{}
	Wait() error
	Reload() error
	Shutdown(context.Context) error
}

var _ node = (*server.Node)(nil)

// Bounds of a stop: requests that run may take 10 s of shutdownTime, and within
// closeTime more the stores are closed.
const (
	shutdownTime = 15 * time.Second
	closeTime    = 10 * time.Second
)

// run serves until ctx ends, a signal comes or the node fails.
func (c *serveCommand) run(ctx context.Context, p *process) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	starting, cancel := context.WithCancel(ctx)
	defer cancel()

	// The sockets come first: an occupied port must not leave a data directory
	// behind, nor wait for a long replay.
	socket, err := listenUDP(c.Listen)
	if err != nil {
		return err
	}
	metrics, err := openMetrics(c.MetricsListen, p.logger)
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	defer metrics.close()
	public, err := openPublic(c.KTListen, p.logger)
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	defer public.close()
	witnesses, err := c.witnesses()
	if err != nil {
		return errors.Join(err, socket.Close())
	}

	cert, key := c.certificate()
	config := server.Config{
		Dir: c.DataDir, PacketConn: socket, ServerName: c.ServerName,
		Limits: c.limits(), TLSCert: cert, TLSKey: key,
		AdminSocket: filepath.Join(c.DataDir, admin.SocketName),
		AcceptTime:  c.AcceptTime, NoCreate: c.NoCreate, MinFree: c.MinFree,
		Version: version(), Logger: p.logger, Registerer: metrics.registry, Witnesses: witnesses, MLSSuites: c.suites(),
	}
	node, err := boot(starting, cancel, signals, config)
	if err != nil {
		return startError(err)
	}
	checkReceiveBuffer(socket, p.logger)
	public.serve(node.PublicLog())
	if err := p.announce(c, node, public); err != nil {
		p.logger.Warn("can't write to standard output", slog.Any("error", err))
	}
	return p.attend(ctx, publicNode{node, public}, signals)
}

// boot starts the node. A first SIGTERM or SIGINT interrupts the start, a
// second one the process.
func boot(ctx context.Context, cancel context.CancelFunc, signals <-chan os.Signal, config server.Config) (*server.Node, error) {
	type result struct {
		node *server.Node
		err  error
	}
	done := make(chan result, 1)
	go func() {
		node, err := server.Boot(ctx, config)
		done <- result{node, err}
	}()
	stopping := false
	for {
		select {
		case r := <-done:
			if r.err == nil && stopping {
				// The signal came when the start was as good as over.
				return nil, errors.Join(context.Canceled, shutdown(r.node))
			}
			return r.node, r.err
		case s := <-signals:
			if s == syscall.SIGHUP {
				continue // the start reads the certificates anyway
			}
			if stopping {
				return nil, &interrupted{s.(syscall.Signal)}
			}
			stopping = true
			cancel()
		}
	}
}

// announce says on standard output where the server is and what its users need.
// The first line is for programs too: its second word is the address.
func (p *process) announce(c *serveCommand, node *server.Node, public *publicServer) error {
	text := fmt.Sprintf("listening %s server-name %s\n", node.Addr(), node.ServerName())
	if node.Created() {
		text += fmt.Sprintf("created data directory %s\n", c.DataDir)
		text += finalName(node.ServerName())
	}
	text += fmt.Sprintf("clients pin %s (qpc --ca-cert %s)\n", node.CAFile(), node.CAFile())
	text += public.announcement(node)
	_, err := fmt.Fprint(p.stdout, text)
	return err
}

// finalName tells at creation what can't be changed later.
func finalName(name string) string {
	text := fmt.Sprintf("the server name %s is final: users sign it with every statement\n", name)
	if name == datadir.DefaultServerName {
		text += "to be reached by other servers later, start over now with --server-name and an empty data directory\n"
	}
	return text
}

// attend waits for the end of the node or for the order to end it.
func (p *process) attend(ctx context.Context, n node, signals <-chan os.Signal) error {
	for {
		select {
		case <-n.Failed():
			return p.failed(n)
		case <-ctx.Done():
			p.logger.Info("stopping")
			return stopped(shutdown(n))
		case s := <-signals:
			if s == syscall.SIGHUP {
				p.reload(n)
				continue
			}
			p.logger.Info("stopping; a second signal ends the process at once", slog.String("signal", s.String()))
			return p.stop(n, signals)
		}
	}
}

func (p *process) reload(n node) {
	if err := n.Reload(); err != nil {
		p.logger.Error("certificate not reloaded, the one in use stays", slog.Any("error", err))
	}
}

// failed ends a node that can't go on; what it could not write is not lost: it
// was never acknowledged.
func (p *process) failed(n node) error {
	err := n.Wait()
	if err == nil {
		err = errors.New("the server ended by itself: start it again")
	} else {
		err = fmt.Errorf("the server can't go on (%w): look at the disk and its free space, then start it again; every acknowledged message is in the log", err)
	}
	return &coded{exitFailure, err}
}

// stop shuts down and listens for the second signal meanwhile.
func (p *process) stop(n node, signals <-chan os.Signal) error {
	done := make(chan error, 1)
	go func() { done <- shutdown(n) }()
	for {
		select {
		case err := <-done:
			return stopped(err)
		case s := <-signals:
			if s != syscall.SIGHUP {
				return &interrupted{s.(syscall.Signal)}
			}
		}
	}
}

// shutdown ends a node within shutdownTime and closeTime, whatever hangs: the
// log is as safe as after a kill.
func shutdown(n node) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- n.Shutdown(ctx) }()
	select {
	case err := <-done:
		return err
	case <-time.After(shutdownTime + closeTime):
		return context.DeadlineExceeded
	}
}

// stopped gives the end of a shutdown its words and code.
func stopped(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("the stop took longer than %v and was cut short; every acknowledged message is in the log: start again (%w)", shutdownTime, err)
	default:
		err = fmt.Errorf("the server did not stop cleanly; every acknowledged message is in the log: check the disk and start again (%w)", err)
	}
	return &coded{exitFailure, err}
}
