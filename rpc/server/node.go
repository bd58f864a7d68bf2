package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"quicprochat/commands"
	"quicprochat/commands/datadir"
	"quicprochat/kt"
	"quicprochat/log"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc"
	"quicprochat/rpc/admin"
)

// Node is a running server: data directory, log, engine and endpoint. It owns
// all of them, and closes them in the reverse order of opening.
type Node struct {
	config     Config
	dir        *datadir.Dir
	log        *log.Log
	identity   *identity
	engine     *commands.Engine
	server     *server
	admin      *admin.Server // nil without a socket
	collectors []prometheus.Collector
	witnessing *witnessing // nil without witnesses

	keeping  sync.WaitGroup // the certificate's renewal
	stopKeep context.CancelFunc
	shutdown sync.Once
	stopped  chan struct{}
	stopErr  error // written before stopped is closed
}

// Boot opens the data directory, starts the engine and serves on the socket.
// It returns when requests are decided; while the engine catches up with the
// log, callers that connect are told that the server is starting (Unavailable,
// STARTING). ctx ends the start, not the running server. An error is one
// sentence that names cause and remedy.
func Boot(ctx context.Context, c Config) (_ *Node, err error) {
	var undo closers
	defer func() {
		if err != nil {
			undo.close()
			giveRoom(c, err)
		}
	}()
	if c.PacketConn != nil {
		undo.add(c.PacketConn.Close)
	}
	if c, err = c.validate(); err != nil {
		return nil, err
	}
	if err := rpc.CheckTable(); err != nil {
		return nil, err
	}
	if _, err := bindAll(rpc.Methods(), bindings); err != nil {
		return nil, err
	}
	n := &Node{config: c, stopped: make(chan struct{})}
	if err := n.open(ctx, &undo); err != nil {
		return nil, err
	}
	return n, n.start(ctx, &undo)
}

// open opens what lies on disk.
func (n *Node) open(ctx context.Context, undo *closers) error {
	name, err := n.openStores(ctx, undo)
	if err != nil {
		return err
	}
	n.identity, err = openIdentity(n.dir, n.config.TLSCert, n.config.TLSKey, name, n.config.Logger)
	return err
}

// openStores opens data directory and log, and gives the server's name.
func (n *Node) openStores(ctx context.Context, undo *closers) (serverName string, err error) {
	c := n.config
	dir, err := datadir.Open(ctx, c.FS, c.Dir, datadir.Options{ServerName: c.ServerName, NoCreate: c.NoCreate, Logger: c.Logger})
	if err != nil {
		return "", err
	}
	n.dir = dir
	undo.add(dir.Close)
	if released, err := commands.MakeRoom(dir.FS, dir.Path); err != nil {
		c.Logger.Warn("the disk is full and the ballast can't be removed", "error", err)
	} else if released {
		c.Logger.Warn("the disk is full: the ballast was removed to start")
	}
	l, config, err := dir.OpenLog(c.Logger)
	if err != nil {
		return "", err
	}
	n.log = l
	undo.add(l.Close)
	name, _, err := kt.ParseOrigin(config.Origin)
	if err != nil {
		return "", fmt.Errorf("the log's origin can't be read: restore the data directory from a backup (%w)", err)
	}
	return name, nil
}

// startEngine brings the views up to the log and starts deciding.
func (n *Node) startEngine(ctx context.Context, undo *closers) error {
	c := n.config
	engine, err := commands.Start(ctx, commands.Options{
		Log: n.log, FS: n.dir.FS, Dir: n.dir.Path, Quotas: c.Limits != LimitsOff,
		AcceptTime: c.AcceptTime, MinFree: c.MinFree, WallClock: c.WallClock, Logger: c.Logger,
		LogKey: n.dir.Secrets.LogKey, VRF: kt.NewVRFPrivateKey(n.dir.Secrets.VRFSeed),
		Ask: n.witnessing.ask(),
	})
	if err != nil {
		return err
	}
	n.engine = engine
	undo.add(func() error { return engine.Stop(ctx) })
	config, err := engine.Config()
	if err != nil {
		return err
	}
	if err := n.dir.Follow(config); err != nil {
		return err
	}
	disk := diskCollectors(engine)
	if err := register(c.Registerer, disk); err != nil {
		return err
	}
	n.collectors = append(n.collectors, disk...)
	return nil
}

// openAdmin opens the admin socket; until serveAdmin it answers that the server
// is starting.
func (n *Node) openAdmin(ctx context.Context, undo *closers) (err error) {
	if n.config.AdminSocket == "" {
		return nil
	}
	n.admin, err = admin.Listen(n.config.AdminSocket, n.config.Logger)
	if err == nil {
		undo.add(func() error { return n.admin.Shutdown(ctx) })
	}
	return err
}

// adminService is what administrators may do who come this way.
func (n *Node) adminService(way pb.Actor_Way) (*admin.Service, error) {
	return admin.NewService(admin.Options{Engine: n.engine, Way: way, VRF: kt.NewVRFPrivateKey(n.dir.Secrets.VRFSeed)})
}

