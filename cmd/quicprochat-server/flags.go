package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/alecthomas/kong"

	"quicprochat/commands"
	"quicprochat/rpc/server"
	"quicprochat/rpc/transparency"
)

// grammar is the command line. The tag var names a flag's environment variable;
// docs/configuration.md is written from these tags by a test.
type grammar struct {
	Serve serveCommand `cmd:"" default:"withargs" help:"Serve until SIGTERM or SIGINT; the first start creates the data directory."`
	Init  initCommand  `cmd:"" help:"Create the data directory and stop, without serving."`
	Admin adminCommand `cmd:"" help:"Roles, resets, revocations, bans, reports; server running or not."`
	Demo  demoCommand  `cmd:"" help:"Show that no message gets lost: two people, one kill -9, and proofs."`

	Version versionFlag `help:"Print version, commit and Go version."`
}

// directoryFlags are those of every command that opens a data directory.
type directoryFlags struct {
	DataDir    string `default:"data" var:"QPC_DATA_DIR" placeholder:"DIR" help:"Directory of the log, the keys and everything else the server keeps."`
	ServerName string `var:"QPC_SERVER_NAME" placeholder:"NAME" shown:"the stored name; at creation localhost" help:"DNS name of this server, stored at creation and final from then on: it stands in what users sign. Federation needs a real name."`
}

// serveCommand is the daemon.
type serveCommand struct {
	Listen         string `default:"0.0.0.0:5001" var:"QPC_LISTEN" placeholder:"HOST:PORT" help:"UDP address of the QUIC listener. 0.0.0.0 takes IPv6 too; port 0 takes a free port."`
	directoryFlags `embed:""`
	TLSCert        string   `name:"tls-cert" var:"QPC_TLS_CERT" placeholder:"FILE" shown:"data/server-cert.der" help:"TLS certificate (DER; a chain: concatenated, leaf first). The default follows --data-dir. Made, together with its key, when both files are missing; read again on SIGHUP."`
	TLSKey         string   `name:"tls-key" var:"QPC_TLS_KEY" placeholder:"FILE" shown:"data/server-key.der" help:"Private key of the certificate (DER, mode 0600). The default follows --data-dir."`
	Limits         string   `default:"default" enum:"default,off" var:"QPC_LIMITS" placeholder:"default|off" help:"off: no rate limits and quotas, for benchmarks; refused unless --listen is a loopback address."`
	AcceptTime     bool     `help:"Start once although the clock contradicts the log (newest event over 5 minutes ahead, or over 7 days ago). No variable: it is a decision about one start."`
	NoCreate       bool     `var:"QPC_NO_CREATE" help:"Never create a data directory, so that an unmounted disk does not look like a new server. For service units."`
	MinFree        int      `default:"8" var:"QPC_MIN_FREE" placeholder:"PERCENT" help:"Below so much free disk (at most 10 GiB) only calls are served that free space, or are needed to: login, fetch, acknowledge. 0: off, and no ballast file."`
	MLSSuites      []uint16 `name:"mls-suites" default:"1,3" var:"QPC_MLS_SUITES" placeholder:"N,…" help:"MLS cipher suites whose KeyPackages are taken, by number: of RFC 9420 those that sign with Ed25519, as device keys do. 1: AES-128-GCM, 3: ChaCha20-Poly1305, both with X25519."`
	KTListen       string   `name:"kt-listen" var:"QPC_KT_LISTEN" placeholder:"HOST:PORT" shown:"off" help:"TCP address that shows the public log to auditors and mirrors, read-only, plain HTTP (C2SP tlog-tiles, and deltas of key events). Whatever it shows is signed or hashed; put a cache or a proxy with TLS in front."`
	Witness        string   `var:"QPC_WITNESS" placeholder:"FILE" shown:"none" help:"File of the witnesses that cosign the log's checkpoints: one a line, its URL and its verifier key; a line quorum N says how many make a checkpoint count as cosigned (default: more than half). A witness that has seen more than this server stops it from signing."`
	MetricsListen  string   `var:"QPC_METRICS_LISTEN" placeholder:"HOST:PORT" shown:"off" help:"TCP address for Prometheus, path /metrics, plain HTTP: use a loopback address."`
}

