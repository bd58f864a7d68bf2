package client

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"quicprochat/rpc"
	"quicprochat/rpc/pake"
)

// Config says where a server is and how to know it.
type Config struct {
	// Addr is the server's UDP address, "host:port".
	Addr string
	// ServerName is the name that the server's certificate must carry, and the
	// first field of every signed statement. Default: the host of Addr if it is a
	// DNS name, else "localhost".
	ServerName string
	// CACert is the CA certificate to pin, one or more, DER or PEM. Empty: the
	// roots of the system.
	CACert []byte
	// KSF is the password stretching; the zero value is the profile's.
	KSF pake.KSF
	// Attempts is how often a call is sent at most, the first time counted.
	// Default 5; 1 means never again.
	Attempts int
	// Timeout bounds one attempt of a call. Default 15 s, the server's own
	// deadline being 10 s. FetchWait adds the time it waits, and long bodies add
	// what they take at 8 KiB/s.
	Timeout time.Duration
	// MaxIdle is after how much silence a connection counts as lost. Default
	// 30 s; the client keeps an idle connection alive at a third of it.
	MaxIdle time.Duration
	// PacketConn, if set, is used for QUIC in place of an own UDP socket; it is
	// not closed. RemoteAddr then is the server's address on it; without it Addr
	// is resolved.
	PacketConn net.PacketConn
	RemoteAddr net.Addr
	// Transparency says how keys are checked; the zero value proves each of them.
	Transparency Transparency
	// Logger gets reconnects at level debug; nil logs nothing.
	Logger *slog.Logger
}

// withDefaults fills in what is not set and checks the rest.
func (c Config) withDefaults() (Config, error) {
	if c.Addr == "" && c.RemoteAddr == nil {
		return c, errors.New("client: no server address")
	}
	if c.ServerName == "" {
		c.ServerName = defaultServerName(c.Addr)
	}
	if c.Attempts <= 0 {
		c.Attempts = 5
	}
	if c.Timeout <= 0 {
		c.Timeout = 15 * time.Second
	}
	if c.MaxIdle <= 0 {
		c.MaxIdle = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// defaultServerName is the host of addr if it is a DNS name, else "localhost".
func defaultServerName(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || host == "" || net.ParseIP(host) != nil {
		return "localhost"
	}
	return host
}

// tlsConfig pins the CA. There is no session cache: no resumption, no 0-RTT.
func (c Config) tlsConfig() (*tls.Config, error) {
	t := &tls.Config{
		ServerName: c.ServerName,
		NextProtos: []string{rpc.ALPN},
		MinVersion: tls.VersionTLS13,
	}
	if len(c.CACert) == 0 {
		return t, nil
	}
	certs, err := parseCerts(c.CACert)
	if err != nil {
		return nil, fmt.Errorf("client: CA certificate: %w", err)
	}
	t.RootCAs = x509.NewCertPool()
	for _, cert := range certs {
		t.RootCAs.AddCert(cert)
	}
	return t, nil
}

// parseCerts reads one or more certificates, DER or PEM.
func parseCerts(b []byte) ([]*x509.Certificate, error) {
	block, rest := pem.Decode(b)
	if block == nil {
		return x509.ParseCertificates(b)
	}
	var certs []*x509.Certificate
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %q where a CERTIFICATE should be", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

const (
	// maxPushStreams bounds the pushes that the server may have in flight to us.
	maxPushStreams = 64
	// streamWindow holds a whole page of Fetch without a round trip.
	streamWindow = 1280 << 10
)

func (c Config) quicConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           5 * time.Second,
		MaxIdleTimeout:                 c.MaxIdle,
		KeepAlivePeriod:                c.MaxIdle / 3,
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         rpc.MaxResponse,
		InitialConnectionReceiveWindow: 2 * streamWindow,
		MaxConnectionReceiveWindow:     4 * rpc.MaxResponse,
		MaxIncomingStreams:             -1, // servers open no calls
		MaxIncomingUniStreams:          maxPushStreams,
	}
}