// serveAdmin lets administrators act.
func (n *Node) serveAdmin() error {
	if n.admin == nil {
		return nil
	}
	service, err := n.adminService(pb.Actor_SOCKET)
	if err == nil {
		n.admin.Attach(service)
	}
	return err
}

// start begins to serve, and lets the engine catch up.
func (n *Node) start(ctx context.Context, undo *closers) error {
	c := n.config
	m := newMetrics()
	n.witnessing = newWitnessing(c.Witnesses, n.log, c.Logger)
	undo.add(func() error { n.witnessing.close(); return nil })
	n.collectors = append(append(m.collectors, engineCollectors(n.log)...), n.witnessing.collectors()...)
	if err := register(c.Registerer, n.collectors); err != nil {
		return err
	}
	undo.add(func() error { unregister(c.Registerer, n.collectors); return nil })
	n.server = newServer(c, n.identity.serverName, m)
	if err := n.server.listen(c.PacketConn, n.identity, n.dir.Secrets.OPAQUE.Seed[:]); err != nil {
		return err
	}
	n.server.accept()
	undo.add(func() error { return n.server.stop(ctx) })
	if err := n.openAdmin(ctx, undo); err != nil {
		return err
	}
	if err := n.startEngine(ctx, undo); err != nil {
		return err
	}
	service, err := newService(n.dir, n.identity.serverName, n.engine, c)
	if err != nil {
		return err
	}
	if err := n.serveAdmin(); err != nil {
		return err
	}
	n.server.service.Store(service)
	n.witnessing.begin(n.engine)
	keep, stop := context.WithCancel(context.Background())
	n.stopKeep = stop
	n.keeping.Go(func() { n.identity.keep(keep) })
	return nil
}

// giveRoom releases the ballast when a start failed for want of room: the next
// one finds it.
func giveRoom(c Config, err error) {
	if !vfs.IsNoSpaceError(err) {
		return
	}
	if released, err := commands.ReleaseBallast(c.FS, c.Dir); err != nil {
		c.Logger.Error("the disk is full and the ballast can't be removed", "error", err)
	} else if released {
		c.Logger.Warn("the disk is full: the ballast was removed, so that the next start has room")
	}
}

// Addr is the address that the node serves on.
func (n *Node) Addr() net.Addr { return n.server.listener.quic.Addr() }

// CAFile is the path of the certificate that clients pin (--ca-cert): that of
// the server's own authority, or the operator's certificate where the operator
// gave one.
func (n *Node) CAFile() string { return n.identity.pinFile() }

// ServerName is the name stored at the first start.
func (n *Node) ServerName() string { return n.identity.serverName }

// Created reports whether this start made the data directory.
func (n *Node) Created() bool { return n.dir.Created }

// Engine is the engine of the node; it belongs to the node.
func (n *Node) Engine() *commands.Engine { return n.engine }

// Log is the log of the node; it belongs to the node.
func (n *Node) Log() *log.Log { return n.log }

// Failed is closed when the node can't go on (a commit of unknown outcome): the
// process should end with the error of Wait.
func (n *Node) Failed() <-chan struct{} { return n.engine.Failed() }

// Wait blocks until the node fails or has shut down, and returns why: nil after
// a Shutdown that went well.
func (n *Node) Wait() error {
	select {
	case <-n.engine.Failed():
		return n.engine.Err()
	case <-n.stopped:
		return n.stopErr
	}
}

// Reload reads the certificate pair again (SIGHUP). On an error the pair in use
// stays.
func (n *Node) Reload() error { return n.identity.reload() }

// Shutdown stops accepting, lets requests that run finish within ctx, closes
// connections with code 0, ends the engine and closes every store. It may be
// called more than once; each call waits for the first. What was cut off or
// could not be closed is in the error.
func (n *Node) Shutdown(ctx context.Context) error {
	n.shutdown.Do(func() {
		defer close(n.stopped)
		n.stopKeep()
		err := n.server.stop(ctx)
		if n.admin != nil {
			err = errors.Join(err, n.admin.Shutdown(ctx))
		}
		n.server.service.Load().close()
		n.witnessing.close()
		// The stores are closed even when time is up: a clean end is the
		// faster start.
		err = errors.Join(err, n.engine.Stop(context.WithoutCancel(ctx)))
		unregister(n.config.Registerer, n.collectors)
		n.keeping.Wait()
		n.stopErr = errors.Join(err, n.log.Close(), n.dir.Close())
	})
	<-n.stopped
	return n.stopErr
}

// closers undo a start that went half way, last opened first.
type closers struct{ list []func() error }

func (c *closers) add(f func() error) { c.list = append(c.list, f) }

// close runs all of them. Their errors say less than the one that ended the
// start.
func (c *closers) close() {
	for i := len(c.list) - 1; i >= 0; i-- {
		c.list[i]()
	}
}
