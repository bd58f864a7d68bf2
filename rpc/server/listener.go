package server

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"

	"quicprochat/rpc"
)

// listener is the QUIC endpoint on one packet connection.
type listener struct {
	transport *quic.Transport
	quic      *quic.Listener
}

// listen starts QUIC v1 with TLS 1.3 and the protocol name of package rpc.
// resetSeed makes stateless reset tokens that outlive the process: after a
// crash clients learn at once that their connection is gone (RFC 9000, section
// 10.3).
func (s *server) listen(conn net.PacketConn, id *identity, resetSeed []byte) error {
	key, err := hkdf.Key(sha256.New, resetSeed, nil, "qpc-stateless-reset-v1", len(quic.StatelessResetKey{}))
	if err != nil {
		return fmt.Errorf("derive the stateless reset key: %w", err)
	}
	resetKey := quic.StatelessResetKey(key)
	transport := &quic.Transport{
		Conn:                conn,
		StatelessResetKey:   &resetKey,
		VerifySourceAddress: s.verifySource(),
		ConnContext:         s.admit,
	}
	l, err := transport.Listen(tlsConfig(id), quicConfig())
	if err != nil {
		return fmt.Errorf("can't serve QUIC on %v: %w", conn.LocalAddr(), err)
	}
	s.listener = &listener{transport: transport, quic: l}
	return nil
}

// tlsConfig is TLS 1.3 with the key exchanges that Go prefers, of which the
// first is X25519MLKEM768.
func tlsConfig(id *identity) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{rpc.ALPN},
		GetCertificate: id.certificate,
	}
}

// quicConfig bounds what a stranger can make the server hold. GSO and path MTU
// discovery stay on; 0-RTT stays off, because it can be replayed.
func quicConfig() *quic.Config {
	return &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 idleTimeout,
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         maxStreamWindow,
		InitialConnectionReceiveWindow: connectionWindow,
		MaxConnectionReceiveWindow:     maxConnectionWindow,
		AllowConnectionWindowIncrease:  mayGrow,
		MaxIncomingStreams:             maxStreams,
		MaxIncomingUniStreams:          -1,
		RequireStreamCreditRelease:     true,
	}
}

// mayGrow lets the receive window of a connection with a session grow. It is
// called by the connection's own loop and must not call back into it.
func mayGrow(conn *quic.Conn, _ uint64) bool {
	a := admissionOf(conn.Context())
	return a != nil && a.recognised.Load()
}

// verifySource asks strangers to prove their address (Retry) while more
// handshakes begin than is usual. A proof costs one round trip.
func (s *server) verifySource() func(net.Addr) bool {
	if s.unlimited {
		return nil
	}
	usual := rate.NewLimiter(handshakeRate, handshakeBurst)
	return func(net.Addr) bool { return !usual.Allow() }
}

type admissionKey struct{}

func admissionOf(ctx context.Context) *admission {
	a, _ := ctx.Value(admissionKey{}).(*admission)
	return a
}

// admit counts a new connection, before its handshake, and refuses it over a
// cap. It is counted out when its context ends.
func (s *server) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	n, err := s.census.join(info.RemoteAddr)
	if err != nil {
		s.metrics.refusedConnections.Inc()
		return nil, err
	}
	a := &admission{census: s.census, neighbours: n}
	context.AfterFunc(ctx, a.leave)
	return context.WithValue(ctx, admissionKey{}, a), nil
}

// close ends the endpoint and its socket; connections must be closed before.
func (l *listener) close() error {
	err := l.quic.Close()
	if terr := l.transport.Close(); err == nil {
		err = terr
	}
	// The transport leaves a socket that it was given open.
	if cerr := l.transport.Conn.Close(); err == nil {
		err = cerr
	}
	return err
}