// initCommand creates a data directory.
type initCommand struct {
	directoryFlags `embed:""`
}

// adminCommand is for whoever runs the server.
type adminCommand struct {
	Grant  grantCommand  `cmd:"" help:"Make a user an administrator or moderator."`
	Revoke revokeCommand `cmd:"" help:"Make an administrator or moderator a plain user again."`
	List   listCommand   `cmd:"" help:"List administrators and moderators."`

	Reset     resetCommand     `cmd:"" help:"Let a user who lost password or keys register the name anew."`
	RevokeKey revokeKeyCommand `cmd:"" help:"Put an identity key or a device key out of use, for ever."`

	NewGeneration newGenerationCommand `cmd:"" help:"Go on after a loss of the newest records (server stopped)."`
	Ban           banCommand           `cmd:"" help:"Shut a user out of the server."`
	Unban         unbanCommand         `cmd:"" help:"Lift a ban."`
	Bans          bansCommand          `cmd:"" help:"List who is banned."`
	Reports       reportsCommand       `cmd:"" help:"List what users reported."`
	Resolve       resolveCommand       `cmd:"" help:"Say what became of a report."`
}

// adminFlags are those of every command of adminCommand.
type adminFlags struct {
	DataDir    string `default:"data" var:"QPC_DATA_DIR" placeholder:"DIR" help:"Data directory of the server. When it runs, the command goes through DIR/admin.sock, else the directory is opened."`
	AcceptTime bool   `help:"On a stopped server: act although the clock contradicts the log, as serve does with this flag."`
}

type grantCommand struct {
	Name       string `arg:"" help:"Username."`
	Role       string `default:"admin" enum:"admin,moderator" placeholder:"admin|moderator" help:"What the user becomes: an admin may everything, a moderator sees reports and bans users."`
	adminFlags `embed:""`
}

type revokeCommand struct {
	Name       string `arg:"" help:"Username."`
	adminFlags `embed:""`
}

type listCommand struct {
	JSON       bool `name:"json" help:"Print a JSON array of objects with username, role and identity_key (hex)."`
	adminFlags `embed:""`
}

type resetCommand struct {
	Name       string `arg:"" help:"Username."`
	JSON       bool   `name:"json" help:"Print a JSON object with username, reset_token, expires_ms and the identity_key that will be revoked (hex)."`
	adminFlags `embed:""`
}

type revokeKeyCommand struct {
	Key        string `arg:"" help:"The key, 64 hexadecimal digits."`
	Reason     string `default:"unspecified" enum:"unspecified,key-compromise,superseded,cessation" placeholder:"REASON" help:"What the log tells everybody: unspecified, key-compromise, superseded or cessation."`
	JSON       bool   `name:"json" help:"Print a JSON object with key (hex), reason, authority and time_ms as they stand in the log."`
	adminFlags `embed:""`
}

type newGenerationCommand struct {
	AcceptLoss bool `help:"Say that the newest part of the log is lost for good. Without it nothing is done."`
	adminFlags `embed:""`
}

type banCommand struct {
	Name       string         `arg:"" help:"Username."`
	Reason     string         `placeholder:"TEXT" help:"Why, for other moderators; at most 1 KiB."`
	For        *time.Duration `placeholder:"DURATION" help:"How long, such as 72h; without it until 'admin unban'."`
	adminFlags `embed:""`
}

type unbanCommand struct {
	Name       string `arg:"" help:"Username."`
	Reason     string `placeholder:"TEXT" help:"Why, for other moderators; at most 1 KiB."`
	adminFlags `embed:""`
}

type bansCommand struct {
	JSON       bool `name:"json" help:"Print one JSON object a line."`
	adminFlags `embed:""`
}

