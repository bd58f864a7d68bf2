package client

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"quicprochat/kt"
)

// Client is a connection to one server, with at most one session. It is safe for
// concurrent use.
type Client struct {
	cfg      Config
	tlsConf  *tls.Config
	quicConf *quic.Config

	transport *quic.Transport
	socket    net.PacketConn // ours to close, or nil

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // readers of pushes, dials, reconnects

	conn    atomic.Pointer[quic.Conn] // the newest one, perhaps dead
	dialMu  sync.Mutex
	dialing *dialAttempt // under dialMu: the one that is under way
	closed  bool         // under dialMu

	clock   clock
	trust   *trust
	changed atomic.Pointer[kt.VerifiedHead] // see ProvedChange
	session atomic.Pointer[Session]
	nextID  atomic.Uint32 // req_id of frames

	pushes subscribers
}

// Dial connects to the server and checks its certificate. Errors are
// *ConnectError, or say what is wrong with the Config.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	tlsConf, err := cfg.tlsConfig()
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, tlsConf: tlsConf, quicConf: cfg.quicConfig(), trust: newTrust(cfg.ServerName, cfg.Transparency)}
	packets := cfg.PacketConn
	if packets == nil {
		if packets, err = net.ListenUDP("udp", nil); err != nil {
			return nil, &ConnectError{Addr: cfg.Addr, Cause: err}
		}
		c.socket = packets
	}
	c.transport = &quic.Transport{Conn: packets}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if _, err := c.connection(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection and all goroutines of the Client. Calls under way
// fail with ErrClosed, or ErrOutcomeUnknown where they may have had an effect.
// The session stays valid on the server.
func (c *Client) Close() error {
	c.dialMu.Lock()
	if c.closed {
		c.dialMu.Unlock()
		c.wg.Wait()
		return nil
	}
	c.closed = true
	c.dialMu.Unlock()

	c.cancel()
	if conn := c.conn.Load(); conn != nil {
		closeConn(conn)
	}
	c.wg.Wait()
	err := c.transport.Close()
	if c.socket != nil {
		c.socket.Close()
	}
	c.pushes.closeAll()
	return err
}

// ServerName is the name that the client was configured for.
func (c *Client) ServerName() string { return c.cfg.ServerName }

// ServerTime is the server's time as well as replies have told it; before the
// first one it is the local time.
func (c *Client) ServerTime() time.Time { return time.UnixMilli(c.clock.now()) }
