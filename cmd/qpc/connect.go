package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
	"quicprochat/rpc/pake"
)

// connectTimeout bounds the first connection; later ones heal by themselves.
const connectTimeout = 10 * time.Second

// stretching is the profile's; only tests, whose passwords protect nothing, make it
// cheap.
var stretching pake.KSF

// config names the server and pins its CA.
func (a *app) config() (client.Config, error) {
	ca, err := os.ReadFile(a.CACert)
	if errors.Is(err, fs.ErrNotExist) {
		return client.Config{}, fmt.Errorf("CA certificate %s does not exist: copy ca-cert.der from the server's data directory and name it with --ca-cert", a.CACert)
	}
	if err != nil {
		return client.Config{}, fmt.Errorf("CA certificate: %w", err)
	}
	return client.Config{Addr: a.Server, ServerName: a.ServerName, CACert: ca, KSF: stretching}, nil
}

// connect dials the server. Keys that it names are proved, with what this home
// knows of its log.
func (a *app) connect(ctx context.Context) (*client.Client, error) {
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	if cfg.Transparency, err = a.transparency(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return client.Dial(ctx, cfg)
}

// reportRemote prints an error that came over the wire, or from this side, and
// returns the exit status it stands for.
func (a *app) reportRemote(err error) int {
	err = a.explain(err)
	var refused *client.StatusError
	if errors.As(err, &refused) {
		a.printRefusal(refused, err)
		return int(refused.Status)
	}
	var unreachable *client.ConnectError
	if errors.As(err, &unreachable) {
		var silent net.Error
		if errors.As(err, &silent) && silent.Timeout() {
			err = fmt.Errorf("%w: nobody answers there; is the server running, and is the address right (--server, QPC_SERVER)?", err)
		}
		return fail(a.stderr, exitNoConnection, err)
	}
	if errors.Is(err, client.ErrOutcomeUnknown) {
		return fail(a.stderr, exitNoConnection, err)
	}
	return fail(a.stderr, exitLocal, err)
}

// printRefusal prints what the server said: its ErrorDetail as JSON for programs
// (qpc call and --json), everything in a sentence for a person.
func (a *app) printRefusal(refused *client.StatusError, err error) {
	if a.JSON {
		detail, marshalErr := marshalLine(refused.Detail)
		if marshalErr == nil {
			fmt.Fprintf(a.stderr, "%s\n", detail)
			return
		}
	}
	fmt.Fprintf(a.stderr, "qpc: %v\n", err)
}

// isReason tells whether err is a refusal for this reason.
func isReason(err error, reason pb.Reason) bool { return client.ReasonOf(err) == reason }

// openSession opens the home and connects with the session of its last login.
func (a *app) openSession(ctx context.Context) (*home, *keys, *client.Client, error) {
	h, err := openHome(a.Home)
	if err != nil {
		return nil, nil, nil, err
	}
	k, err := h.keys()
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := h.session()
	if err != nil {
		return nil, nil, nil, err
	}
	c, err := a.connect(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	if c.ServerName() != k.ServerName {
		_ = c.Close()
		return nil, nil, nil, fmt.Errorf("this home belongs to the server named %q, not %q: set --server-name", k.ServerName, c.ServerName())
	}
	c.SetSession(client.Session{
		Username: k.Username, Token: s.Token, Scope: pb.SessionScope_DEVICE,
		IdentityKey: identityOf(k), DeviceKey: k.device().Public().(ed25519.PublicKey),
	})
	return h, k, c, nil
}