type reportsCommand struct {
	State      string `default:"open" enum:"open,acted,dismissed,any" placeholder:"open|acted|dismissed|any" help:"Only reports in this state."`
	User       string `placeholder:"NAME" help:"Only reports about this user."`
	JSON       bool   `name:"json" help:"Print one JSON object a line; evidence in base64."`
	adminFlags `embed:""`
}

type resolveCommand struct {
	Report     string `arg:"" help:"The report, 32 hexadecimal digits."`
	State      string `arg:"" enum:"acted,dismissed,open" help:"acted, dismissed or open."`
	Note       string `placeholder:"TEXT" help:"What was done and why, for other moderators; at most 4 KiB."`
	adminFlags `embed:""`
}

// demoCommand shows the server at work.
type demoCommand struct {
	Keep bool `help:"Keep the folder with the demonstration's data directory and print where it is."`
}

// limits converts the flag for Boot.
func (c *serveCommand) limits() server.Limits { return server.Limits(c.Limits) }

// certificate gives the pair's paths: both empty for the data directory's own.
// Each flag has its default by itself, so that one alone can be given.
func (c *serveCommand) certificate() (cert, key string) {
	if c.TLSCert == "" && c.TLSKey == "" {
		return "", ""
	}
	cert, key = c.TLSCert, c.TLSKey
	if cert == "" {
		cert = filepath.Join(c.DataDir, "server-cert.der")
	}
	if key == "" {
		key = filepath.Join(c.DataDir, "server-key.der")
	}
	return cert, key
}

// Validate refuses what can't be meant before anything is touched. Kong calls
// it after parsing.
func (c *serveCommand) Validate(*kong.Context) error {
	if err := checkAddress("--listen", c.Listen); err != nil {
		return err
	}
	if c.MetricsListen != "" {
		if err := checkAddress("--metrics-listen", c.MetricsListen); err != nil {
			return err
		}
	}
	if err := commands.CheckMinFree(c.MinFree); err != nil {
		return fmt.Errorf("--min-free: %w", err)
	}
	if _, err := commands.NewKeyPackageSuites(c.MLSSuites); err != nil {
		return fmt.Errorf("--mls-suites: %w", err)
	}
	if c.KTListen != "" {
		if err := checkAddress("--kt-listen", c.KTListen); err != nil {
			return err
		}
	}
	return c.directoryFlags.check()
}

// suites converts --mls-suites, which Validate has seen.
func (c *serveCommand) suites() commands.KeyPackageSuites {
	suites, _ := commands.NewKeyPackageSuites(c.MLSSuites)
	return suites
}

// witnesses reads --witness.
func (c *serveCommand) witnesses() (transparency.WitnessPolicy, error) {
	if c.Witness == "" {
		return transparency.WitnessPolicy{}, nil
	}
	text, err := os.ReadFile(c.Witness)
	if err != nil {
		return transparency.WitnessPolicy{}, &coded{exitConfig, fmt.Errorf("--witness: %w: name a readable file, or leave the flag out", err)}
	}
	policy, err := transparency.ParseWitnessPolicy(string(text))
	if err != nil {
		return transparency.WitnessPolicy{}, &coded{exitConfig, fmt.Errorf("--witness %s: %w", c.Witness, err)}
	}
	return policy, nil
}

// Validate is called by kong after parsing.
func (c *initCommand) Validate(*kong.Context) error { return c.directoryFlags.check() }

func (f *directoryFlags) check() error { return checkDataDir(f.DataDir) }

// Validate is called by kong after parsing.
func (f *adminFlags) Validate(*kong.Context) error { return checkDataDir(f.DataDir) }

func checkDataDir(dir string) error {
	if dir == "" {
		return errors.New("--data-dir is empty: name a directory")
	}
	return nil
}

func checkAddress(flag, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%s %q is no address: give HOST:PORT, such as 0.0.0.0:5001 or [::1]:5001", flag, address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%s %q has no port number: give 0 to 65535 after the colon", flag, address)
	} else if strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("%s %q has a port with leading zeros or signs: write %d", flag, address, n)
	}
	return nil
}
