package server

import (
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"quicprochat/commands"
	"quicprochat/rpc/transparency"
)

// Limits chooses between the rate limits and quotas of normal operation and
// none at all.
type Limits string

const (
	// LimitsDefault applies the rate limits of the method table, the caps per
	// address prefix and the queue quotas. The zero Limits means the same.
	LimitsDefault Limits = "default"
	// LimitsOff drops rate limits, connection caps, queue and sender quotas,
	// for benchmarks. Size limits stay. Boot refuses it unless the listener's
	// address is a loopback address.
	LimitsOff Limits = "off"
)

// Config is everything Boot needs. Only Dir and PacketConn are required.
type Config struct {
	// FS holds the stores; nil means the operating system's file system.
	FS vfs.FS
	// Dir is the data directory.
	Dir string
	// PacketConn is the UDP socket (or a simulated one) to serve on. Boot owns
	// it from the call on and closes it on failure and at the end.
	PacketConn net.PacketConn
	// ServerName is the name that signed statements carry and the certificate
	// is made for; empty means the one stored in the data directory, or
	// "localhost" at the first start.
	ServerName string
	// Limits is LimitsDefault or LimitsOff; empty means LimitsDefault.
	Limits Limits
	// TLSCert and TLSKey are the DER files of the certificate and its key. Both
	// empty means server-cert.der and server-key.der in Dir, generated when
	// missing. One of two files missing is refused.
	TLSCert, TLSKey string
	// AdminSocket is the path of the unix socket for whoever runs the server
	// (package admin); empty means none. Simulated file systems have no sockets.
	AdminSocket string
	// AcceptTime lets the server start although its clock contradicts the log.
	AcceptTime bool
	// MinFree is the share of the disk in percent, 10 GiB at most, below which
	// only calls pass that free space or are needed to; 0: no such limit, and no
	// ballast file in Dir.
	MinFree int
	// MLSSuites are the cipher suites whose KeyPackages are taken; nil means
	// commands.DefaultKeyPackageSuites.
	MLSSuites commands.KeyPackageSuites
	// Witnesses cosign the log's checkpoints; the zero value asks none.
	Witnesses transparency.WitnessPolicy
	// WallClock tells the engine the time of day; nil means time.Now. It is not
	// asked how long something takes.
	WallClock func() time.Time
	// NoCreate refuses to make a new data directory.
	NoCreate bool
	// Version is told by Health.
	Version string
	// Logger receives what the operator must know; nil means slog.Default.
	Logger *slog.Logger
	// Registerer receives the metrics; nil means that none are registered.
	Registerer prometheus.Registerer
}

// validate fills defaults in and refuses what contradicts itself.
func (c Config) validate() (Config, error) {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Limits == "" {
		c.Limits = LimitsDefault
	}
	if c.MLSSuites == nil {
		c.MLSSuites = commands.DefaultKeyPackageSuites
	}
	switch {
	case c.Dir == "":
		return c, fmt.Errorf("no data directory given: set --data-dir")
	case c.PacketConn == nil:
		return c, fmt.Errorf("no socket given to serve on")
	case c.Limits != LimitsDefault && c.Limits != LimitsOff:
		return c, fmt.Errorf("limits %q: use %q or %q", c.Limits, LimitsDefault, LimitsOff)
	case c.Limits == LimitsOff && !isLoopback(c.PacketConn.LocalAddr()):
		return c, fmt.Errorf("limits can be off only on a loopback address, and %v is none: listen on 127.0.0.1 or leave the limits on", c.PacketConn.LocalAddr())
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return c, fmt.Errorf("a certificate needs its key: give both --tls-cert and --tls-key, or neither")
	}
	if err := commands.CheckMinFree(c.MinFree); err != nil {
		return c, err
	}
	return c, nil
}

func isLoopback(a net.Addr) bool {
	udp, ok := a.(*net.UDPAddr)
	return ok && udp.IP.IsLoopback()
}
