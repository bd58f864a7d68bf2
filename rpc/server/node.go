package server

import (
	"context"
	"net"
)

// Node is a running server: data directory, engine and listener.
type Node struct{}

// Boot opens the data directory, starts the engine and serves on the socket.
// It returns when requests are decided; while it runs, callers that connect
// are told that the server is starting (Unavailable, STARTING). ctx ends the
// start, not the running server. An error is one sentence that names cause and
// remedy.
func Boot(ctx context.Context, c Config) (*Node, error) { panic("not built") }

// Addr is the address that the node serves on.
func (n *Node) Addr() net.Addr { panic("not built") }

// CAFile is the path of the certificate that clients pin (--ca-cert).
func (n *Node) CAFile() string { panic("not built") }

// ServerName is the name stored at the first start.
func (n *Node) ServerName() string { panic("not built") }

// Created reports whether this start made the data directory.
func (n *Node) Created() bool { panic("not built") }

// Failed is closed when the node can't go on (a commit of unknown outcome, a
// broken socket): the process should end with the error of Wait.
func (n *Node) Failed() <-chan struct{} { panic("not built") }

// Wait blocks until the node has ended and returns why: nil after Shutdown.
func (n *Node) Wait() error { panic("not built") }

// Reload reads the operator's certificate pair again (SIGHUP). On an error the
// pair in use stays.
func (n *Node) Reload() error { panic("not built") }

// Shutdown stops accepting, lets requests that run finish within ctx, ends the
// engine and closes every store. Connections are closed with code 0.
func (n *Node) Shutdown(ctx context.Context) error { panic("not built") }
