package client

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"quicprochat/rpc"
)

const (
	// dialTimeout bounds one attempt over all addresses.
	dialTimeout = 10 * time.Second
	// nextAddress is how long an address is tried before the next one is tried
	// beside it (RFC 8305 §5).
	nextAddress = 250 * time.Millisecond
)

// dialAttempt is shared by all calls that need a connection at that time.
type dialAttempt struct {
	done chan struct{} // closed when conn and err are set
	conn *quic.Conn
	err  error
}

// connection returns the live connection, or waits for a new one. An error is
// *ConnectError, ErrClosed or ctx's.
func (c *Client) connection(ctx context.Context) (*quic.Conn, error) {
	if conn := c.conn.Load(); conn != nil && conn.Context().Err() == nil {
		return conn, nil
	}
	attempt, err := c.joinDial()
	if err != nil {
		return nil, err
	}
	select {
	case <-attempt.done:
		return attempt.conn, attempt.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// joinDial returns the dial under way, or starts one.
func (c *Client) joinDial() (*dialAttempt, error) {
	c.dialMu.Lock()
	defer c.dialMu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if c.dialing != nil {
		return c.dialing, nil
	}
	if conn := c.conn.Load(); conn != nil && conn.Context().Err() == nil {
		done := make(chan struct{})
		close(done)
		return &dialAttempt{done: done, conn: conn}, nil
	}
	attempt := &dialAttempt{done: make(chan struct{})}
	c.dialing = attempt
	c.wg.Go(func() { c.runDial(attempt) })
	return attempt, nil
}

func (c *Client) runDial(attempt *dialAttempt) {
	ctx, cancel := context.WithTimeout(c.ctx, dialTimeout)
	defer cancel()
	conn, err := c.dial(ctx)

	c.dialMu.Lock()
	c.dialing = nil
	switch {
	case c.closed:
		if conn != nil {
			closeConn(conn)
		}
		attempt.err = ErrClosed
	case err != nil:
		attempt.err = &ConnectError{Addr: c.addrText(), Permanent: isPermanent(err), Cause: err}
	default:
		attempt.conn = conn
		c.conn.Store(conn)
		c.wg.Go(func() { c.readPushes(conn) })
	}
	c.dialMu.Unlock()
	close(attempt.done)
}

func (c *Client) addrText() string {
	if c.cfg.RemoteAddr != nil {
		return c.cfg.RemoteAddr.String()
	}
	return c.cfg.Addr
}

// dial tries the server's addresses and takes the first that answers.
func (c *Client) dial(ctx context.Context) (*quic.Conn, error) {
	addrs, err := c.addresses(ctx)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 1 {
		return c.transport.Dial(ctx, addrs[0], c.tlsConf, c.quicConf)
	}
	return c.race(ctx, addrs)
}

// dialResult is how the dial of one address ended.
type dialResult struct {
	conn *quic.Conn
	err  error
}

// race tries each address a little later than the one before, or as soon as that
// one failed. The losers have ended when it returns.
func (c *Client) race(ctx context.Context, addrs []net.Addr) (winner *quic.Conn, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialResult, len(addrs))
	timer := time.NewTimer(0)
	defer timer.Stop()
	started, ended := 0, 0
	var errs []error
	for ended < len(addrs) && winner == nil {
		select {
		case <-timer.C:
			if started == len(addrs) {
				continue
			}
			addr := addrs[started]
			started++
			c.wg.Go(func() {
				conn, err := c.transport.Dial(ctx, addr, c.tlsConf, c.quicConf)
				results <- dialResult{conn, err}
			})
			timer.Reset(nextAddress)
		case r := <-results:
			ended++
			if winner = r.conn; r.err != nil {
				errs = append(errs, r.err)
				timer.Reset(0)
			}
		}
	}
	cancel()
	for ; ended < started; ended++ {
		if r := <-results; r.conn != nil {
			closeConn(r.conn)
		}
	}
	if winner == nil {
		return nil, errors.Join(errs...)
	}
	return winner, nil
}

// addresses resolves the server, IPv4 first: a server that listens on the
// default 0.0.0.0 is reached at "localhost" without a detour.
func (c *Client) addresses(ctx context.Context) ([]net.Addr, error) {
	if c.cfg.RemoteAddr != nil {
		return []net.Addr{c.cfg.RemoteAddr}, nil
	}
	host, portText, err := net.SplitHostPort(c.cfg.Addr)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", portText)
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = "localhost"
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var v4, v6 []net.Addr
	for _, ip := range ips {
		addr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip.Unmap(), uint16(port)))
		if ip.Unmap().Is4() {
			v4 = append(v4, addr)
		} else {
			v6 = append(v6, addr)
		}
	}
	return append(v4, v6...), nil
}

func closeConn(conn *quic.Conn) {
	_ = conn.CloseWithError(rpc.CodeShutdown, "") // only fails when closed already
}
