package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"quicprochat/kt"
	"quicprochat/rpc/client"
)

// sourceFlags say where the log is read.
type sourceFlags struct {
	URL        string `name:"url" env:"QPC_AUDIT_URL" placeholder:"URL" help:"Read over HTTP: what the server's --kt-listen, a cache or a mirror serves (${env})."`
	Server     string `env:"QPC_SERVER" placeholder:"HOST:PORT" help:"Read over QUIC from the server itself (${env})."`
	ServerName string `env:"QPC_SERVER_NAME" placeholder:"NAME" help:"Name of the server in its certificate (${env}). Default: the host of --server if it is a DNS name, else localhost."`
	CACert     string `name:"ca-cert" env:"QPC_CA_CERT" placeholder:"FILE" help:"Certificate to trust with --server and nothing else, DER or PEM (${env}). Default: the system's."`
}

// open gives the source; exactly one of --url and --server is wanted.
func (f *sourceFlags) open() (source, error) {
	switch {
	case f.URL != "":
		return newHTTPSource(f.URL)
	case f.Server != "":
		dial, err := f.dialer()
		if err != nil {
			return nil, err
		}
		return &quicSource{dial: dial, address: f.Server}, nil
	}
	return nil, usageError("name the log to read: --url URL, or --server HOST:PORT")
}

// connectTimeout bounds the first connection; later ones heal by themselves.
const connectTimeout = 10 * time.Second

// dialer connects to the server.
type dialer func(context.Context) (*client.Client, error)

func (f *sourceFlags) dialer() (dialer, error) {
	if f.Server == "" {
		return nil, usageError("name the server: --server HOST:PORT")
	}
	config := client.Config{Addr: f.Server, ServerName: f.ServerName}
	if f.CACert != "" {
		ca, err := os.ReadFile(f.CACert)
		if err != nil {
			return nil, fmt.Errorf("CA certificate: %w", err)
		}
		config.CACert = ca
	}
	return func(ctx context.Context) (*client.Client, error) {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		c, err := client.Dial(ctx, config)
		var failed *client.ConnectError
		switch {
		case err == nil:
			return c, nil
		case errors.As(err, &failed), ctx.Err() != nil:
			return nil, &unreachableError{err}
		}
		return nil, usageError("--server, --server-name, --ca-cert: %w", err)
	}, nil
}

// trustFlags say what a checkpoint must carry.
type trustFlags struct {
	VKey      string        `name:"vkey" env:"QPC_AUDIT_VKEY" placeholder:"KEY|FILE" help:"The log's verifier key, or a file with it (log.vkey of the data directory) (${env}). Without it the first contact decides."`
	Witness   []string      `sep:"none" placeholder:"KEY" help:"Verifier key of a witness whose cosignature is wanted; may be given several times."`
	Quorum    int           `placeholder:"K" help:"How many of these witnesses must have signed. Default: more than half."`
	Freshness time.Duration `default:"10m" help:"How old the newest HEAD may be."`
}

// pin is a verifier key that somebody was given.
type pin struct {
	line   string
	origin string
	key    ed25519.PublicKey
}

// parsePin reads a C2SP signed-note verifier key of type 0x01 (Ed25519).
func parsePin(text string) (*pin, error) {
	origin, key, err := kt.ParseVerifierKey(text)
	if err != nil {
		return nil, err
	}
	return &pin{line: strings.TrimSpace(text), origin: origin, key: key}, nil
}

func (p *pin) opens(signed []byte) error {
	_, err := kt.OpenCheckpoint(signed, p.origin, p.key)
	return err
}

// opensAnyGeneration reads a note that the key signed under the log's name, of
// whatever generation: a log that is begun anew keeps its key.
func (p *pin) opensAnyGeneration(signed []byte) (kt.Checkpoint, error) {
	c, err := readCheckpoint(signed)
	if err != nil {
		return c, err
	}
	name, _, err := kt.ParseOrigin(c.Origin)
	if own, _, _ := kt.ParseOrigin(p.origin); err != nil || name != own {
		return c, fmt.Errorf("%w: %s is not of the log of %s", kt.ErrNote, c.Origin, own)
	}
	return kt.OpenCheckpoint(signed, c.Origin, p.key)
}

// pin reads --vkey, which is the key itself or a file with it.
func (f *trustFlags) pin() (*pin, error) {
	if f.VKey == "" {
		return nil, nil
	}
	p, keyErr := parsePin(f.VKey)
	if keyErr == nil {
		return p, nil
	}
	content, err := os.ReadFile(f.VKey)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usageError("--vkey %q is neither a file nor a key (origin+hash+key, as log.vkey has it)", f.VKey)
	}
	if err != nil {
		return nil, fmt.Errorf("--vkey: %w", err)
	}
	if p, err = parsePin(string(content)); err != nil {
		return nil, usageError("--vkey: %s holds no verifier key of a log (origin+hash+key, as log.vkey has it)", f.VKey)
	}
	return p, nil
}

func (f *trustFlags) policy() (kt.WitnessPolicy, error) {
	k := f.Quorum
	if k == 0 && len(f.Witness) > 0 {
		k = len(f.Witness)/2 + 1
	}
	p, err := kt.ParsePolicy(k, f.Witness)
	if err != nil {
		return p, usageError("--witness, --quorum: %v", err)
	}
	return p, nil
}

// auditFlags are those of every command that audits.
type auditFlags struct {
	sourceFlags `embed:""`
	trustFlags  `embed:""`
	State       string `env:"QPC_AUDIT_STATE" default:"qpc-audit.state" placeholder:"DIR" help:"Folder of what was verified: notes as they were signed, and evidence (${env})."`
	KTOnly      bool   `name:"kt-only" help:"Read key events alone, not every leaf: much faster, and sees less; the report tells what."`
}

// auditor opens state folder and source.
func (f *auditFlags) auditor(a *app) (*auditor, error) {
	pinned, err := f.pin()
	if err != nil {
		return nil, err
	}
	policy, err := f.policy()
	if err != nil {
		return nil, err
	}
	src, err := f.open()
	if err != nil {
		return nil, err
	}
	folder, err := openState(f.State)
	if err != nil {
		return nil, errors.Join(err, src.close())
	}
	return &auditor{
		src: src, folder: folder, pinned: pinned, policy: policy, freshness: f.Freshness, ktOnly: f.KTOnly,
		now: time.Now, progress: newProgress(a.stderr).tell,
	}, nil
}
